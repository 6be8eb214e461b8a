"""Meshes, the rule table, and where arrays really live."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from instructgpt.errors import UserError
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.sharding import (
    MeshConfig,
    batch_ways,
    check_divides,
    constrain,
    make_mesh,
    put_batch,
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


def test_a_batch_that_does_not_divide_names_its_key():
    mesh = tiny.mesh_of(data=2, fsdp=2, tensor=2)
    assert batch_ways(mesh) == 4
    check_divides(mesh, train__batch_size=8)
    with pytest.raises(UserError, match=r"config\.train\.batch_size=6 .*4 ways"):
        check_divides(mesh, train__batch_size=6)


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
