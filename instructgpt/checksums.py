"""Checksums of arrays, taken where they lie, and of small values and files.

A checksum of an array does not depend on how it is cut over devices or processes: each
element's bits and place are mixed into a word of 32 bits, and the words are added
modulo 2**32, once as they are and once with their halves exchanged. Mixing is one to
one, so a change of one element always changes both sums; several changes go unseen once
in 2**64.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.outputs import new_file

MANIFEST = "files.json"  # in a folder: the checksum of each of its files
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _mixed(x: jax.Array) -> jax.Array:
    """uint32 -> uint32 one to one, each bit of which depends on all (MurmurHash3)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)


def _sums(x: jax.Array) -> jax.Array:
    """uint32[2]."""
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
    # Both sums at once, so that XLA keeps no word of them in memory.
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
    """The checksum of each array, 16 hexadecimal digits.

    Each is read once, on the devices that hold it. All processes must call this, and
    get the same answer.

    Args:
      arrays: By name, of any shape and of 8 to 32 bits an element.
    """
    found = jax.device_get(_sums_of(dict(arrays)))
    return {name: "".join(f"{int(s):08x}" for s in found[name]) for name in arrays}


def value_checksum(value: Any) -> str:
    """SHA-256 of a JSON value, whatever the order of its keys and its white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_checksum(path: str | os.PathLike[str]) -> str:
    """SHA-256 of what a file holds."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Lists the checksums of a folder's files in one more, `files.json`."""
    files = {name: file_checksum(folder / name) for name in sorted(_files(folder))}
    with new_file(folder / MANIFEST) as partial:
        listed = {"files": files, "checksum": value_checksum(files)}
        partial.write_text(json.dumps(listed, indent=1) + "\n")


def first_damaged(folder: Path) -> str | None:
    """Name of a file that is not what it was when `write_manifest` listed it.

    Returns:
      None if there is none, or no list.
    """
    try:
        listed = json.loads((folder / MANIFEST).read_bytes())
        files = listed["files"]
        if listed["checksum"] != value_checksum(files):
            return MANIFEST
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return MANIFEST
    there = _files(folder)
    for name, checksum in files.items():
        if name not in there or file_checksum(folder / name) != checksum:
            return name
    return None


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {MANIFEST}
