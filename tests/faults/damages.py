"""Ways to damage the files of a public model, each drawn from a seeded source."""

import copy
import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.faults.bits import flip_bits

POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
)
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**32, 2**63, -(2**31), 10**30, 10**400),
    *(0.0, -4.0, 0.5, 1e-300, 1e300, float("nan"), float("inf"), "", "linear", "7"),
    *("<|im_end|>", "\ud800", "\0", [], {}, [[]], [1], ["a"], {"a": 1}, "x" * 5000),
]
KEY_VALUES: list[Any] = [
    *(True, False, 0, 1, 2, 3, -1, 2**31, 2**40, 2**63, 0.0, -4.0, 0.5, 1e30),
    *(float("nan"), float("inf"), "", "none", "linear", "llama", "gpt-2", "qwen2"),
    *([1], ["a"], ["a", "b"], [0.5]),
]
_HEADER = 1 << 11  # bytes; where headers and their tables lie


def _files(folder: Path, draw: random.Random, *ends: str) -> Path | None:
    paths = sorted(p for p in folder.iterdir() if p.name.endswith(ends or ("",)))
    return draw.choice(paths) if paths else None


def _flip(content: bytes, draw: random.Random, start: int, end: int) -> bytes:
    number = draw.choice([1, 1, 2, 8])
    return flip_bits(content, draw, number=number, start=start, end=end)


def flipped_header(folder: Path, draw: random.Random) -> str:
    """Bits of a weight file's header."""
    path = _files(folder, draw, ".safetensors", ".gguf")
    assert path is not None
    content = path.read_bytes()
    start = draw.choice([0, 0, 8])
    path.write_bytes(_flip(content, draw, start, min(len(content), _HEADER)))
    return path.name


def flipped(folder: Path, draw: random.Random) -> str:
    """Bits anywhere in any file."""
    path = _files(folder, draw)
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(_flip(content, draw, 0, len(content)))
    return path.name


def _spots(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of each value in a tree."""
    spots: list[tuple[Any, Any]] = []
    keys: Any = value if isinstance(value, dict) else ()
    if isinstance(value, list):
        keys = range(len(value))
    for key in keys:
        spots += [(value, key), *_spots(value[key])]
    return spots


def _change(tree: Any, draw: random.Random) -> Any:
    """A tree with one value of another kind, missing or deeply nested."""
    spots = _spots(tree)
    # The few keys at the top count as much as the many tokens of a vocabulary.
    top = [spot for spot in spots if spot[0] is tree]
    if not spots or draw.random() < 0.03:
        return draw.choice(VALUES)
    container, key = draw.choice(top if draw.random() < 0.5 and top else spots)
    kind = draw.randrange(8)
    if kind == 0:
        del container[key]
    elif kind == 1:
        nested: Any = 1
        for _ in range(draw.choice([3, 100])):
            nested = [nested]
        container[key] = nested
    elif kind == 2:
        container[key] = copy.deepcopy(draw.choice(spots)[0])
    else:
        container[key] = draw.choice(VALUES)
    return tree


def changed_json(folder: Path, draw: random.Random) -> str:
    """One or two values of a JSON file."""
    path = _files(folder, draw, ".json")
    if path is None:
        return changed_count(folder, draw)
    tree = json.loads(path.read_text())
    for _ in range(draw.choice([1, 1, 2])):
        tree = _change(tree, draw)
    path.write_text(json.dumps(tree), errors="surrogatepass")
    return path.name


def changed_header(folder: Path, draw: random.Random) -> str:
    """Values of the JSON that opens a safetensors file."""
    path = _files(folder, draw, ".safetensors")
    if path is None:
        return changed_count(folder, draw)
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    tree = _change(json.loads(content[8 : 8 + size]), draw)
    header = json.dumps(tree).encode(errors="surrogatepass")
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])
    return path.name


def changed_count(folder: Path, draw: random.Random) -> str:
    """Eight bytes of a weight file as another number: a count, a length, a type."""
    path = _files(folder, draw, ".gguf", ".safetensors")
    assert path is not None
    content = bytearray(path.read_bytes())
    start = draw.randrange(0, max(min(len(content) - 8, _HEADER), 1))
    number = draw.choice([0, 1, 2**16, 2**31, 2**32 - 1, 2**62, 2**64 - 1])
    width = draw.choice([4, 8])
    content[start : start + width] = struct.pack("<Q", number)[:width]
    path.write_bytes(bytes(content))
    return path.name


def changed_keys(folder: Path, draw: random.Random) -> str:
    """One or two keys of a GGUF file: gone, or with values of other types."""
    path = _files(folder, draw, ".gguf")
    if path is None:
        return changed_json(folder, draw)
    reader = gguf.GGUFReader(path)
    fields = {
        name: (field.contents(), field.types[0], field.types[-1])
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = [(t.name, np.array(t.data), t.tensor_type) for t in reader.tensors]
    keys = draw.choices(list(fields), k=draw.choice([1, 1, 2]))
    for key in keys:
        value = draw.choice(KEY_VALUES)
        kind = gguf.GGUFValueType.get_type(value)
        if isinstance(value, int) and value > 2**31 - 1:
            kind = gguf.GGUFValueType.UINT64
        first = value[0] if isinstance(value, list) else value
        inner = gguf.GGUFValueType.get_type(first)
        fields[key] = value, kind, inner
        if draw.random() < 0.3:
            del fields[key]
            fields = fields or {"none": (0, gguf.GGUFValueType.INT32, kind)}
    path.unlink()
    writer = gguf.GGUFWriter(path, "none")
    writer.kv_data[0].clear()
    for name, (value, kind, inner) in fields.items():
        array = kind == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, value, kind, inner if array else None)
    for name, tensor, dtype in tensors:
        writer.add_tensor(name, tensor, raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return f"{path.name}, {', '.join(keys)}"


def cut(folder: Path, draw: random.Random) -> str:
    """The end of a file."""
    path = _files(folder, draw)
    assert path is not None
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(len(content))])
    return path.name


def grown(folder: Path, draw: random.Random) -> str:
    """Bytes put into a file."""
    path = _files(folder, draw)
    assert path is not None
    content, spot = path.read_bytes(), draw.randrange(path.stat().st_size)
    more = draw.randbytes(draw.choice([1, 4, 300]))
    path.write_bytes(content[:spot] + more + content[spot:])
    return path.name


def emptied(folder: Path, draw: random.Random) -> str:
    """A file of nothing, of zeros, without an end, or a Git LFS pointer."""
    path = _files(folder, draw)
    assert path is not None
    contents = [b"", bytes(5000), b"[" * 100_000, POINTER.encode(), b"\xff\xfe{}"]
    path.write_bytes(draw.choice(contents))
    return path.name


def renamed(folder: Path, draw: random.Random) -> str:
    """A file that is gone, has another's name, or is a folder."""
    path = _files(folder, draw)
    assert path is not None
    kind, other = draw.randrange(3), _files(folder, draw)
    assert other is not None
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.rename(folder / draw.choice([other.name, f"old-{path.name}"]))
    else:
        path.unlink()
        path.mkdir()
    return path.name


def swapped(folder: Path, draw: random.Random) -> str:
    """Two files with each other's content."""
    one, other = _files(folder, draw), _files(folder, draw)
    assert one is not None and other is not None
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return f"{one.name}, {other.name}"


def spoiled(folder: Path, draw: random.Random) -> str:
    """NaN, infinity and large numbers among the weights."""
    path = _files(folder, draw, ".safetensors", ".gguf")
    assert path is not None
    content = bytearray(path.read_bytes())
    spot = draw.randrange(min(_HEADER, len(content) - 4), len(content) - 3) & ~3
    number = draw.choice([float("nan"), float("inf"), -float("inf"), 3e38, 0.0])
    content[spot : spot + 4] = struct.pack("<f", number)
    path.write_bytes(bytes(content))
    return path.name


DAMAGES: list[Callable[[Path, random.Random], str]] = [
    *(flipped_header, flipped, changed_json, changed_header, changed_count),
    *(changed_keys, cut, grown, emptied, renamed, swapped, spoiled),
]
