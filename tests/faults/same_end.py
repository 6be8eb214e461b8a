"""Compares the ends of two runs: files, bits and numbers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorflow_datasets as tfds
from orbax.checkpoint import v1 as ocp

from instructgpt.metrics import read_metrics

# What tells when a run was made and how fast, which no two runs share.
CLOCKS = ("time", "tokens_per_second", "input_share")
_TIMED_FILES = ("minutes.json", "report.html", "files.json", ".lock")
_EVENTS = "events.out.tfevents"
# A cache of tokens is named after the bytes of its records, and the same records are
# not the same bytes each time: their fields are in any order.
_TOKENS = re.compile(r"(?<=/tokens-)\w+(?=-)")


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds: parameters, optimiser, iterator, key."""
    # Onto one device: those that saved it may be another process's.
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    layout = {
        name: tree
        and jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), tree
        )
        for name, tree in ocp.checkpointables_metadata(folder).metadata.items()
    }
    found = ocp.load_checkpointables(folder, layout)
    for checksums in ("arrays", "checksum", "metrics"):
        found["meta"].pop(checksums, None)
    return {"step": folder.name, **found}


def curve(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl, without the clocks."""
    return [
        {k: v for k, v in row.items() if k not in CLOCKS} for row in read_metrics(path)
    ]


def differences(expected: Path, actual: Path) -> list[str]:
    """What of two workdirs is not the same, a line each."""
    return list(_differences(expected, actual))


def _differences(expected: Path, actual: Path) -> Iterator[str]:
    have, want = _files(actual), _files(expected)
    yield from (f"{name} is missing" for name in sorted(want.keys() - have.keys()))
    yield from (f"{name} is left over" for name in sorted(have.keys() - want.keys()))
    for name in sorted(have.keys() & want.keys()):
        try:
            alike = _alike(want[name], have[name])
        except Exception:  # a damaged file is read in one of many ways
            alike = False
        if not alike:
            yield f"{name} differs"


def _files(workdir: Path) -> dict[str, Path]:
    """By name; a checkpoint is one."""
    paths = {}
    for path in workdir.rglob("*"):
        parts = path.relative_to(workdir).parts
        if "checkpoints" in parts[:-1]:
            name = "/".join(parts[: parts.index("checkpoints") + 2])
            paths[name] = workdir / name
        elif path.is_file() and not path.name.startswith(_EVENTS):
            paths[named("/".join(parts))] = path
    return paths


def named(file: str) -> str:
    """A file's name in `differences`."""
    return _TOKENS.sub("", file)


def _alike(expected: Path, actual: Path) -> bool:
    if expected.is_dir():
        return _same_arrays(load_checkpoint(expected), load_checkpoint(actual))
    if expected.name == "metrics.jsonl":
        return curve(expected) == curve(actual)
    if expected.name in _TIMED_FILES:
        return True
    if ".array_record-" in expected.name:
        return _records(expected) == _records(actual)
    if expected.suffix == ".json":
        return _untimed(expected) == _untimed(actual)
    return expected.read_bytes() == actual.read_bytes()


def _records(path: Path) -> str:
    kind, split = path.name.partition(".")[0].rsplit("-", 1)
    source = tfds.builder_from_directory(path.parent).as_data_source(split)
    return kind + "".join(repr(sorted(record.items())) for record in source)


def _untimed(path: Path) -> Any:
    value = json.loads(path.read_text(encoding="utf-8"))
    if path.name == "finished.json":  # the checksums of files that hold clocks
        return value["identity"], value["steps"], sorted(value["files"])
    if path.name == "results.json":
        value.pop("meta", None)
    return value


def _same_arrays(expected: Any, actual: Any) -> bool:
    if jax.tree.structure(expected) != jax.tree.structure(actual):
        return False
    pairs = zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True)
    return all(np.array_equal(a, b, equal_nan=_is_float(a)) for a, b in pairs)


def _is_float(value: Any) -> bool:
    return np.issubdtype(np.asarray(value).dtype, np.floating)
