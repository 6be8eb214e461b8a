"""Reads public tensors from a folder of safetensors files.

Opening a folder reads only headers. A tensor is mapped from its file when it is read,
so that only one tensor is in memory at a time.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from instructgpt.errors import UserError
from instructgpt.reading import check_content, read_object

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Tensor(NamedTuple):
    """Shape, type and file of a tensor that can be read."""

    shape: tuple[int, ...]
    file: str  # path, for messages
    dtype: str = "F32"  # name of the type in safetensors


class TensorSource(Protocol):
    """A source of tensors by their public names."""

    def tensors(self) -> Mapping[str, Tensor]:
        """All tensors by name, in the order in which the files hold them."""
        ...

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor in its stored type."""
        ...


class SafetensorsFolder:
    """The tensors of `model.safetensors`, or of the shards named by an index.

    Attributes:
      left_alone: Names of other safetensors files in the folder, which are not read.
    """

    def __init__(self, folder: Path):
        """Reads the headers of the folder's files.

        Raises:
          UserError: there are no safetensors files, one is missing, truncated or
            damaged, or two hold the same tensor.
        """
        self._tensors: dict[str, Tensor] = {}
        self._open: tuple[str, Any] | None = None
        files = _files(folder)
        self.left_alone = sorted(
            path.name for path in folder.glob("*.safetensors") if path not in files
        )
        for path in files:
            for name, shape, dtype in _header(path):
                if name in self._tensors:
                    raise UserError(
                        f"{path}: tensor {name!r} is in {self._tensors[name].file} too;"
                        " keep one of the two files"
                    )
                self._tensors[name] = Tensor(shape, str(path), dtype)

    def tensors(self) -> Mapping[str, Tensor]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        file = self._tensors[name].file
        if self._open is None or self._open[0] != file:
            self._open = file, safe_open(file, "numpy")
        return self._open[1].get_tensor(name)


def _files(folder: Path) -> list[Path]:
    """The model's files, chosen as transformers does: a single file, else the index.

    Adapters, files in other layouts and older shards in the folder are ignored.
    """
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    index = folder / INDEX
    if index.exists():
        return _indexed(index)
    found = sorted(path.name for path in folder.glob("*.safetensors"))
    if not found:
        raise UserError(
            f"{folder}: no *.safetensors file; only safetensors and GGUF can be read"
        )
    shards = [_SHARD.fullmatch(name) for name in found]
    models = {(m["name"], m["count"]) for m in shards if m}
    if len(models) == 1:
        name, count = models.pop()
        return [
            _present(
                folder / f"{name}-{i:05d}-of-{count}.safetensors",
                "other parts are there",
            )
            for i in range(1, int(count) + 1)
        ]
    names = [name for name in found if not name.startswith(_NO_MODELS)]
    if not names:
        raise UserError(
            f"{folder}: holds {', '.join(found)}, which is no whole model; give a "
            f"folder that has {SINGLE}"
        )
    return [folder / name for name in names]


_SHARD = re.compile(r"(?P<name>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")
_NO_MODELS = ("adapter", "optimizer")


def _indexed(index: Path) -> list[Path]:
    weight_map = read_object(index).get("weight_map")
    names = weight_map.values() if isinstance(weight_map, dict) else [None]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"{index}: damaged (key 'weight_map' does not name the file of each "
            "tensor); copy it again"
        )
    folder = index.parent
    return [_present(folder / name, f"{index} names it") for name in sorted(set(names))]


def _present(path: Path, why: str) -> Path:
    if not path.is_file():
        raise UserError(f"{path}: missing, but {why}; copy all files of the model")
    return path


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of each tensor, in the order of the file."""
    check_content(path)
    try:
        with safe_open(path, "numpy") as file:
            for name in file.offset_keys():
                part = file.get_slice(name)
                yield name, tuple(part.get_shape()), str(part.get_dtype())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); copy the file again") from error
