"""Damage to a small file of text or JSON: its bytes, lines, values and name."""

import gzip
import json
import lzma
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.faults.bits import flip_bits


class File(NamedTuple):
    """A file to be: its name, which may end in .gz, and what is in it."""

    name: str
    data: bytes


Mutation = Callable[[File, random.Random], File]

_ENCODINGS = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig")
_OLD_ENCODINGS = ("latin-1", "cp1252", "cp1251", "utf-7", "shift-jis")
_WHOLE = (
    b"",
    b"\n",
    b"\xef\xbb\xbf",
    b"\0" * 100,
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    b"PAR1\x15\0\x15\x10PAR1",
    b"ARROW1\0\0\xff\xff\xff\xff",
    b"PK\x03\x04\x14\0xl/workbook.xml",
    b"\x80\x04\x95\0\0\0\0}.",
    b"prompt,response\na,b\n",
    b"<!DOCTYPE html>\n<html></html>\n",
    b"{'prompt': 'p', 'response': 'r'}\n",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"{}\n",
    b"[]",
    b"[[]]",
    b"null\n",
    b'"text"\n',
    b"1e999\n",
    b"9" * 5000 + b"\n",
)
# Written into the JSON as they are: what json.dumps would not or could not write.
_RAW = (
    "9" * 5000,
    "1e999",
    "-0",
    "NaN",
    "-Infinity",
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    "[" * 500 + "]" * 500,
    "[" * 5000 + "]" * 5000,
    '{"a":' * 900 + "1" + "}" * 900,
    '{"replies":[' * 300 + "]}" * 300,
    '"unfinished',
    "undefined",
    "True",
)
_LONG = 50_000  # characters; a reader that takes time squared is then seen


def _long_text(rng: random.Random) -> str:
    unit = rng.choice(
        ["x", " ", "\n", "1 2", "jo@", "12.", "a b ", "\n\nHuman: ", " = ", "é", "'\","]
    )
    return unit * (_LONG // len(unit))


def _odd_value(value: Any, rng: random.Random) -> Any:
    """Another type, nothing, very much, or something near."""
    size = len(json.dumps(value))
    return rng.choice(
        [
            lambda: None,
            lambda: rng.choice([True, False]),
            lambda: rng.choice([0, 1, -1, 7, 10**18, 10**400, 2**63]),
            lambda: rng.choice([0.5, 7.0, -1e300]),
            lambda: rng.choice(
                ["", " ", "\n", "\0", "\x1b[2J", "7", "user", "é\u2028"]
            ),
            lambda: _long_text(rng),
            lambda: rng.choice([[], {}, [[]], [None], [{}], [""], [1, 2], {"": ""}]),
            lambda: [value],
            lambda: [value] * min(rng.choice([2, 3, 1000]), 1 + _LONG // size),
            lambda: {"value": value},
            lambda: str(value)[:1000],
            lambda: value[::-1] if isinstance(value, list | str) else value,
            lambda: value[:-1] if isinstance(value, list | str) else value,
        ]
    )()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a value."""
    if isinstance(value, dict):
        inside = list(value.items())
    elif isinstance(value, list):
        inside = list(enumerate(value))
    else:
        return []
    own = [(value, key) for key, _ in inside]
    return own + [place for _, item in inside for place in _places(item)]


def _change_rows(file: File, rng: random.Random) -> File:
    """One to three places inside the JSON values get another value, name or none."""
    rows = _rows(file.data)
    raw: dict[str, str] = {}
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = _places(rows)
        if not places:
            break
        container, key = rng.choice(places)
        how = rng.randrange(6)
        if how == 0:
            del container[key]
        elif how == 1 and isinstance(container, dict):
            container[rng.choice(["text", "prompt", "messages", "id", "x"])] = (
                container.pop(key)
            )
        elif how == 2:
            name = f"RAW{len(raw)}"
            raw[f'"{name}"'] = rng.choice(_RAW)
            container[key] = name
        else:
            container[key] = _odd_value(container[key], rng)
    text = _dump(rows, rng)
    for name, replacement in raw.items():
        text = text.replace(name, replacement, 1)
    if len(text) > 20 * _LONG:  # what was made long stands in what was made many
        return file
    return file._replace(data=text.encode(errors="surrogatepass"))


def _rows(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.decode().splitlines() if line.strip()]


def _dump(rows: list[Any], rng: random.Random) -> str:
    """Lines mostly; else a list, pretty-printed values or values without line ends."""
    ascii_ = rng.random() < 0.5
    how = rng.randrange(8)
    if how == 0:
        return json.dumps(rows, ensure_ascii=ascii_, indent=rng.choice([None, 1]))
    indent = 2 if how == 1 else None
    end = "" if how == 2 else "\n"
    return "".join(
        json.dumps(r, ensure_ascii=ascii_, indent=indent) + end for r in rows
    )


def _reshape(file: File, rng: random.Random) -> File:
    return file._replace(data=_dump(_rows(file.data), rng).encode())


def _double_key(file: File, rng: random.Random) -> File:
    key = rng.choice([key for row in _rows(file.data) for key in row])
    value = rng.choice(["1", '""', "null", "[]", '"other"'])
    text = file.data.decode().replace("{", f'{{"{key}": {value}, ', 1)
    return file._replace(data=text.encode())


def _flip(file: File, rng: random.Random) -> File:
    number = rng.choice([1, 1, 2, 8])
    return file._replace(data=flip_bits(file.data, rng, number=number))


def _insert(file: File, rng: random.Random) -> File:
    at = rng.randrange(len(file.data) + 1)
    what = rng.choice(
        [b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\x1a", b"\xc3", b"\r"]
        + [
            b"\n",
            b'"',
            b"{",
            b"]",
            b",",
            b"\xe2\x80\xa8",
            b"\xfe\xff",
            rng.randbytes(9),
        ]
    )
    return file._replace(data=file.data[:at] + what + file.data[at:])


def _cut(file: File, rng: random.Random) -> File:
    return file._replace(data=file.data[: rng.randrange(len(file.data) + 1)])


def _cut_out(file: File, rng: random.Random) -> File:
    start, end = sorted(rng.randrange(len(file.data) + 1) for _ in range(2))
    return file._replace(data=file.data[:start] + file.data[end:])


def _encode(file: File, rng: random.Random) -> File:
    text = file.data.decode(errors="replace")
    encoding = rng.choice(_ENCODINGS + _OLD_ENCODINGS)
    data = text.encode(encoding, errors="replace")
    if encoding in _ENCODINGS and rng.random() < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    return file._replace(data=data)


def _line_ends(file: File, rng: random.Random) -> File:
    end = rng.choice([b"\r\n", b"\r", b"", b" ", b"\n\n", b"\0\n", b"\x1e", b",\n"])
    return file._replace(data=file.data.replace(b"\n", end))


def _lines(file: File, rng: random.Random) -> File:
    """Lines doubled, swapped, left out, or blank ones added."""
    lines = file.data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at : at + 1] = rng.choice(
        [[], [lines[at]] * 2, [b"\n", lines[at]], [b"  \n"]]
    )
    rng.shuffle(lines)
    return file._replace(data=b"".join(lines))


def _other_file(file: File, rng: random.Random) -> File:
    return file._replace(data=rng.choice(_WHOLE))


def _start_of_other(file: File, rng: random.Random) -> File:
    return file._replace(data=rng.choice(_WHOLE)[:200] + file.data)


def _pack(file: File, rng: random.Random) -> File:
    """Packed rightly, under a wrong name, cut, flipped, twice or with more behind."""
    suffix = rng.choice([".gz", ".xz"])
    pack = gzip.compress if suffix == ".gz" else lzma.compress
    data = pack(file.data)
    how = rng.randrange(7)
    if how == 1:
        data = data[: rng.randrange(len(data))]
    elif how == 2:
        data = _flip(File("", data), rng).data
    elif how == 3:
        data = pack(data)
    elif how == 4:
        data += rng.choice([b"\0\0", b"more", data])
    elif how == 5:
        suffix = rng.choice(["", ".gz", ".xz", ".zst"])
    elif how == 6:
        data = file.data
    return File(file.name + suffix, data)


_ON_BYTES: tuple[Mutation, ...] = (
    *(_flip, _flip, _insert, _insert, _cut, _cut_out, _encode, _line_ends, _lines),
    *(_other_file, _start_of_other, _pack, _pack),
)
_ON_JSON: tuple[Mutation, ...] = (*[_change_rows] * 12, _reshape, _double_key)


def mutate(file: File, rng: random.Random) -> tuple[File, str]:
    """The damaged file, and the names of what was done to it.

    Args:
      file: a valid one; JSON Lines if its name has .json in it.
      rng: draws what is done.
    """
    first = _ON_JSON + _ON_BYTES if ".json" in file.name else _ON_BYTES
    steps = [rng.choice(first)]
    if rng.random() < 0.2:
        steps.append(rng.choice([_flip, _insert, _cut, _pack]))
    for step in steps:
        file = step(file, rng)
    return file, ", ".join(step.__name__.strip("_") for step in steps)
