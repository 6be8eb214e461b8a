"""Masks, bands and attention over segments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels.blocks import attend, attend_text
from instructgpt.models.kernels.reference import attention_mask, masked_attention
from instructgpt.models.layers import Attention, Dropout, Norm
from instructgpt.models.structures import KVSegment, TokenInfo
from instructgpt.plan.hlo import computations
from tests import tiny

B, K, T, S, H, C = 2, 3, 4, 5, 2, 6
_KEY = jax.random.key(0)


def normal(rng, *shape):
    return rng.normal(size=shape).astype(np.float32)


def naive_attend(query, keys, values, mask):
    """One query, head and row at a time; keys [B, K, H, S, C]."""
    out = np.zeros(query.shape)
    for b, k, h, t in np.ndindex(*query.shape[:4]):
        seen = mask[b, k, t]
        scores = keys[b, k, h, seen] @ query[b, k, h, t] / np.sqrt(query.shape[-1])
        weights = np.exp(scores - scores.max())
        out[b, k, h, t] = weights / weights.sum() @ values[b, k, h, seen]
    return out


def shared_to_rows(x):
    return np.broadcast_to(x[:, None], (B, K, *x.shape[1:]))


def mask_of(positions, valid, *, ids=None, **band):
    """What the tokens of one row see of each other."""
    tokens = TokenInfo(jnp.array([[positions]]), None, segment_ids=ids)
    own = KVSegment(None, None, tokens.positions, valid, segment_ids=ids)
    return np.asarray(attention_mask(tokens, own, **band)[0, 0], int).tolist()


def test_a_mask_is_causal_and_without_padding():
    valid = jnp.array([[[False, True, True]]])
    assert mask_of([0, 1, 2], None) == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask_of([0, 1, 2], valid) == [[0, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_a_mask_keeps_texts_apart_and_to_the_band():
    ids = jnp.array([[[1, 1, 2]]])
    assert mask_of([0, 1, 0], None, ids=ids) == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    for banded in (True, False):
        seen = mask_of([0, 1, 2], None, band=2, banded=jnp.array(banded))
        assert seen == [[1, 0, 0], [1, 1, 0], [0 if banded else 1, 1, 1]]


@pytest.mark.parametrize("way", [attend, masked_attention])
def test_attention_over_segments_is_one_softmax(rng, way):
    query = normal(rng, B, K, H, T, C)
    shared = normal(rng, B, H, S, C), normal(rng, B, H, S, C)
    own = normal(rng, B, K, H, T, C), normal(rng, B, K, H, T, C)
    shared_mask = rng.random((B, K, T, S)) < 0.7
    own_mask = np.broadcast_to(np.tril(np.ones((T, T), bool)), (B, K, T, T))
    actual = way(query, [(*shared, shared_mask), (*own, own_mask)])
    keys, values = (
        np.concatenate([shared_to_rows(a), b], axis=3)
        for a, b in zip(shared, own, strict=True)
    )
    mask = np.concatenate([shared_mask, own_mask], axis=-1)
    expected = naive_attend(query, keys, values, mask)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", [attend, masked_attention])
def test_a_query_that_sees_nothing_is_finite(rng, way):
    keys, values = normal(rng, B, H, S, C), normal(rng, B, H, S, C)
    mask = np.zeros((B, K, T, S), bool)
    out = way(normal(rng, B, K, H, T, C), [(keys, values, mask)])
    assert np.isfinite(out).all()


@pytest.mark.parametrize("way", [attend, masked_attention])
def test_scores_beyond_the_range_of_float16_stay_finite(way):
    query = jnp.full((1, 1, 1, 1, 64), 60.0, jnp.float16)
    keys = jnp.full((1, 1, 2, 64), 60.0, jnp.float16)  # dot product 230,400
    mask = jnp.ones((1, 1, 1, 2), bool)
    out = way(query, [(keys, keys, mask)])
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(out, 60.0)


def test_gradients_of_keys_and_values_are_rounded_once_over_blocks_of_queries():
    """Each query weighs what it sees alike, so the sums are harmonic."""
    length = 512  # eight blocks
    query = jnp.zeros((1, 1, 1, length, 2), jnp.float16)
    values = jnp.ones_like(query)
    mask = jnp.tril(jnp.ones((1, 1, length, length), bool))
    _, pull = jax.vjp(lambda v: attend_text(query, values, v, mask), values)
    (found,) = pull(jnp.ones_like(query))
    weights = (1.0 / np.arange(1, length + 1)).astype(np.float16).astype(np.float32)
    exact = np.cumsum(weights[::-1])[::-1].astype(np.float16)
    np.testing.assert_array_equal(found[0, 0, 0, :, 0], exact)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is for a CPU")
def test_a_mask_is_made_once_for_all_layers_and_heads(rng):
    def run(query, keys, values, valid):
        positions = jnp.cumsum(valid, axis=-1) - 1
        own = KVSegment(keys, values, positions, valid)
        mask = attention_mask(TokenInfo(positions, valid), own)
        for _ in range(3):
            query = attend_text(query, keys, values, mask)
        return query

    length = 64  # of one block
    arrays = (normal(rng, B, K, H, length, C) for _ in range(3))
    valid = jnp.ones((B, K, length), bool)
    text = jax.jit(run).lower(*arrays, valid).compile().as_text()
    _, bodies = computations(text)
    (made,) = (x for x in bodies.values() if any(" compare(" in line for line in x))
    sizes = f"{B},{K},{H},"  # of what each head has
    assert not any(f"[{sizes}" in line for line in made), made


@pytest.mark.parametrize("banded", [True, False])
def test_banded_layers_see_the_band_and_dense_layers_everything(rng, banded):
    band, length = 3, 7
    model = Attention(tiny.config(attention_band=band))
    x = normal(rng, 1, 1, length, 16)
    positions, valid = jnp.arange(length)[None, None], jnp.ones((1, 1, length), bool)
    args = TokenInfo(positions, valid), (), jnp.asarray(banded)
    variables = model.init(jax.random.key(0), x, *args)

    @jax.jit
    def last_output(x):
        return model.apply(variables, x, *args)[0][0, 0, -1]

    before = last_output(x)
    for t in range(length):
        other = x.copy()
        other[0, 0, t] += 1.0
        seen = bool((last_output(other) != before).any())
        assert seen == (not banded or t > length - 1 - band), t


def test_layer_norm_is_float32_inside():
    model = Norm(tiny.config(compute_dtype="float16"))
    # Squares of these overflow float16.
    x = jnp.array([[1000.0, -1000.0, 1000.0, -1000.0]], jnp.float16)
    out = model.apply(model.init(jax.random.key(0), x), x)
    assert out.dtype == jnp.float16
    np.testing.assert_allclose(out, [[1.0, -1.0, 1.0, -1.0]], rtol=1e-3)


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize("width", [512, 511])
def test_dropout_zeroes_its_share_and_scales_up_the_rest(width, kernels):
    x = jnp.ones((400, width))
    config = tiny.config(residual_dropout=0.2, kernels=kernels)
    out = Dropout(config, deterministic=False).apply({}, x, rngs={"dropout": _KEY})
    kept = np.asarray(out)[np.asarray(out) != 0]
    assert kept.size / out.size == pytest.approx(0.8, abs=0.005)  # 5 deviations
    np.testing.assert_allclose(kept, 1 / 0.8, rtol=1e-4)
    same = Dropout(config, deterministic=True).apply({}, x)
    np.testing.assert_array_equal(same, x)
