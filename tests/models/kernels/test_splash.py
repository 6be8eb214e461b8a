"""The TPU's attention kernel gives what the plain formula gives.

It is interpreted on the CPU, and compiled where the TPU's compiler is installed.

Letters as in splash.py.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from instructgpt.models.kernels import reference, selection
from instructgpt.models.kernels.reference import masked_attention as attend
from instructgpt.models.kernels.splash import attend_splash, fits
from instructgpt.models.positions import positions_of
from instructgpt.models.structures import KVSegment, TokenInfo
from instructgpt.models.transformer import Transformer
from instructgpt.plan.machines import tpu
from tests import tiny

B, K, H, T, C = 2, 1, 4, 256, 16
splash = functools.partial(attend_splash, interpret=True)


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def inputs(rng, groups=H):
    query, slope = normal(rng, B, K, H, T, C), normal(rng, B, K, H, T, C)
    keys, values = normal(rng, B, K, groups, T, C), normal(rng, B, K, groups, T, C)
    # Padding, then texts of unequal length.
    starts = np.array([[10, 60, 200], [0, 128, 140]])
    ids = (np.arange(T)[:, None] >= starts[:, None]).sum(-1)[:, None].astype(np.int32)
    mask = np.tril(ids[..., :, None] == ids[..., None, :])
    slope = slope * (ids > 0)[:, :, None, :, None]
    return query, keys, values, jnp.asarray(ids), jnp.asarray(mask), slope


def value_and_gradients(run, slope, *args):
    return jax.value_and_grad(
        lambda *args: (run(*args) * slope).sum(), argnums=(0, 1, 2)
    )(*args)


def assert_same(actual, expected):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("groups", [1, H])
def test_texts_see_only_themselves_and_only_back(rng, groups):
    query, keys, values, ids, mask, slope = inputs(rng, groups)
    actual = value_and_gradients(
        lambda q, k, v: splash(q, k, v, ids), slope, query, keys, values
    )
    expected = value_and_gradients(
        lambda q, k, v: attend(q, [(k, v, mask)]), slope, query, keys, values
    )
    assert_same(actual, expected)


@pytest.mark.parametrize("banded", [True, False])
def test_a_banded_layer_sees_the_last_few(rng, banded):
    query, keys, values, ids, mask, slope = inputs(rng)
    near = np.asarray(mask) & ~np.tril(np.ones((T, T), bool), -9)
    switch = jnp.array(banded)
    seen = near if banded else mask
    actual = value_and_gradients(
        lambda q, k, v: splash(q, k, v, ids, switch, band=9), slope, query, keys, values
    )
    expected = value_and_gradients(
        lambda q, k, v: attend(q, [(k, v, seen)]), slope, query, keys, values
    )
    assert_same(actual, expected)


def test_without_numbers_it_is_causal(rng):
    query, keys, values, *_ = inputs(rng)
    mask = jnp.broadcast_to(np.tril(np.ones((T, T), bool)), (B, K, T, T))
    np.testing.assert_allclose(
        splash(query, keys, values, None),
        attend(query, [(keys, values, mask)]),
        rtol=1e-4,
        atol=1e-5,
    )


def test_devices_attend_as_one_does(rng):
    query, keys, values, ids, *_ = inputs(rng)
    alone = splash(query, keys, values, ids)
    with jax.set_mesh(tiny.mesh_of(fsdp=2, tensor=2)):
        cut = jax.jit(splash)(query, keys, values, ids)
    np.testing.assert_allclose(cut, alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("padded", [True, False])
def test_the_numbers_of_texts_and_the_mask_say_the_same(rng, padded, monkeypatch):
    """A TPU's kernel is told which text a token is of, the others get a mask."""
    query, keys, values, ids, *_ = inputs(rng)
    valid = ids > 0 if padded else None
    tokens = TokenInfo(positions_of(ids, valid, ids), valid, segment_ids=ids)
    own = KVSegment(keys, values, tokens.positions, valid, segment_ids=ids)
    plain = reference.attention(query, [own], tokens)
    elsewhere = selection.attention(query, [own], tokens, fused=True)
    monkeypatch.setattr(selection, "platform", lambda: "tpu")
    monkeypatch.setattr(selection.splash, "attend_splash", splash)
    on_tpu = selection.attention(query, [own], tokens, fused=True)
    seen = ids[:, :, None, :, None] > 0
    for out in (elsewhere, on_tpu):
        np.testing.assert_allclose(out * seen, plain * seen, rtol=1e-4, atol=1e-5)
    assert fits(2048) and not fits(96)


@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler is installed"
)
@pytest.mark.parametrize("band", [0, 16])
@pytest.mark.parametrize(("length", "has"), [(256, True), (96, False)])
def test_a_program_for_tpus_has_the_kernel(length, has, band, monkeypatch):
    """Forward, backward and recomputed, on each chip's rows and heads."""
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # other tests compile too
    model = Transformer(
        tiny.config(
            context_length=length,
            width=256,
            num_heads=2,
            compute_dtype="bfloat16",
            remat="full",
            fused_attention=True,
            attention_band=band,
        )
    )
    devices = np.array(tpu("v5e:2x2").devices).reshape(1, 2, 2)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"))
    sharding = jax.sharding.NamedSharding(mesh, jax.P(("data", "fsdp")))
    tokens = jax.ShapeDtypeStruct((4, 1, length), jnp.int32, sharding=sharding)

    def loss(params, tokens):
        hidden, _ = model.apply({"params": params}, tokens, tokens > 0)
        return hidden.astype(jnp.float32).sum()

    with jax.set_mesh(mesh):
        params = jax.eval_shape(lambda: tiny.params_of(model))
        program = jax.jit(jax.grad(loss)).lower(params, tokens).compile().as_text()
    assert ("tpu_custom_call" in program) == has
