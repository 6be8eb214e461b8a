"""Norms: their values and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.models.kernels.linear import row_dot
from instructgpt.models.kernels.norm import normalize

EPS = 1e-5


def plain(centered: bool, x):
    """What `normalize` states, for JAX to differentiate."""
    x = x - x.mean(axis=-1, keepdims=True) if centered else x
    return x / jnp.sqrt(jnp.square(x).mean(axis=-1, keepdims=True) + EPS)


@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("shape", [(3, 2, 5, 48), (7, 1)])
def test_gradient_is_that_of_the_formula(rng, centered, shape):
    x, slope = (jnp.array(rng.normal(1, 2, shape), jnp.float32) for _ in range(2))
    y, pull = jax.vjp(lambda x: normalize(x, center=centered, eps=EPS), x)
    expected, plain_pull = jax.vjp(lambda x: plain(centered, x), x)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(slope)[0], plain_pull(slope)[0], atol=2e-5)


def test_a_row_of_one_number_has_no_gradient():
    x = jnp.full((2, 8), 3.0)
    (slope,) = jax.vjp(lambda x: normalize(x, center=True, eps=EPS), x)[1](
        jnp.ones_like(x)
    )
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)


def test_row_dot_is_a_sum_of_products(rng):
    x, y = (rng.normal(size=(4, 3, 100)).astype(np.float32) for _ in range(2))
    actual = jax.jit(row_dot)(x, y)
    np.testing.assert_allclose(actual, (x * y).sum(axis=-1), rtol=1e-4, atol=1e-4)
