"""Reads the rows of a TensorFlow Datasets set, by random access and without TensorFlow.

    tfds:NAME[/CONFIG][:VERSION][:SPLIT]

The set is read where TFDS keeps it (TFDS_DATA_DIR, or ~/tensorflow_datasets), and is
prepared there first if TFDS can do so.
"""

import contextlib
import io
import os
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from instructgpt.data.forms.rows import Line
from instructgpt.data.origins.download import first_line
from instructgpt.data.origins.layout import choose
from instructgpt.errors import UserError

_ADDRESS = re.compile(r"([^\s:]+(?::\d[\w.*]*)?)(?::(\S+))?")


class TFDSSplit(NamedTuple):
    """One split of a set, and our split that it belongs to, if its name tells."""

    source: Any
    name: str
    split: str | None
    paths: tuple[Path, ...]  # the files that hold it

    def lines(self, origin: str) -> Generator[Line, None, None]:
        """Yields the rows; `origin` names the set in messages."""
        features = self.source.dataset_info.features
        for index in range(len(self.source)):
            row = _plain(self.source[index], features)
            yield Line(f"{origin}[{index}]", f"{self.name}:{index}", row)


class TFDSSet(NamedTuple):
    """A prepared set: its name with its version, what its page says, its splits."""

    full_name: str
    licence: str
    homepage: str
    splits: list[TFDSSplit]


def find_tfds_set(address: str) -> TFDSSet:
    """Opens a set, which TFDS prepares if it is missing.

    Raises:
      UserError: there is no such set or split, it cannot be prepared, or it is not
        stored for random access.
    """
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise UserError(f"tfds:{address}: give tfds:NAME[/CONFIG][:VERSION][:SPLIT].")
    name, wanted = parts[1], parts[2] or ""
    tfds.disable_progress_bar()
    folder = os.environ.get("TFDS_DATA_DIR") or None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            sources = tfds.data_source(name, data_dir=folder)
    except Exception as error:  # TFDS raises many types of exceptions
        raise UserError(
            f"tfds:{name}: {first_line(error)}; correct the name, or prepare the set"
            " with tfds build --file_format=array_record, and say where it lies by"
            " TFDS_DATA_DIR."
        ) from error
    if not sources:
        raise UserError(f"tfds:{name}: has no splits; give another set.")
    chosen = choose(
        [f"{split}.parquet" for split in sources], wanted, what=f"tfds:{name}"
    )
    info = next(iter(sources.values())).dataset_info
    splits = [
        TFDSSplit(
            sources[split],
            split,
            ours,
            tuple(Path(file) for file in info.splits[split].filepaths),
        )
        for split, ours in ((file.removesuffix(".parquet"), s) for file, s in chosen)
    ]
    licence = info.redistribution_info.license if info.redistribution_info else ""
    return TFDSSet(
        info.full_name, licence or "not named by TFDS", info.homepage or "", splits
    )


def _plain(value: Any, feature: Any) -> Any:
    """A decoded value as text, numbers, lists and dicts.

    TFDS keeps a list of objects as an object of lists, which is turned back.
    """
    if isinstance(value, dict):
        inner = getattr(feature, "feature", feature)
        fields = {k: _plain(v, _inner(inner, k)) for k, v in value.items()}
        if isinstance(feature, tfds.features.Sequence):
            rows = zip(*fields.values(), strict=True)
            return [dict(zip(fields, row, strict=True)) for row in rows]
        return fields
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list | np.ndarray):
        return [_plain(item, None) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _inner(feature: Any, name: str) -> Any:
    return feature[name] if isinstance(feature, tfds.features.FeaturesDict) else None
