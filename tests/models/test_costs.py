"""Counted operations against those of the compiled program."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from instructgpt.models import costs
from instructgpt.models.config import ModelConfig
from instructgpt.models.scoring import response_values
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.state import params_layout
from tests import tiny
from tests.hf_models import CONFIGS


def wide(**changes: Any) -> ModelConfig:
    """Matrices so large that little of the program is anything else."""
    return tiny.config(context_length=256, width=256, num_heads=4, **changes)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_are_those_of_the_parameters(name):
    config = CONFIGS[name]
    params = params_layout(Transformer(config), tiny.mesh_of())
    kernels = [
        leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(params["layers"])
        if path[-1].key == "kernel"
    ]
    assert costs.layer_weights(config) == sum(kernels)
    table = params.get("unembedding", params["token_embedding"])
    assert costs.head_weights(config) == table.size


@pytest.mark.parametrize("heads", [4, 2])
def test_a_forward_pass_has_the_compilers_operations(heads):
    # One layer: the compiler counts the body of a loop once.
    config = wide(vocab_size=1024, num_layers=1, num_kv_heads=heads)
    model = Transformer(config)
    tokens, valid = jnp.zeros((4, 1, 64), jnp.int32), jnp.ones((4, 1, 64), bool)

    def logits(params):
        hidden, _ = model.apply({"params": params}, tokens, valid)
        return model.apply({"params": params}, hidden, method="logits")

    compiled = jax.jit(logits).lower(params_layout(model, tiny.mesh_of())).compile()
    # The program masks what a query must not see, and pays for it.
    counted = costs.forward(config, tokens=256, seen=64, predicted=256)
    assert compiled.cost_analysis()["flops"] == pytest.approx(counted.flops, rel=0.05)


@pytest.mark.parametrize("gradient", [False, True])
def test_of_unread_tokens_the_last_layer_is_left_out(gradient):
    config = wide(remat="none", scan_layers=False)
    model = ScalarModel(config)
    tokens, valid = jnp.zeros((2, 128), jnp.int32), jnp.ones((2, 128), bool)

    def total(params):
        values = response_values(model, params, (tokens, valid), (tokens, valid))
        return values.sum()

    run = jax.jit(jax.grad(total) if gradient else total)
    compiled = run.lower(params_layout(model, tiny.mesh_of())).compile()
    # Blocks of 64 queries: each reads all keys up to the block's last.
    cost = costs.forward(config, tokens=512, seen=160)
    cost = cost.plus(costs.left_out(config, tokens=256, seen=96))
    counted = cost.flops * (3 if gradient else 1)
    assert compiled.cost_analysis()["flops"] == pytest.approx(counted, rel=0.05)
    loop = dataclasses.replace(config, scan_layers=True)
    assert costs.left_out(loop, tokens=256, seen=96) == costs.Cost()


def test_bounds_by_hand():
    config = ModelConfig(
        vocab_size=10, context_length=8, num_layers=2, width=4, num_heads=1
    )
    # Attention 4 matrices of 4 x 4, MLP 2 of 4 x 16, two layers.
    assert costs.layer_weights(config) == 2 * (4 * 16 + 2 * 64)
    cost = costs.forward(config, tokens=3, seen=2, predicted=1)
    assert cost.flops == 2 * 3 * 384 + 4 * 3 * 2 * 8 + 2 * 40
    assert cost.bytes == 4 * (384 + 40)
    assert cost.seconds(flops_per_second=1e3, bytes_per_second=1e3) == 2.576
    assert cost.seconds(flops_per_second=1e6, bytes_per_second=1e3) == 1.696
    assert costs.causal(5) == 3
    # Two steps after the prefill, each for two rows.
    steps = costs.decode(config, rows=2, prompt=4, response=3)
    first, second = (
        costs.forward(config, tokens=2, seen=s, predicted=2) for s in (5, 6)
    )
    assert steps.flops == first.flops + second.flops
    assert steps.bytes == first.bytes + second.bytes + 64 * 2 * (5 + 6)
