"""Rotary positions (Su et al. 2021): queries and keys turn with their position.

Letters: B batch, K responses per prompt, T tokens, H heads, C channels a head, R
channels that turn. Channel c of the first R/2 forms a plane with channel c + R/2.
"""

import math

import jax.numpy as jnp

from instructgpt.arrays import Array, Float, Int
from instructgpt.models.config import ModelConfig
from instructgpt.models.structures import Rotation


def frequencies(config: ModelConfig) -> Float[Array, " planes"]:
    """Radians by which each plane turns from one token to the next, fastest first."""
    exponents = jnp.arange(0, config.rotary_dim, 2, dtype=jnp.float32)
    rates = config.rotary_base ** -(exponents / config.rotary_dim)
    if config.rotary_scaling == "none":
        return rates
    if config.rotary_scaling == "table":
        return rates / jnp.asarray(config.rotary_table, jnp.float32)
    slow = rates / config.rotary_factor
    if config.rotary_scaling == "linear":
        return slow
    # Llama 3.1: planes that turn often within the original context keep their rate,
    # those that do not get round slow down, and those between are interpolated.
    turns = config.rotary_original_context * rates / (2 * math.pi)
    low, high = config.rotary_low_freq, config.rotary_high_freq
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * slow + kept * rates


def rotary_angles(positions: Int[Array, "B K T"], config: ModelConfig) -> Rotation:
    """The angles by which tokens at these positions turn, as cosines and sines."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(config).reshape(
        (1,) * positions.ndim + (-1,)
    )
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(
    x: Float[Array, "B K T H C"], rotation: Rotation
) -> Float[Array, "B K T H C"]:
    """Turns the first R channels of each head; the others stay as they are."""
    half = rotation.cos.shape[-1]
    cos, sin = rotation.cos[..., None, :], rotation.sin[..., None, :]
    first = x[..., :half].astype(jnp.float32)
    second = x[..., half : 2 * half].astype(jnp.float32)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(
        [*(part.astype(x.dtype) for part in turned), x[..., 2 * half :]], axis=-1
    )
