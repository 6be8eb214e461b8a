"""Products: their gradients, and the dtype of their operands."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels import rounding
from instructgpt.models.kernels.linear import (
    add_bias,
    matmul,
)
from instructgpt.models.kernels.rounding import has_bfloat16_units, product_dtype
from instructgpt.models.transformer import Transformer
from tests import tiny

SHAPES = {1: ((6,), (4, 5)), 2: ((2, 3), (7,))}  # by contract: in, out


@pytest.fixture(params=SHAPES)
def operands(request, rng):
    """x [3, 8, in...], kernel [in..., out...], a slope of the product, and contract."""
    inputs, outputs = SHAPES[request.param]
    shapes = (3, 8, *inputs), (*inputs, *outputs), (3, 8, *outputs)
    arrays = (jnp.array(rng.normal(size=s), jnp.float32) for s in shapes)
    return *arrays, request.param


def rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_those_of_jax_of_rounded_operands(operands, dtype):
    x, kernel, slope, contract = operands
    cast = rounded if dtype == "bfloat16" else lambda x: x
    y, pull = jax.vjp(
        lambda x, k: matmul(x, k, contract=contract, dtype=dtype), x, kernel
    )
    by_x, by_kernel = pull(slope)

    def plain(x, kernel):
        return jnp.tensordot(x, kernel, contract, precision="highest")

    close = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(y, plain(cast(x), cast(kernel)), **close)
    expected = jax.vjp(plain, cast(x), cast(kernel))[1](cast(slope))[0]
    np.testing.assert_allclose(by_x, expected, **close)
    # The kernel's gradient is of numbers that were not rounded.
    expected = jax.vjp(plain, x, kernel)[1](slope)[1]
    np.testing.assert_allclose(by_kernel, expected, **close)
    assert {a.dtype for a in (y, by_x, by_kernel)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradients_of_float32_weights_are_float32_sums(dtype):
    """Over 70,000 ones, which float16 has not, and bfloat16 ends at 256."""
    tokens = 70_000
    x, slope = jnp.ones((tokens, 1), dtype), jnp.ones((tokens, 2), dtype)
    kernel, bias = jnp.array([[0.3, 0.7]]), jnp.array([0.1, -0.9])

    def layer(kernel, bias):
        return add_bias(matmul(x, kernel, contract=1, dtype=dtype), bias)

    y, pull = jax.vjp(layer, kernel, bias)
    for gradient in pull(slope):
        assert gradient.dtype == jnp.float32
        np.testing.assert_array_equal(gradient.reshape(-1), [tokens, tokens])
    # Numbers are those of copies made before, as models that only run have them.
    copies = layer(kernel.astype(dtype), bias.astype(dtype))
    assert y.dtype == copies.dtype == jnp.dtype(dtype)
    np.testing.assert_array_equal(y, copies)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("outputs", [(64,), (4, 16), (3, 4, 16)])
def test_any_shape_is_summed_in_float32(outputs, dtype, rng):
    """XLA for CPUs refuses some of bfloat16 when the program runs, large ones only."""
    x, slope = (
        jnp.array(rng.normal(size=(2, 72, *shape)), dtype) for shape in ((64,), outputs)
    )
    kernel = jnp.zeros((64, *outputs))

    @jax.jit
    def gradient(x, kernel, slope):
        layer = functools.partial(matmul, x, contract=1, dtype=dtype)
        return jax.vjp(layer, kernel)[1](slope)[0]

    exact = np.einsum("btd,bt...->d...", x.astype("float32"), slope.astype("float32"))
    found = gradient(x, kernel, slope)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


def test_auto_rounds_where_the_cpu_has_units_for_it(monkeypatch, tmp_path):
    config = tiny.config(product_dtype="auto")
    for units, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(rounding, "has_bfloat16_units", lambda units=units: units)
        assert product_dtype(config) == expected
    monkeypatch.setattr(rounding, "has_bfloat16_units", lambda: True)
    assert product_dtype(tiny.config()) == "float32"
    half = tiny.config(product_dtype="auto", compute_dtype="float16")
    assert product_dtype(half) == "float16"


def test_units_are_read_from_what_the_kernel_says(tmp_path):
    for units in ("amx_bf16", "avx512_bf16"):
        path = tmp_path / units
        path.write_text(f"flags : fpu avx512f {units} amx_tile\n")
        assert has_bfloat16_units(path)
    other = tmp_path / "other"
    other.write_text("flags : fpu avx2\n")
    assert not has_bfloat16_units(other)
    assert not has_bfloat16_units(tmp_path / "missing")


def test_a_model_of_rounded_products_stays_close(rng):
    tokens = jnp.array(rng.integers(1, 60, (2, 1, 12)), jnp.int32)
    valid = jnp.ones_like(tokens, bool)
    hidden, gradients = [], []
    for dtype in ("compute", "bfloat16"):
        model = Transformer(tiny.config(product_dtype=dtype))
        params = tiny.params_of(model)

        def loss(params, model=model):
            hidden, _ = model.apply({"params": params}, tokens, valid)
            targets = tokens[:, 0, 1:].reshape(-1)
            states = hidden[:, 0, :-1].reshape(len(targets), -1)
            nll = model.apply(
                {"params": params},
                states,
                targets,
                jnp.ones(len(targets)),
                method="nll",
            )
            return nll / len(targets), hidden

        gradient, states = jax.grad(loss, has_aux=True)(params)
        hidden.append(states)
        gradients.append(gradient)
    exact, near = hidden
    assert near.dtype == jnp.float32
    assert 0 < jnp.abs(exact - near).max() < 0.1  # of numbers around 1
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(gradients[0]),
        jax.tree.leaves(gradients[1]),
        strict=True,
    ):
        assert b.dtype == jnp.float32
        scale = jnp.abs(a).max() + 1e-6
        assert jnp.abs(a - b).max() < 0.1 * scale, jax.tree_util.keystr(path)
