"""Checksums of arrays, computed on their devices.

A checksum does not depend on the sharding: each element's bits and index are mixed
into a word of 32 bits, and the words are added modulo 2**32, once as they are and once
with their halves exchanged. Mixing is one-to-one, so a change of one element always
changes both sums; several changes go unseen with probability 2**-64.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _mixed(x: jax.Array) -> jax.Array:
    """One-to-one map of uint32 in which every bit depends on all bits (MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


@jax.jit  # so that arrays of one shape are traced once
def _sums(x: jax.Array) -> jax.Array:
    """The two sums of an array's words, uint32[2]."""
    if x.dtype == bool:
        x = x.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(x, _UNSIGNED[x.dtype.itemsize])
    bits = bits.astype(jnp.uint32)
    place = jnp.zeros((), jnp.uint32)
    for axis in range(x.ndim):
        stride = jnp.uint32(math.prod(x.shape[axis + 1 :]) % 2**32)
        row = jax.lax.broadcasted_iota(jnp.uint32, (x.shape[axis],), 0) * stride
        place = jnp.expand_dims(place, -1) + row.reshape((1,) * axis + row.shape)
    mixed = _mixed(bits ^ (place * jnp.uint32(0x9E3779B9) + jnp.uint32(1)))
    turned = (mixed >> 16) | (mixed << 16)
    # Both sums are one reduction, so that XLA stores none of the words in memory.
    zero = jnp.uint32(0)
    sums = jax.lax.reduce(
        (mixed, turned),
        (zero, zero),
        lambda a, b: (a[0] + b[0], a[1] + b[1]),
        tuple(range(x.ndim)),
    )
    return jnp.stack(sums)


@jax.jit
def _sums_of(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return jax.tree.map(_sums, arrays)


def array_checksums(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """The checksum of each array, as 16 hexadecimal digits.

    Each array is read once, on the devices that hold it. All processes must call this,
    and get the same answer.

    Args:
      arrays: Arrays by name, of any shape, with 8 to 32 bits per element.
    """
    found = jax.device_get(_sums_of(dict(arrays)))
    return {name: "".join(f"{int(s):08x}" for s in found[name]) for name in arrays}
