"""The paper's 175B policy and 6B models, compiled for TPUs that are not here."""

import functools
import importlib.util

import jax
import numpy as np
import pytest

from configs import ppo_ptx
from instructgpt.models import costs
from instructgpt.plan.estimate import estimate
from instructgpt.plan.plan import Request, find_machine, find_models
from instructgpt.plan.work import describe
from instructgpt.sharding import MeshConfig, make_mesh

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler is installed"
)


@pytest.fixture(scope="module")
def machine():
    return find_machine(Request(topology="v5p:4x4x8"))


@pytest.fixture(scope="module")
def described(machine):
    """The stage on 16 x 8 chips: its models, mesh and work."""
    config = ppo_ptx.get_config("175b")
    config.ppo.microbatches = 4
    config.mesh = dict(data=1, fsdp=16, tensor=8)
    request = Request(variant="175b")
    models = find_models(config, request)
    mesh = make_mesh(MeshConfig(data=1, fsdp=16, tensor=8), devices=machine.devices)
    with jax.set_mesh(mesh):
        return models, mesh, describe(config, models, mesh)


def test_nothing_large_is_whole_over_fsdp(described):
    _, _, work = described
    large = 0
    for name, tree in work.held.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            part = leaf.sharding.shard_shape(leaf.shape)
            ways = np.prod(leaf.shape) / max(np.prod(part), 1)
            # Biases and scales of all layers are a handful of MiB.
            if leaf.size >= 2**25:
                assert ways >= 16, f"{name}{jax.tree_util.keystr(path)} is cut {ways}"
                large += 1
    assert large > 50


@pytest.fixture(scope="module")
def compile_phase(described, machine):
    """Compiles a phase once, which takes minutes."""
    _, mesh, work = described

    @functools.cache
    def compile_once(phase):
        with jax.set_mesh(mesh):
            return estimate(work, machine, mesh, phases=(phase,)).compiled[phase]

    return compile_once


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["decode", "update"])
def test_parameters_are_gathered_a_layer_at_a_time(phase, described, compile_phase):
    models, _, _ = described
    shapes, layers = compile_phase(phase).gathered, models["init"].num_layers
    assert shapes and not [shape for shape in shapes if layers in shape]


@pytest.mark.slow
def test_decoding_gathers_no_kernel(described, compile_phase):
    """Tokens go to the weights: far less than all weights come for each token."""
    models, mesh, work = described
    size, phase = models["init"], work.programs["decode"]
    sent = sum(compile_phase("decode").collectives.values())
    weights = 2 * costs.layer_weights(size) / mesh.shape["tensor"]  # bytes of a group
    assert sent / phase.trips.alone < weights / 8


@pytest.mark.slow
def test_the_cache_is_cut_over_fsdp(described, compile_phase):
    """Were it whole there, a chip would need 16 times its part."""
    models, mesh, _ = described
    size, config = models["init"], ppo_ptx.get_config("175b")
    tokens = config.data.max_prompt + config.data.max_response
    heads = size.num_layers * size.num_kv_heads * size.head_dim
    cache = 2 * 2 * config.train.batch_size * tokens * heads  # bytes
    assert compile_phase("decode").temporaries < 2 * cache / mesh.size
