"""Meshes, the rule table, and where arrays really live."""

from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from instructgpt.errors import UserError
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.sharding import (
    MeshConfig,
    Share,
    batch_share,
    batch_ways,
    check_divides,
    constrain,
    device_grid,
    local_ways,
    make_mesh,
    put_batch,
    put_whole_batch,
    round_up,
    spec,
)
from instructgpt.state import make_train_state, params_layout
from tests import tiny


def test_minus_one_takes_the_devices_that_remain():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(make_mesh(MeshConfig(data=1, fsdp=-1)).shape)["fsdp"] == 8


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(data=-1, fsdp=-1),
        MeshConfig(data=0),
        MeshConfig(fsdp=-2),
    ],
)
def test_sizes_that_are_no_mesh_name_the_key(config):
    with pytest.raises(UserError, match=r"config\.mesh: data=.*is not a mesh"):
        make_mesh(config)


@pytest.mark.parametrize(
    "config", [MeshConfig(data=3), MeshConfig(data=4), MeshConfig(fsdp=16)]
)
def test_a_mesh_must_use_every_device(config):
    with pytest.raises(UserError, match=r"config\.mesh: .* all 8 devices"):
        make_mesh(config)


def test_a_mesh_of_fewer_cpu_devices():
    mesh = make_mesh(MeshConfig(tensor=2, cpu_devices=4))
    assert mesh.devices.flat[0] == jax.devices()[0]
    assert mesh.devices.shape == (2, 1, 2)
    assert make_mesh(MeshConfig(cpu_devices=99)).size == 8
    with pytest.raises(UserError, match=r"mesh\.cpu_devices=-1: give 0 or more"):
        make_mesh(MeshConfig(cpu_devices=-1))


def test_a_batch_that_does_not_divide_names_its_key():
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    assert batch_ways(mesh) == 4
    check_divides(mesh, train__batch_size=8)
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 .*4 ways"):
        check_divides(mesh, train__batch_size=6)


def test_tpu_slices_lie_along_data():
    """Two slices of 2 x 2 chips: fsdp and tensor do not cross from one to the other."""

    def chip(index: int) -> SimpleNamespace:
        return SimpleNamespace(
            id=index,
            platform="tpu",
            device_kind="TPU v5 lite",
            slice_index=index // 4,
            process_index=index // 4,
            coords=(index % 2, index // 2 % 2, 0),
            core_on_chip=0,
        )

    chips = [chip(i) for i in range(8)]
    grid = device_grid([4, 1, 2], chips)
    assert grid.shape == (4, 1, 2)
    assert [[c.slice_index for c in row.flat] for row in grid] == [
        [0, 0],
        [0, 0],
        [1, 1],
        [1, 1],
    ]
    with pytest.raises(UserError, match=r"data=1 does not divide over 2 TPU slices"):
        device_grid([1, 8, 1], chips)
    for one in chips:
        del one.slice_index  # as of a slice that is not there
    assert device_grid([1, 4, 1], chips[:4]).shape == (1, 4, 1)


def test_round_up_to_what_the_mesh_divides():
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    assert [round_up(n, mesh) for n in (1, 4, 5)] == [4, 4, 8]


def test_the_table_maps_logical_to_mesh_axes():
    assert spec("batch", None) == PartitionSpec(("data", "fsdp"), None)
    assert spec("layers", "embed", "mlp") == PartitionSpec(None, ("fsdp",), ("tensor",))


def test_constrain_does_nothing_without_a_mesh_and_cuts_with_one():
    x = np.zeros((8, 4), np.float32)
    assert constrain(x, "batch", None) is x
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    with jax.set_mesh(mesh):
        out = jax.jit(lambda y: constrain(y, "batch", None))(x)
    assert out.sharding.shard_shape(out.shape) == (2, 4)


def test_batches_are_cut_over_data_and_fsdp(rng):
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    batch = tiny.token_batch(rng)
    on_device = put_batch(batch, mesh)
    for before, after in zip(batch, on_device, strict=True):
        assert after.sharding.shard_shape(after.shape)[0] == 2
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("mesh", "changes", "axis"),
    [
        (dict(fsdp=8), dict(width=12), "embed"),
        (dict(data=2, tensor=4), dict(num_heads=2), "(kv_)?heads"),
        (dict(data=4, tensor=2), dict(vocab_size=47), "vocab"),
    ],
)
def test_an_axis_that_does_not_divide_is_named(mesh, changes, axis):
    model = Transformer(tiny.config(**changes))
    with pytest.raises(UserError, match=rf"config\.mesh: axis '{axis}' of .* size"):
        params_layout(model, tiny.mesh_of(**mesh))


def test_state_is_born_in_pieces():
    """Matrices and their moments are cut over fsdp and tensor, none is whole."""
    mesh = tiny.mesh_of(fsdp=4, tensor=2)
    state = make_train_state(
        ScalarModel(tiny.config()), optax.adam(0.1), key=jax.random.key(0), mesh=mesh
    )
    ways = {"token_embedding": 8, "position_embedding": 4, "kernel": 8}
    for tree in (state.params, optax.tree_utils.tree_get(state.opt_state, "mu")):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["trunk"]):
            name = path[-1].key
            pieces = leaf.size // np.prod(leaf.sharding.shard_shape(leaf.shape))
            if name in ways:
                assert pieces == ways[name], path


def test_no_matrix_is_whole_under_fsdp():
    layout = params_layout(Transformer(tiny.config()), tiny.mesh_of(fsdp=8))
    for path, leaf in jax.tree_util.tree_leaves_with_path(layout):
        if path[-1].key == "kernel" or path[-1].key.endswith("embedding"):
            assert not leaf.sharding.is_fully_replicated, path


def mesh_of_processes(data: int, fsdp: int, tensor: int, *, each: int, order=None):
    """What `batch_share` sees of a mesh over processes of `each` devices."""
    count = data * fsdp * tensor
    order = range(count) if order is None else order
    devices = [SimpleNamespace(process_index=i // each) for i in order]
    grid = np.array(devices, object).reshape(data, fsdp, tensor)
    shape = dict(data=data, fsdp=fsdp, tensor=tensor)
    return SimpleNamespace(devices=grid, shape=shape)


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ((2, 2, 2), [Share(0, 2), Share(1, 2)]),
        ((1, 8, 1), [Share(0, 2), Share(1, 2)]),
        ((1, 1, 8), [Share(0, 1), Share(0, 1)]),  # both read every row
    ],
)
def test_each_process_reads_the_rows_of_its_devices(sizes, shares, monkeypatch):
    mesh = mesh_of_processes(*sizes, each=4)
    for process, share in enumerate(shares):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert batch_share(mesh) == share
        assert local_ways(mesh) == max(sizes[0] * sizes[1] // share.process_count, 1)


def test_rows_that_lie_apart_are_a_share_too(monkeypatch):
    # Hosts of 2 x 2 chips in a slice of 4 x 2: the rows of one are not neighbours.
    order = [0, 1, 4, 5, 2, 3, 6, 7]
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    assert batch_share(mesh_of_processes(8, 1, 1, each=4, order=order)) == Share(1, 2)


def test_processes_that_share_only_some_rows_are_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    with pytest.raises(UserError, match="make `tensor` a divisor or a multiple"):
        batch_share(mesh_of_processes(2, 1, 3, each=2))


def test_a_whole_batch_lies_as_one_of_parts_does(rng):
    mesh = tiny.mesh_of(2, 2, 2)
    rows = rng.normal(size=(8, 3)).astype(np.float32)
    whole, parts = put_whole_batch(rows, mesh), put_batch(rows, mesh)
    assert whole.sharding == parts.sharding
    np.testing.assert_array_equal(whole, rows)
