"""Checkpoints come back bit for bit, on any mesh, or say what is wrong."""

import re
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt import paths
from instructgpt.checkpoints import Checkpoints, open_checkpoint
from instructgpt.errors import UserError
from instructgpt.models.transformer import Transformer
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.state import TrainState, layout_of, make_train_state, params_layout
from tests import tiny

MODEL = Transformer(tiny.config())
OPTIMIZER = make_optimizer(OptimizerConfig(0.1), 10)
META = {
    "data": {"epoch": 2, "position": 17, "order": None, "name": "x"},
    "key": [0, 4294967295],
    "rate": 0.1,
}
ONE = jax.sharding.SingleDeviceSharding(jax.devices()[0])


def state_on(mesh, *, params) -> TrainState:
    """A state with moments that are not zero."""
    key = jax.random.key(0)
    state = make_train_state(MODEL, OPTIMIZER, key=key, mesh=mesh, params=params)
    return jax.jit(lambda s: s.updated(s.params, OPTIMIZER))(state)


@pytest.fixture(scope="module")
def state() -> TrainState:
    """On 8 devices: data x fsdp x tensor."""
    return state_on(tiny.mesh_of(2, 2, 2), params=tiny.params_of(MODEL))


@pytest.fixture(scope="module")
def saved(state, tmp_path_factory):
    """A workdir with the state at step 3."""
    workdir = tmp_path_factory.mktemp("workdir")
    checkpoints = Checkpoints(workdir / "checkpoints")
    checkpoints.save(3, state.parts(), META)
    checkpoints.close()
    return workdir


@pytest.fixture
def opened(saved):
    checkpoints, step = open_checkpoint(saved)
    assert step == 3
    yield checkpoints
    checkpoints.close()


def small(directory, *, keep=1):
    """A checkpointer and a function that saves a tiny state at a step."""
    checkpoints = Checkpoints(directory, keep=keep)

    def save(step):
        checkpoints.save(step, {"params": {"w": jnp.full(3, float(step))}}, {"n": 1})
        checkpoints.wait()

    return checkpoints, save


def test_state_comes_back_bit_for_bit(opened, state):
    parts, meta = opened.restore(3, layout_of(state.parts()))
    restored = TrainState.from_parts(parts)
    tiny.assert_equal(jax.device_get(restored), jax.device_get(state))
    assert int(restored.step) == 1
    assert meta == META


def test_state_comes_back_on_another_mesh(opened, state):
    one = state_on(tiny.mesh_of(), params=tiny.params_of(MODEL))
    parts, _ = opened.restore(3, layout_of(one.parts()))
    restored = TrainState.from_parts(parts)
    tiny.assert_equal(jax.device_get(restored), jax.device_get(state))
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding.device_set == {jax.devices()[0]}


def test_parameters_come_back_alone(opened, state):
    parts, _ = opened.restore(3, {"params": params_layout(MODEL, tiny.mesh_of(fsdp=8))})
    assert parts.keys() == {"params"}
    tiny.assert_equal(jax.device_get(parts["params"]), jax.device_get(state.params))


def test_meta_comes_back_alone(opened):
    assert opened.meta(3) == META


def test_a_wrong_shape_is_a_user_error(opened):
    other = params_layout(Transformer(tiny.config(context_length=16)), tiny.mesh_of())
    with pytest.raises(UserError, match=r"position_embedding is \(32, 16\)"):
        opened.restore(3, {"params": other})


def test_a_missing_array_is_a_user_error(opened, state):
    layout = {
        **layout_of(state.params),
        "head": jax.ShapeDtypeStruct((3,), jnp.float32),
    }
    with pytest.raises(UserError, match="params/head is missing in the checkpoint"):
        opened.restore(3, {"params": layout})


def test_a_missing_part_is_a_user_error(opened, state):
    with pytest.raises(UserError, match=r"has no 'ema'; it has .*'params'"):
        opened.restore(3, {"ema": layout_of(state.params)})


def test_a_missing_step_is_a_user_error(opened, state):
    with pytest.raises(UserError, match=r"has no checkpoint 4; it has \[3\]"):
        opened.restore(4, layout_of(state.parts()))


def test_a_workdir_without_checkpoints_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint in .*run the stage"):
        open_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UserError, match="holds no complete checkpoint"):
        open_checkpoint(tmp_path)


@pytest.fixture
def half_written(tmp_path):
    """A folder with a checkpoint at 1, and what a kill left of the write at 2."""
    directory = tmp_path / "checkpoints"
    checkpoints, save = small(directory, keep=None)
    save(1)
    save(2)
    checkpoints.close()
    half = directory / "2.orbax-checkpoint-tmp"
    (directory / "2").rename(half)
    return half


def test_a_half_written_checkpoint_is_not_seen_and_cleared(half_written):
    checkpoints, save = small(half_written.parent)
    assert checkpoints.steps == [1] and checkpoints.latest == 1
    save(3)
    checkpoints.close()
    assert [path.name for path in half_written.parent.iterdir()] == ["3"]


def test_reading_leaves_what_another_process_is_writing(half_written):
    reader, step = open_checkpoint(half_written.parent.parent)
    reader.close()
    time.sleep(0.2)  # clearing would be on another thread
    assert step == 1
    assert half_written.exists()


@pytest.mark.parametrize(
    ("keep", "steps"), [(1, [4]), (2, [3, 4]), (None, [1, 2, 3, 4])]
)
def test_the_latest_are_kept(tmp_path, keep, steps):
    checkpoints, save = small(tmp_path, keep=keep)
    for step in range(1, 5):
        save(step)
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=keep)
    assert checkpoints.steps == steps and checkpoints.latest == 4
    checkpoints.close()


def test_what_no_config_names_goes_when_something_newer_is_there(tmp_path):
    """A run that saves each 10 steps and keeps two, stopped at 17 and gone on."""
    even = dict(keep=2, named=lambda step: step % 10 == 0)

    def left(save=None):
        checkpoints = Checkpoints(tmp_path, **even)
        if save:
            checkpoints.save(save, {"params": {"w": jnp.ones(3)}}, {})
            checkpoints.wait()
        checkpoints.close()
        return checkpoints.steps

    assert left(save=10) == [10]
    assert left(save=17) == [10, 17]
    assert left() == [10, 17]  # the newest is where it goes on
    assert left(save=20) == [10, 20]
    assert left(save=30) == [20, 30]


def test_what_a_kill_left_undeleted_goes_when_a_run_opens(tmp_path):
    checkpoints, save = small(tmp_path, keep=None)
    for step in (1, 2, 3):
        save(step)
    checkpoints.close()
    reader, _ = open_checkpoint_in(tmp_path)
    assert reader.steps == [1, 2, 3]
    reader.close()
    checkpoints, _ = small(tmp_path)
    assert checkpoints.steps == [3]
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3"]


def open_checkpoint_in(directory):
    """A reader of a folder of checkpoints that has another name."""
    reader = Checkpoints(directory, keep=1, clean=False)
    return reader, reader.latest


@pytest.mark.parametrize("name", ["a[1]", "a b", "*", "ü?", "[x", "{n}", "a\\b"])
def test_folders_of_any_name(tmp_path, name):
    workdir = tmp_path / name
    checkpoints, save = small(workdir / "checkpoints")
    save(2)
    checkpoints.close()
    reader, step = open_checkpoint(workdir)
    layout = {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=ONE)}
    parts, meta = reader.restore(step, {"params": layout})
    reader.close()
    np.testing.assert_array_equal(parts["params"]["w"], [2, 2, 2])
    assert meta == {"n": 1}


@pytest.fixture(scope="module")
def two(state, tmp_path_factory):
    """A folder with checkpoints 1 and 2 of the state's parameters."""
    directory = tmp_path_factory.mktemp("two") / "checkpoints"
    checkpoints = Checkpoints(directory, keep=2)
    for step in (1, 2):
        checkpoints.save(step, {"params": state.params}, META)
        checkpoints.wait()
    checkpoints.close()
    return directory


DAMAGES = {
    "bit": lambda b, at: b[:at] + bytes([b[at] ^ 1 << at % 8]) + b[at + 1 :],
    "cut": lambda b, at: b[:at],
    "zeros": lambda b, at: b[:at] + bytes(min(16, len(b) - at)) + b[at + 16 :],
    "twice": lambda b, at: b[:at] + b,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_or_changes_nothing(two, state, damage, tmp_path, rng):
    """Every file of a checkpoint, each at two places."""
    layout = params_layout(MODEL, tiny.mesh_of())
    named = 0
    for number, path in enumerate(sorted((two / "2").rglob("*"))):
        if path.is_dir() or not path.stat().st_size:
            continue
        for place in rng.integers(path.stat().st_size, size=2):
            folder = tmp_path / f"{number}-{place}"
            shutil.copytree(two, folder / "checkpoints")
            file = folder / "checkpoints" / path.relative_to(two)
            file.write_bytes(DAMAGES[damage](file.read_bytes(), int(place)))
            reader, _ = open_checkpoint(folder)
            try:
                parts, meta = reader.restore(2, {"params": layout})
            except UserError as error:
                assert re.search(r"checkpoints/2 is damaged: \S+ is not", str(error))
                assert "the one before it, 1, is gone on from" in str(error)
                named += 1
            else:
                tiny.assert_equal(
                    jax.device_get(parts["params"]), jax.device_get(state.params)
                )
                assert meta == META
            reader.close()
            shutil.rmtree(folder)
    assert named > 3


def test_a_checkpoint_alone_that_is_damaged(saved, state, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    biggest = max(
        (tmp_path / "run/checkpoints/3/params").rglob("*"),
        key=lambda p: p.stat().st_size,
    )
    biggest.write_bytes(biggest.read_bytes()[:-40])
    reader, step = open_checkpoint(tmp_path / "run")
    with pytest.raises(UserError, match=r"3 is damaged: params/\S+ is .* make it anew"):
        reader.restore(step, layout_of(state.parts()))
    reader.close()


@pytest.mark.parametrize("key", ["checksum", "arrays", "n"])
def test_meta_without_one_of_its_keys_is_damaged(tmp_path, key):
    """Also where a kill left no list of the files."""
    checkpoints, save = small(tmp_path / "checkpoints")
    save(1)
    checkpoints.close()
    (tmp_path / "checkpoints/1/files.json").unlink()
    meta = tmp_path / "checkpoints/1/meta/data.json"
    text = meta.read_text()
    assert f'"{key}"' in text
    meta.write_text(text.replace(f'"{key}"', '"_"'))
    reader, step = open_checkpoint(tmp_path)
    with pytest.raises(UserError, match="1 is damaged: meta is not what was saved"):
        reader.meta(step)
    reader.close()


LAYOUT = {"params": {"w": jax.ShapeDtypeStruct((3,), jnp.float32, sharding=ONE)}}


@pytest.fixture
def another(tmp_path):
    """A workdir whose checkpoint says that its array is another one's."""
    for name, value in (("run", 1.0), ("other", 2.0)):
        checkpoints = Checkpoints(tmp_path / name / "checkpoints")
        checkpoints.save(1, {"params": {"w": jnp.full(3, value)}}, {})
        checkpoints.close()
    params = "checkpoints/1/params"
    shutil.rmtree(tmp_path / "run" / params)
    shutil.copytree(tmp_path / "other" / params, tmp_path / "run" / params)
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("verify", "found"), [("files", r"params/\S+\."), ("arrays", "params/w "), ("", "")]
)
def test_what_is_compared_is_chosen(another, verify, found, monkeypatch):
    if verify != "files":
        monkeypatch.setattr("instructgpt.checkpoints.first_damaged", None)
    reader, step = open_checkpoint(another, verify=verify or "nothing")
    if found:
        with pytest.raises(UserError, match=rf"1 is damaged: {found}"):
            reader.restore(step, LAYOUT)
    else:
        assert reader.restore(step, LAYOUT)[0]["params"]["w"].tolist() == [2, 2, 2]
    reader.close()


def test_files_are_read_once_and_listed_for_those_who_compare_them(
    tmp_path, monkeypatch
):
    checkpoints, save = small(tmp_path / "checkpoints")
    save(1)
    checkpoints.close()
    looked = []
    monkeypatch.setattr(
        "instructgpt.checkpoints.first_damaged", lambda path: looked.append(path)
    )
    reader, step = open_checkpoint(tmp_path)
    reader.meta(step)
    reader.restore(step, LAYOUT)
    reader.close()
    assert looked == [tmp_path / "checkpoints/1"]
    (tmp_path / "checkpoints/1/files.json").unlink()
    for verify in ("nothing", "arrays", "files"):
        Checkpoints(tmp_path / "checkpoints", verify=verify).close()
        listed = (tmp_path / "checkpoints/1/files.json").exists()
        assert listed == (verify == "files")


def test_a_folder_with_letters_of_a_pattern_survives_a_cleaner_of_temporary_files(
    tmp_path,
):
    directory = tmp_path / "[run] *" / "checkpoints"
    checkpoints, save = small(directory)
    save(1)
    for link in paths._links().iterdir():
        link.unlink()
    save(2)
    assert checkpoints.steps == [2]
    checkpoints.close()
    assert {path.name for path in directory.iterdir()} == {"2"}
    reader, step = open_checkpoint(directory.parent)
    assert reader.restore(step, LAYOUT)[0]["params"]["w"].tolist() == [2, 2, 2]
    reader.close()


def test_no_room_is_one_line(tmp_path, monkeypatch):
    checkpoints, save = small(tmp_path, keep=2)
    save(1)

    def full(*arguments, **options):
        try:
            raise ValueError("RESOURCE_EXHAUSTED: writing: No space left on device")
        except ValueError as error:
            raise RuntimeError("background") from error

    monkeypatch.setattr(checkpoints._checkpointer, "save_checkpointables_async", full)
    with pytest.raises(UserError, match=r"checkpoint 2 .*No space left.*stay: \[1\]"):
        save(2)
    checkpoints.close()


def test_no_checkpoint_at_first(tmp_path):
    checkpoints, _ = small(tmp_path)
    assert checkpoints.steps == [] and checkpoints.latest is None
    checkpoints.close()
