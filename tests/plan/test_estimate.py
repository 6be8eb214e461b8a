"""A plan against the truth: live arrays and the executables that run."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import evaluate as evaluate_config
from configs import label as label_config
from configs import ppo_ptx as ppo_config
from configs import reward as reward_config
from configs import select as select_config
from configs import sft as sft_config
from instructgpt.errors import UserError
from instructgpt.optim import OptimizerConfig, make_optimizer
from instructgpt.plan.estimate import compile_program, device_bytes, estimate
from instructgpt.plan.machines import GIB, gpus
from instructgpt.plan.report import advice, as_json, as_text
from instructgpt.plan.work import Work, describe
from instructgpt.stages import find
from instructgpt.state import PPOState, cast, make_train_state
from tests import tiny

MODEL = tiny.config(vocab_size=1280, context_length=192, width=64, num_heads=4)
ASKING = {"label": label_config, "select": select_config, "evaluate": evaluate_config}
STAGES = {"sft": sft_config, "reward": reward_config, "ppo": ppo_config, **ASKING}


def work_of(stage: str, mesh: jax.sharding.Mesh) -> Work:
    config = STAGES[stage].get_config("smoke")
    with jax.set_mesh(mesh):
        return describe(config, dict.fromkeys(find(config.stage).models, MODEL), mesh)


def live(tree):
    """Arrays of zeros (and a key) where abstract ones were."""

    def one(x):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jax.random.key(0)
        return jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)

    return jax.tree.map(one, tree)


def bytes_on_a_device(tree) -> int:
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def mesh():
    return tiny.mesh_of(data=2, fsdp=2, tensor=2)


@pytest.fixture(scope="module")
def machine():
    return gpus(8, kind="h100")


def test_what_is_held_is_what_a_stage_makes(mesh, key):
    """The state of PPO as the stage initialises it, byte for byte."""
    work = work_of("ppo", mesh)
    state, _, _, _ = work.programs["update"].arguments
    scorer, *_ = work.programs["score"].arguments
    *_, reference, _ = work.programs["rollout"].arguments
    optimizer = make_optimizer(OptimizerConfig(1e-3), 10)
    with jax.set_mesh(mesh):
        parts = [
            make_train_state(model, optimizer, key=key, mesh=mesh)
            for model in tiny_models()
        ]
    real = PPOState(*parts, jax.tree.map(lambda x: x.copy(), parts[0].params))
    assert jax.tree.structure(real) == jax.tree.structure(state)
    for have, want in zip(jax.tree.leaves(state), jax.tree.leaves(real), strict=True):
        assert have.shape == want.shape and have.dtype == want.dtype
        assert have.sharding.is_equivalent_to(want.sharding, want.ndim)
    held = sum(device_bytes(tree) for tree in work.held.values())
    copies = cast(parts[0].params, "float32"), cast(parts[1].params, "float32")
    assert held == bytes_on_a_device((real, copies))
    assert device_bytes((reference, scorer)) == bytes_on_a_device(copies)


def test_models_of_their_own_sizes_are_planned_with_them(mesh):
    """A KL reference and a value net that the config names."""
    wide = dataclasses.replace(MODEL, width=128)
    narrow = dataclasses.replace(MODEL, width=32)
    config = STAGES["ppo"].get_config("smoke")
    config.reference_init.path, config.value_init.path = "wide", "narrow"
    sizes = dict.fromkeys(("init", "reward_init"), MODEL)
    sizes |= {"reference_init": wide, "value_init": narrow}
    with jax.set_mesh(mesh):
        work = describe(config, sizes, mesh)
    plain = work_of("ppo", mesh)
    for name, size in {"reference": wide, "value net: parameters": narrow}.items():
        held = device_bytes(work.held[name])
        assert (held > device_bytes(plain.held[name])) == (size is wide)
    # A width twice as large costs more than one half as large saves.
    assert work.programs["rollout"].cost.flops > plain.programs["rollout"].cost.flops


def tiny_models():
    from instructgpt.models.transformer import ScalarModel, Transformer

    return Transformer(MODEL), ScalarModel(MODEL)


@pytest.mark.parametrize(
    ("stage", "phase"),
    [("sft", "train step"), ("reward", "train step"), ("ppo", "update")],
)
def test_predicted_bytes_are_those_of_the_running_executable(
    stage, phase, mesh, machine
):
    work = work_of(stage, mesh)
    with jax.set_mesh(mesh):
        plan = estimate(work, machine, mesh, phases=(phase,))
        found = work.programs[phase]
        arguments = live(found.arguments)
        running = found.jitted.lower(*arguments).compile()
        memory = running.memory_analysis()
        running(*jax.tree.map(lambda x: x.copy(), arguments))
    predicted = plan.compiled[phase]
    real = memory.argument_size_in_bytes, memory.temp_size_in_bytes
    assert predicted.arguments == pytest.approx(real[0], rel=0.1)
    assert predicted.temporaries == pytest.approx(real[1], rel=0.1)
    *arrays, _ = arguments  # the last one is the key
    assert predicted.arguments == pytest.approx(bytes_on_a_device(arrays), rel=0.1)
    waiting = device_bytes(found.beside)  # the next batch
    assert waiting > 0
    assert plan.peak >= predicted.arguments + predicted.temporaries + waiting


@pytest.mark.parametrize("stage", sorted(ASKING))
def test_stages_that_ask_hold_and_run_what_is_planned(stage, mesh, machine):
    work = work_of(stage, mesh)
    with jax.set_mesh(mesh):
        plan = estimate(work, machine, mesh)
        for name, found in work.programs.items():
            arguments = live(found.arguments)
            out = found.jitted(*arguments)
            arrays = arguments[:2] if name == "answer" else arguments  # not the key
            real = bytes_on_a_device(arrays)
            assert plan.compiled[name].arguments == pytest.approx(real, rel=0.1)
            rows = jax.tree.leaves(out)[0].shape[0]
            assert rows == jax.tree.leaves(found.arguments[1])[0].shape[0]
    both = {"policy", "reward model"}
    assert work.held.keys() == ({"policy"} if stage == "label" else both)
    assert plan.peak >= sum(device_bytes(tree) for tree in work.held.values())


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_no_matrix_is_whole_on_every_device_of_fsdp(stage):
    """Parameters, moments, averages and frozen copies are all cut."""
    mesh, seen = tiny.mesh_of(fsdp=4, tensor=2), 0
    for name, tree in work_of(stage, mesh).held.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            kind = path[-1].key if hasattr(path[-1], "key") else ""
            if (kind == "kernel" and leaf.ndim > 2) or kind.endswith("embedding"):
                whole, part = leaf.shape, leaf.sharding.shard_shape(leaf.shape)
                ways = np.prod(whole) / np.prod(part)
                assert ways >= 4, f"{name}{jax.tree_util.keystr(path)}"
                seen += 1
    copies = 1 if stage in ASKING else 3  # parameters, and two moments
    assert seen >= copies * 8, "of eight matrices"


def test_the_report_says_whether_it_fits_and_what_to_change(mesh, machine):
    work = work_of("sft", mesh)
    with jax.set_mesh(mesh):
        said: list[str] = []
        plan = estimate(work, machine, mesh, log=said.append)
    # As soon as it is known: the next function may take an hour.
    began, ended = said
    assert began == "compiling train step for 8 devices ..."
    assert ended.startswith("train step takes 0.0") and "compiled in" in ended
    text = as_text(plan)
    assert "it fits" in text and "model: optimiser" in text and "bound by" in text
    numbers = as_json(plan)
    assert numbers["fits"] and numbers["chips"] == 8
    assert numbers["bytes_per_chip"]["peak"] == plan.peak
    held = sum(plan.held.values())
    tight = machine.chip._replace(memory=held + 1000.0)
    small = plan._replace(machine=machine._replace(chip=tight))
    assert not small.fits
    assert any("config.train.microbatches" in line for line in advice(small))
    none = machine.chip._replace(memory=held / 2)
    none = plan._replace(machine=machine._replace(chip=none))
    assert any("take more chips" in line for line in advice(none))


def test_phases_by_name_and_what_was_left_is_told(mesh, machine):
    work = work_of("ppo", mesh)
    with jax.set_mesh(mesh):
        plan = estimate(work, machine, mesh, phases=("score",))
        with pytest.raises(UserError, match=r"--phases: .* no train; known: prefill, "):
            estimate(work, machine, mesh, phases=("score", "train"))
    assert list(plan.compiled) == ["score"]
    (told,) = advice(plan)
    assert all(name in told for name in ("prefill", "decode", "update"))
    small = machine._replace(chip=machine.chip._replace(memory=1000.0))
    with jax.set_mesh(mesh):
        plan = estimate(work, small, mesh, until_full=True)
    assert not plan.compiled and not plan.fits, "what is held is too much"
    tight = machine.chip._replace(memory=1.1 * sum(plan.held.values()))
    with jax.set_mesh(mesh):
        plan = estimate(work, machine._replace(chip=tight), mesh, until_full=True)
    assert list(plan.compiled) == ["update"] and not plan.fits


@pytest.mark.parametrize("of", ["arguments and temporaries", "temporaries"])
def test_a_program_that_needs_more_than_a_chip_has_is_told(mesh, machine, of):
    said = "Used 120.5G of 95.74G hbm."
    if of == "temporaries":
        said = (
            "memory required for HLO temporaries (120.5G) exceeds available HBM (95G)"
        )

    def refuse():
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: Out of memory. {said}")

    lowered = SimpleNamespace(compile=refuse)
    work = work_of("sft", mesh)
    program = work.programs["train step"]
    jitted = SimpleNamespace(lower=lambda *arguments: lowered)
    found = compile_program(program._replace(jitted=jitted))
    assert found.error == "out of memory"
    needed = found.temporaries + (0 if of == "temporaries" else found.arguments)
    assert needed == pytest.approx(120.5 * GIB)
    assert not found.gathered
