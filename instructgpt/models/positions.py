"""Positions of tokens: numbering within a row, learned tables, rotary angles.

Rotary positions (Su et al. 2021) rotate queries and keys: among the first R channels
of a head, channel c forms a plane with channel c + R / 2.

Letters: B batch, K responses per prompt, T tokens, D width, H heads, C channels a head.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.arrays import Array, Bool, Float, Int
from instructgpt.models.config import ModelConfig
from instructgpt.models.structures import Rotation


def frequencies(config: ModelConfig) -> Float[Array, " planes"]:
    """Angle in radians by which each plane turns per token, fastest plane first."""
    exponents = jnp.arange(0, config.rotary_dim, 2, dtype=jnp.float32)
    rates = config.rotary_base ** -(exponents / config.rotary_dim)
    if config.rotary_scaling == "none":
        return rates
    if config.rotary_scaling == "table":
        return rates / jnp.asarray(config.rotary_table, jnp.float32)
    slow = rates / config.rotary_factor
    if config.rotary_scaling == "linear":
        return slow
    # In Llama 3.1 planes that turn often within the original context keep their rate,
    # planes that do not complete a turn slow down, and others are interpolated.
    turns = config.rotary_original_context * rates / (2 * math.pi)
    low, high = config.rotary_low_freq, config.rotary_high_freq
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 - kept) * slow + kept * rates


def rotary_angles(positions: Int[Array, "B K T"], config: ModelConfig) -> Rotation:
    """Cosines and sines of the angles by which tokens at these positions turn."""
    angles = positions[..., None].astype(jnp.float32) * frequencies(config).reshape(
        (1,) * positions.ndim + (-1,)
    )
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(
    x: Float[Array, "B K T H C"], rotation: Rotation
) -> Float[Array, "B K T H C"]:
    """Rotates the first R channels of each head; the others stay as they are."""
    half = rotation.cos.shape[-1]
    cos, sin = rotation.cos[..., None, :], rotation.sin[..., None, :]
    first = x[..., :half].astype(jnp.float32)
    second = x[..., half : 2 * half].astype(jnp.float32)
    turned = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(
        [*(part.astype(x.dtype) for part in turned), x[..., 2 * half :]], axis=-1
    )


def positions_of(
    tokens: Int[Array, "*rows T"],
    valid: Bool[Array, "*rows T"] | None,
    segment_ids: Int[Array, "*rows T"] | None = None,
) -> Int[Array, "*rows T"]:
    """Position of each token among the real tokens of its row, or of its text.

    Args:
      tokens: Token ids; only their shape is used.
      valid: False on padding; None: every token is real.
      segment_ids: The number of each token's text where a row packs several, one after
        another; None for one text a row.
    """
    if valid is None:
        valid = jnp.ones(tokens.shape, bool)
    positions = jnp.maximum(jnp.cumsum(valid.astype(jnp.int32), axis=-1) - 1, 0)
    if segment_ids is None:
        return positions
    padding = [(0, 0)] * (segment_ids.ndim - 1) + [(1, 0)]
    previous = jnp.pad(segment_ids[..., :-1], padding)
    starts = jnp.where(segment_ids != previous, positions, 0)
    return positions - jax.lax.cummax(starts, axis=starts.ndim - 1)


def position_initializer(
    config: ModelConfig,
) -> Callable[..., Float[Array, "T D"]]:
    """The initializer of the learned position table [T, D]: noise, or sinusoids."""
    if config.position_init == "normal":
        return nn.initializers.normal(config.position_std)

    def sinusoids(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32):
        del key
        length, width = shape
        rates = 10_000.0 ** -(jnp.arange(0, width, 2) / width)
        angles = jnp.arange(length)[:, None] * rates[None]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
        return (config.position_std * 2**0.5 * waves[:, :width]).astype(dtype)

    return sinusoids
