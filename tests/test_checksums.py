"""Checksums: the same on any mesh, another for any changed bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from instructgpt.checksums import array_checksums
from instructgpt.manifest import file_checksum, value_checksum
from tests import tiny

DTYPES = ["float32", "bfloat16", "float16", "int32", "uint8", "bool"]
PAIRS = [(0, 7), (1, 0), (2, 2**32 - 1)]  # place, bits
SHAPES = [(), (1,), (0, 4), (64,), (16, 24), (2, 8, 4)]


def array(rng, shape, dtype):
    return jnp.array(rng.integers(0, 2 if dtype == "bool" else 99, shape), dtype)


def flipped(x, place, bit):
    """The array with one bit of one element changed."""
    host = np.array(x)
    raw = host.reshape(-1).view(np.uint8)
    size = host.dtype.itemsize
    raw[place * size + bit // 8] ^= 1 << bit % 8
    return jnp.asarray(host)


def one(x):
    return array_checksums({"x": x})["x"]


@pytest.mark.parametrize("dtype", DTYPES[:-1])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if np.prod(shape)])
def test_any_single_bit_counts(shape, dtype, rng):
    x = array(rng, shape, dtype)
    bits = 8 * x.dtype.itemsize
    places = rng.integers(x.size, size=8)
    found = {one(flipped(x, int(p), int(b))) for p in places for b in (0, 5, bits - 1)}
    assert one(x) not in found
    assert len(found) == 3 * len(set(places.tolist()))


def test_places_count():
    x = jnp.arange(64.0).reshape(8, 8)
    others = [x.T, x[::-1], x.at[0, 1].set(0).at[0, 0].set(1), x.at[3].set(x[4])]
    assert len({one(x), *map(one, others)}) == 5
    assert len({one(jnp.zeros(n)) for n in range(4)}) == 4


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cut", [("data",), (None, "data"), ("data", "fsdp")])
def test_the_same_on_any_mesh(cut, dtype, rng):
    x = array(rng, (16, 24), dtype)
    sharding = NamedSharding(tiny.mesh_of(4, 2), PartitionSpec(*cut))
    assert one(jax.device_put(x, sharding)) == one(x)


def test_many_changes_count(rng):
    """Sign bits among them, whose changes cancel in plain sums."""
    x = array(rng, (64,), "float32") + 1
    found = {
        one(x.at[jnp.array(places)].multiply(-1))
        for places in ([0, 1], [0, 2], [4, 9, 60])
    }
    found |= {one(x.at[3].add(k).at[5].add(-k)) for k in (1, 2, 4)}
    assert len(found | {one(x)}) == 7


def test_by_hand():
    """One element: its bits mixed with its place, and with the halves exchanged."""

    def mixed(x):
        x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
        x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
        return x ^ x >> 16

    words = [mixed(bits ^ (place * 0x9E3779B9 + 1) % 2**32) for place, bits in PAIRS]
    turned = [word >> 16 | word % 2**16 << 16 for word in words]
    expected = f"{sum(words) % 2**32:08x}{sum(turned) % 2**32:08x}"
    assert one(jnp.array([bits for _, bits in PAIRS], jnp.uint32)) == expected


def test_of_values_and_files(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"é": "x"}}
    again = json.loads(json.dumps(value, indent=2))
    assert value_checksum(value) == value_checksum(dict(reversed(again.items())))
    assert value_checksum(value) != value_checksum({**value, "b": [1, 2.6, None]})
    (tmp_path / "f").write_bytes(b"abc")
    assert file_checksum(tmp_path / "f").startswith("ba7816bf8f01cfea")
