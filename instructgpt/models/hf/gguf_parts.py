"""The joint content of a GGUF model's files: one file, or the parts of a split one."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

from instructgpt.errors import UserError
from instructgpt.reading import check_content

_PART = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")


class Stored(NamedTuple):
    """A tensor and the file that holds it."""

    tensor: gguf.ReaderTensor
    file: str


class Parts(NamedTuple):
    """The metadata and the tensors of all files of a model."""

    metadata: dict[str, Any]
    tensors: dict[str, Stored]


class _Reader(gguf.GGUFReader):
    """The library's reader, which also stops where a damaged count passes the end."""

    def _get(self, offset: int, dtype: Any, count: int = 1, *args: Any, **kwargs: Any):
        found = super()._get(offset, dtype, count, *args, **kwargs)
        if len(found) < count:
            raise ValueError("the file ends before what its header counts")
        return found


def read_parts(path: Path) -> Parts:
    """Reads the headers of a file and, of a split model, of all files beside it.

    Args:
      path: The file, or any part of a split model.

    Raises:
      UserError: a file is damaged or truncated, a part is missing or of another model,
        or the tensors are of a type that cannot be read.
    """
    parts = _read(path)
    count = parts.metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return parts
    match = _PART.fullmatch(path.name)
    if match is None or int(match["count"]) != count:
        raise UserError(
            f"{path}: one of the {count} parts of a model; the parts must be named "
            f"NAME-00001-of-{count:05d}.gguf and so on, as they were published"
        )
    whole: dict[str, Stored] = {}
    first: dict[str, Any] = {}
    for number in range(1, count + 1):
        file = path.with_name(f"{match['name']}-{number:05d}-of-{match['count']}.gguf")
        if not file.exists():
            raise UserError(
                f"{file}: missing; {path.name} is one of {count} parts, copy them all"
            )
        part = _read(file)
        found = part.metadata.get("split.no"), part.metadata.get("split.count")
        if found != (number - 1, count):
            raise UserError(
                f"{file}: says that it is part {found[0]} (from 0) of {found[1]}; copy "
                "the parts of one model"
            )
        for name in part.tensors.keys() & whole.keys():
            raise UserError(f"{file}: tensor {name!r} is in {whole[name].file} too")
        whole |= part.tensors
        first = first or part.metadata
    wanted = first.get("split.tensors.count", len(whole))
    if wanted != len(whole):
        raise UserError(
            f"{path}: its {count} parts hold {len(whole)} tensors, not the {wanted} of "
            "split.tensors.count; copy the parts again"
        )
    return Parts(first, whole)


def models_in(folder: Path) -> list[Path]:
    """The GGUF models in a folder, each split model by its first part."""
    return first_parts(sorted(folder.glob("*.gguf")))


def first_parts(paths: list[Path]) -> list[Path]:
    """The files that are whole models, and the first part present of split ones."""
    seen: dict[tuple[str, str], Path] = {}
    for path in paths:
        match = _PART.fullmatch(path.name)
        key = (match["name"], match["count"]) if match else (path.name, "")
        seen.setdefault(key, path)
    return list(seen.values())


def _read(path: Path) -> Parts:
    check_content(path)
    try:
        reader = _Reader(path)
        metadata = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # the library raises many types of exceptions
        raise UserError(
            f"{path}: not a GGUF file, or a truncated one ({error}); copy it again"
        ) from error
    for kind in {tensor.tensor_type for tensor in reader.tensors}:
        _check_type(kind, path)
    tensors = {tensor.name: Stored(tensor, str(path)) for tensor in reader.tensors}
    return Parts(metadata, tensors)


def _check_type(kind: gguf.GGMLQuantizationType, path: Path) -> None:
    """Raises UserError if the library cannot dequantise a type."""
    _, size = gguf.GGML_QUANT_SIZES[kind]
    try:
        gguf.dequantize(np.zeros((1, size), np.uint8), kind)
    except NotImplementedError as error:
        raise UserError(
            f"{path}: holds tensors of type {kind.name}, which cannot be read; take a "
            "file of another quantisation, such as Q8_0, F16 or BF16"
        ) from error
