"""The decoding kernel, interpreted, against attention with masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels import cached
from instructgpt.models.kernels.reference import masked_attention
from instructgpt.models.structures import KVSegment
from instructgpt.models.transformer import Transformer
from instructgpt.sampling import SamplingConfig, sample
from instructgpt.sharding import MeshConfig, make_mesh
from tests import tiny

B, K, H, P, R, C = 4, 3, 4, 32, 16, 16


@pytest.fixture(autouse=True)
def _broadcasts_allowed():
    """The library's kernel relies on them."""
    with jax.numpy_rank_promotion("allow"):
        yield


def normal(rng, *shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def columns(first, stop, length):
    column = jnp.arange(length)
    return (first[..., None] <= column) & (column < stop[..., None])


def inputs(rng, groups):
    """A left-padded prompt, and a ring that has come round for some."""
    query = normal(rng, B, K, H, 1, C)
    first = jnp.asarray(rng.integers(0, P, B), jnp.int32)
    stop = jnp.full(B, P, jnp.int32)
    prompt = KVSegment(
        *(normal(rng, B, groups, P, C) for _ in range(2)),
        positions=jnp.zeros((B, P), jnp.int32),
        valid=columns(first, stop, P),
        spans=((first, stop),),
    )
    start = jnp.asarray(rng.integers(0, R, (B, K)), jnp.int32)
    end = start + jnp.asarray(rng.integers(1, R, (B, K)), jnp.int32)
    spans = (start, jnp.minimum(end, R)), (jnp.zeros_like(start), end - R)
    ring = KVSegment(
        *(normal(rng, B, K, groups, R, C) for _ in range(2)),
        positions=jnp.zeros((B, K, R), jnp.int32),
        valid=columns(*spans[0], R) | columns(*spans[1], R),
        spans=spans,
    )
    return query, (prompt, ring)


def with_masks(query, context):
    prompt, ring = context
    shared = jnp.broadcast_to(prompt.valid[:, None, None], (B, K, 1, P))
    return masked_attention(
        query,
        [
            (prompt.keys, prompt.values, shared),
            (ring.keys, ring.values, ring.valid[:, :, None]),
        ],
    )


@pytest.mark.parametrize("groups", [1, H])
def test_spans_are_masks(rng, groups):
    arguments = inputs(rng, groups)
    np.testing.assert_allclose(
        cached.attend_cached(*arguments), with_masks(*arguments), rtol=1e-5, atol=1e-5
    )


def test_each_device_reads_its_own_rows_and_heads(rng):
    arguments = inputs(rng, H)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        actual = jax.jit(cached.attend_cached)(*arguments)
    np.testing.assert_allclose(actual, with_masks(*arguments), rtol=1e-5, atol=1e-5)


def test_lengths_that_do_not_divide_into_blocks_are_left_alone(rng, monkeypatch):
    query, (prompt, ring) = inputs(rng, H)
    monkeypatch.setattr(cached, "has_kernel", lambda query: True)
    assert cached.fits(query, (prompt, ring))
    odd = ring._replace(keys=ring.keys[..., 1:, :], values=ring.values[..., 1:, :])
    assert not cached.fits(query, (prompt, odd))
    assert not cached.fits(query, (prompt, ring._replace(spans=())))


@pytest.mark.parametrize("slots", [0, 2])
def test_the_sampler_draws_the_same_tokens(rng, monkeypatch, slots):
    model = Transformer(tiny.config(context_length=64, fused_attention=True))
    tokens = jnp.asarray(rng.integers(4, 32, (B, 16)), jnp.int32)
    valid = jnp.arange(16)[None] >= jnp.asarray([0, 5, 9, 2])[:, None]
    params = tiny.params_of(model)
    calls = []

    def run():
        return sample(
            model,
            params,
            (jnp.where(valid, tokens, 0), valid),
            jax.random.key(0),
            config=SamplingConfig(R, num_samples=2, slots=slots),
            stop_ids=(1, 5, 9),
            pad_id=0,
        )

    expected = run()
    monkeypatch.setattr(cached, "has_kernel", lambda query: calls.append(1) or True)
    actual = run()
    assert calls
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
    np.testing.assert_allclose(actual.log_probs, expected.log_probs, atol=1e-5)
