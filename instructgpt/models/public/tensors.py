"""Where public tensors are read from: a folder of safetensors files.

Only headers are read when a folder is opened; a tensor is mapped from its file when it
is asked for, so that no more than one is in memory.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from instructgpt.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"


class Tensor(NamedTuple):
    """A tensor that can be read."""

    shape: tuple[int, ...]
    file: str  # for messages


class TensorSource(Protocol):
    """Tensors by their public names."""

    def tensors(self) -> Mapping[str, Tensor]:
        """What there is, by name, in the order in which it lies in the files."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One tensor, in the type it is stored in."""
        ...


class SafetensorsFolder:
    """The tensors of `model.safetensors`, or of the shards that its index names."""

    def __init__(self, folder: Path):
        """Reads the headers.

        Raises:
          UserError: there are no such files, one is missing, truncated or damaged, or
            two hold the same tensor.
        """
        self._tensors: dict[str, Tensor] = {}
        self._open: tuple[str, Any] | None = None
        for path in _files(folder):
            for name, shape in _header(path):
                if name in self._tensors:
                    raise UserError(
                        f"{path}: tensor {name!r} is in {self._tensors[name].file} too;"
                        " keep one of the two files"
                    )
                self._tensors[name] = Tensor(shape, str(path))

    def tensors(self) -> Mapping[str, Tensor]:
        return self._tensors

    def read(self, name: str) -> np.ndarray:
        file = self._tensors[name].file
        if self._open is None or self._open[0] != file:
            self._open = file, safe_open(file, "numpy")
        return self._open[1].get_tensor(name)


def _files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{index}: damaged ({error}); copy it again") from error
        for name in names:
            if not (folder / name).exists():
                raise UserError(f"{folder / name}: missing, but {index} names it")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            f"{folder}: no *.safetensors file; only safetensors and GGUF can be read"
        )
    return files


def _header(path: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    try:
        with safe_open(path, "numpy") as file:
            for name in file.offset_keys():
                yield name, tuple(file.get_slice(name).get_shape())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); copy the file again") from error
