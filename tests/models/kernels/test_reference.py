"""Each fast way against its plain reference: values and gradients.

Letters as in models/kernels/reference.py.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels import reference, selection
from instructgpt.models.kernels.interface import HeadOptions, Operations, operations
from instructgpt.models.structures import KVSegment, TokenInfo, Weights
from tests import tiny

B, K, H, C, D = 2, 3, 4, 8, 16
# Relative to the largest number of an array.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}


class Case(NamedTuple):
    """One operation on arrays of one shape; `arrays` are what is differentiated."""

    name: str
    call: Callable[..., Any]  # (operations, dtype, *arrays) -> arrays
    shapes: tuple[tuple[int, ...], ...]  # the first is in the compute dtype
    masters: tuple[int, ...] = ()  # which arrays are float32 whatever the dtype


def linear(equation: str, x, kernel, bias=None) -> Case:
    def call(ops, dtype, x, kernel, *bias):
        weights = Weights(kernel, bias[0] if bias else None)
        return ops.linear(equation, x, weights, dtype=dtype)

    shapes = (x, kernel) if bias is None else (x, kernel, bias)
    return Case(f"linear {equation} {bias}", call, shapes, tuple(range(1, len(shapes))))


def heads(tokens: int, *counts: int) -> Case:
    def call(ops, dtype, x, *arrays):
        kernels, biases = arrays[::2], arrays[1::2]
        pairs = [Weights(*pair) for pair in zip(kernels, biases, strict=True)]
        return ops.project_heads(x, pairs, dtype=dtype)

    shapes = [(B, K, tokens, D)]
    for count in counts:
        shapes += [(D, count, C), (count, C)]
    name = f"project_heads {counts} of {tokens} tokens"
    return Case(name, call, tuple(shapes), tuple(range(1, len(shapes))))


def normalize(center: bool) -> Case:
    def call(ops, dtype, x):
        return ops.normalize(x, center=center, eps=1e-5)

    return Case(f"normalize center={center}", call, ((B, K, 5, D),), (0,))


def attention(
    name: str,
    length: int,
    *,
    groups: int = H,
    output_range: tuple[int, int] | None = None,
    padded: bool = False,
    packed: bool = False,
    band: int = 0,
    context: int = 0,
    shared: bool = True,
) -> Case:
    """A text, after a context of so many tokens that its K rows may share."""
    first, stop = output_range or (0, length)
    rng = np.random.default_rng(length)
    valid = np.arange(length) >= rng.integers(0, 4, (B, K, 1)) if padded else None
    positions = np.broadcast_to(np.arange(length), (B, K, length))
    if valid is not None:
        positions = np.maximum(np.cumsum(valid, axis=-1) - 1, 0)
    ids = np.broadcast_to(np.arange(length) * 3 // length, (B, K, length))
    tokens = TokenInfo(
        jnp.asarray(positions + context),
        None if valid is None else jnp.asarray(valid),
        segment_ids=jnp.asarray(ids) if packed else None,
    )

    def call(ops, dtype, query, keys, values, *before):
        own = KVSegment(
            keys, values, tokens.positions, tokens.valid, segment_ids=tokens.segment_ids
        )
        segments = [own]
        if before:
            rows = (B,) if shared else (B, K)
            places = jnp.broadcast_to(jnp.arange(context), (*rows, context))
            segments = [KVSegment(*before, places, places % 3 != 1), own]
        out = ops.attention(
            query,
            segments,
            tokens.columns(output_range),
            first_column=first,
            band=band,
            banded=jnp.asarray(True),
        )
        # What padding reads is of no use to anybody.
        seen = tokens.columns(output_range).valid
        return out if seen is None else jnp.where(seen[:, :, None, :, None], out, 0.0)

    row = B, K, groups, length, C
    shapes = [(B, K, H, stop - first, C), row, row]
    if context:
        shapes += [(B, *(() if shared else (K,)), groups, context, C)] * 2
    return Case(f"attention {name}", call, tuple(shapes))


def head(name: str, chunk: int, temperature: float = 0.7, vocab_size: int = 9) -> Case:
    def call(ops, dtype, hidden, table):
        settings = HeadOptions(vocab_size, dtype, chunk, temperature)
        if name == "logits":
            return ops.logits(settings, hidden, table)[..., :vocab_size]
        targets = jnp.arange(13) % vocab_size
        if name == "token_log_probs":
            return ops.token_log_probs(settings, hidden, table, targets).log_probs
        weights = (jnp.arange(13) % 3).astype(jnp.float32)
        return ops.weighted_nll(settings, hidden, table, targets, weights)

    shapes = (13, D), (11 if vocab_size == 9 else vocab_size, D)
    return Case(f"{name} chunk={chunk} t={temperature}", call, shapes, (1,))


CASES = [
    linear("BKTD,DF->BKTF", (B, K, 5, D), (D, 24), (24,)),
    linear("BKTD,DF->BKTF", (B, K, 5, D), (D, 6)),
    linear("BKTHC,HCD->BKTD", (B, K, 5, H, C), (H, C, D), (D,)),
    heads(5, H, H, H),
    heads(5, H, 2, 2),
    heads(1, H, H, H),
    heads(5, H, H),
    normalize(True),
    normalize(False),
    attention("of a short text", 7),
    attention("of a text in blocks", 150),
    attention("of a text with one head of keys", 150, groups=1),
    attention("of a padded text", 150, groups=2, padded=True),
    attention("of packed texts", 70, packed=True),
    attention("in a band", 70, band=9),
    attention("of some columns", 150, groups=2, output_range=(20, 149)),
    attention("after a shared context", 6, groups=2, context=10),
    attention("after a context of its own", 6, context=10, shared=False),
    attention("of one token", 1, context=10),
    *(
        head(name, chunk)
        for name in ("token_log_probs", "weighted_nll")
        for chunk in (1, 4, 64)
    ),
    head("logits", 4),
    head("logits", 4, temperature=1.0, vocab_size=11),
]


def close(actual: Any, expected: Any, tolerance: float) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == e.dtype
        a, e = np.asarray(a, np.float32), np.asarray(e, np.float32)
        np.testing.assert_allclose(a, e, rtol=0, atol=tolerance * (abs(e).max() + 1e-6))


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fast_way_gives_what_its_reference_gives(case, dtype, rng):
    arrays = [
        jnp.asarray(rng.normal(size=shape), "float32" if i in case.masters else dtype)
        for i, shape in enumerate(case.shapes)
    ]

    def value_and_gradients(ops):
        @jax.jit
        def run(*arrays):
            out, pull = jax.vjp(functools.partial(case.call, ops, dtype), *arrays)
            slopes = np.random.default_rng(1)
            cotangents = jax.tree.map(
                lambda x: jnp.asarray(slopes.normal(size=x.shape), x.dtype), out
            )
            return out, pull(cotangents)

        return run(*arrays)

    fast, plain = map(value_and_gradients, (selection, reference))
    close(fast, plain, TOLERANCES[dtype])


def test_every_operation_is_compared():
    compared = {case.name.split()[0] for case in CASES}
    # The two versions of dropout draw other values; test_layers holds both to its rate.
    assert compared | {"dropout"} == set(Operations._fields)


def test_a_model_is_made_of_the_operations_that_its_config_names():
    fast, plain = (
        operations(tiny.config(kernels=name)) for name in ("auto", "reference")
    )
    for name in Operations._fields:
        assert getattr(fast, name) is getattr(selection, name)
        assert getattr(plain, name) is getattr(reference, name)
