"""Recognises kinds of files that were given by mistake, by their first bytes.

Without this, a table, an archive or a pointer in place of text would be refused for
its first invalid byte, and the user would not know what to do.
"""

import os
from typing import NamedTuple

from instructgpt.errors import UserError

HEAD = 1024  # number of first bytes that `kind_of` needs


class FileKind(NamedTuple):
    """A kind of file.

    Attributes:
      name: Name with its article, such as "a Parquet table".
      remedy: What a user should do with the file.
      suffix: Suffix of compressed files that are unpacked under another name, else "".
    """

    name: str
    remedy: str
    suffix: str = ""


_AS_LINES = "write its rows as JSON Lines, for example with Python: "
_PANDAS = _AS_LINES + "pandas.{}(FILE).to_json(NEW, orient='records', lines=True)"
_UNPACK = "unpack it, and give what is inside"
LFS_POINTER = FileKind(
    "a Git LFS pointer, not the content that it stands for",
    "fetch the content with git lfs pull",
)
_BINARY = "give a text file"
# Pairs of first bytes and the kind of file.
_STARTS: tuple[tuple[bytes, FileKind], ...] = (
    (b"version https://git-lfs.github.com/", LFS_POINTER),
    (b"version https://hawser.github.com/", LFS_POINTER),
    (
        b"PAR1",
        FileKind(
            "a Parquet table",
            "give it as it is, unpacked, where rows are read, and text files here",
        ),
    ),
    (b"PARE", FileKind("an encrypted Parquet table", "decrypt it first")),
    (b"ARROW1", FileKind("an Arrow table", _PANDAS.format("read_feather"))),
    (b"FEA1", FileKind("a Feather table", _PANDAS.format("read_feather"))),
    (
        b"\xff\xff\xff\xff",
        FileKind(
            "an Arrow stream",
            _AS_LINES + "datasets.Dataset.from_file(FILE).to_json(NEW)",
        ),
    ),
    (b"Obj\x01", FileKind("an Avro table", "write its rows as JSON Lines")),
    (b"\x89HDF\r\n", FileKind("an HDF5 file", "write its rows as JSON Lines")),
    (b"SQLite format 3\0", FileKind("an SQLite database", _AS_LINES + "sqlite3")),
    (b"\x1f\x8b", FileKind("gzip data", "", ".gz")),
    (b"\xfd7zXZ\0", FileKind("xz data", "", ".xz")),
    (b"\x28\xb5\x2f\xfd", FileKind("zstd data", "unpack it with unzstd")),
    *(
        (b"BZh%d1AY&SY" % level, FileKind("bzip2 data", "unpack it with bunzip2"))
        for level in range(1, 10)
    ),
    (b"\x04\x22\x4d\x18", FileKind("LZ4 data", "unpack it with unlz4")),
    (b"7z\xbc\xaf\x27\x1c", FileKind("a 7-Zip archive", _UNPACK)),
    (b"Rar!\x1a\x07", FileKind("a RAR archive", _UNPACK)),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        FileKind("an old Excel or Word file", _PANDAS.format("read_excel")),
    ),
    (b"\x93NUMPY", FileKind("a NumPy array", _BINARY)),
    *(
        (
            bytes([0x80, protocol]),
            FileKind(
                "a Python pickle",
                "load it where it was made, and write its rows as JSON Lines",
            ),
        )
        for protocol in range(2, 6)
    ),
    (b"GGUF\x02\0", FileKind("a GGUF model", _BINARY)),
    (b"GGUF\x03\0", FileKind("a GGUF model", _BINARY)),
    (b"%PDF-", FileKind("a PDF document", "give its text, for example by pdftotext")),
    (b"{\\rtf", FileKind("an RTF document", "save it as plain text")),
)
# Byte order marks; a longer one comes before the shorter one that it begins with.
_MARKS = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def kind_of(head: bytes) -> FileKind | None:
    """The kind of a file that is not UTF-8 text, if its first bytes show it.

    Args:
      head: The first `HEAD` bytes, or all if there are fewer.
    """
    marked = next((name for mark, name in _MARKS if head.startswith(mark)), "")
    if marked:
        return _encoded(marked)
    if head.startswith(b"PK\x03\x04"):
        return _zip(head)
    if head[257:262] == b"ustar":
        return FileKind("a tar archive", _UNPACK)
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    unmarked = _encoding(head)
    if unmarked:
        return _encoded(unmarked)
    # Damaged text has a zero byte or an invalid one, seldom both.
    if b"\0" in head and "\ufffd" in head.decode(errors="replace"):
        return FileKind("binary data", _BINARY)
    return None


def check_is_text(path: str | os.PathLike[str], head: bytes) -> None:
    """Raises UserError, naming the kind, if `kind_of` recognises the file."""
    kind = kind_of(head)
    if kind:
        raise UserError(f"{path}: is {kind.name}; {_remedy(kind)}.")


def _remedy(kind: FileKind) -> str:
    return kind.remedy or f"end its name in {kind.suffix}, or unpack it"


def _zip(head: bytes) -> FileKind:
    if b"[Content_Types].xml" in head or b"xl/" in head:
        return FileKind("an Excel or Word file", _PANDAS.format("read_excel"))
    if b".npy" in head:
        return FileKind("an archive of NumPy arrays", _BINARY)
    return FileKind("a Zip archive", _UNPACK)


def _encoded(encoding: str) -> FileKind:
    remedy = f"write it as UTF-8: iconv -f {encoding} -t UTF-8 FILE > NEW"
    return FileKind(f"{encoding} text", remedy)


def _encoding(head: bytes) -> str:
    """UTF-32 or UTF-16 without a mark, recognised by its zero bytes; else ""."""
    quads = len(head) // 4
    zeros = [head[start : 4 * quads : 4].count(0) for start in range(4)]
    if quads and zeros[0] == quads and zeros[1] > 0.9 * quads and not zeros[3]:
        return "UTF-32BE"
    if quads and zeros[3] == quads and zeros[2] > 0.9 * quads and not zeros[0]:
        return "UTF-32LE"
    pairs = len(head) // 2
    first, second = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    # In UTF-16 Latin letters, signs, digits and blanks have a zero byte. In every
    # script that is at least a record's first character, and many in a book.
    if head[:2] in (b"{\0", b"[\0") or (second > pairs / 4 and second > 10 * first):
        return "UTF-16LE"
    if head[:2] in (b"\0{", b"\0[") or (first > pairs / 4 and first > 10 * second):
        return "UTF-16BE"
    return ""
