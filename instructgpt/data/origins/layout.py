"""Finds the splits of a data set among the names of its files.

A set has configurations, most have one, and these have splits. They stand in the
metadata of its page, or else in the names: data/SPLIT-00000-of-00002.parquet,
CONFIG/SPLIT-..., SPLIT.jsonl, CONFIG/SPLIT/0000.parquet.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from instructgpt.data.origins.tables import SUFFIXES, suffix_of
from instructgpt.errors import UserError

_SHARD = re.compile(r"(.+?)-\d{5}-of-\d{5}")
_KEYWORDS = {
    "train": "train",
    "training": "train",
    "validation": "valid",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
}
_NO_DATA = re.compile(r"(dataset_infos?|dataset_dict|state|config|package|tokenizer.*)")
Splits = dict[str, list[str]]


class Chosen(NamedTuple):
    """A file of a set, and the split of ours that it belongs to, if its name tells."""

    name: str
    split: str | None


def choose(
    names: Iterable[str],
    wanted: str,
    *,
    what: str,
    metadata: Sequence[Mapping[str, Any]] = (),
) -> list[Chosen]:
    """The files of the wanted split, or of all usual splits, in the order of names.

    Args:
      names: paths of the set's files, with "/".
      wanted: "SPLIT", "CONFIG/SPLIT", "CONFIG", or "" for the default configuration's
        train, valid and test.
      what: the set, for messages, as the user gave it without the split.
      metadata: `configs` of the set's page on the hub.

    Raises:
      UserError: there is no such split, no table at all, or a choice is to be made.
    """
    names = sorted(names)
    configs = _declared(names, metadata) or _by_name(names)
    if not configs:
        found = ", ".join(names[:8]) or "nothing"
        raise UserError(
            f"{what}: holds no file that ends in {', '.join(SUFFIXES)} (but {found});"
            " give another one, or download and convert it."
        )
    config, split = _parts(configs, wanted, what)
    splits = configs[config]
    if split:
        return [Chosen(name, _ours(split)) for name in splits[split]]
    usual = {name: _KEYWORDS[name] for name in splits if name in _KEYWORDS}
    if len(splits) == 1 and not usual:
        usual = dict.fromkeys(splits, "")
    if not usual or ("train" not in usual.values() and len(usual) < len(splits)):
        raise _choice(f"{what}: has the splits", sorted(splits), what, config)
    return [
        Chosen(name, ours or None)
        for split, ours in usual.items()
        for name in splits[split]
    ]


def _parts(configs: dict[str, Splits], wanted: str, what: str) -> tuple[str, str]:
    """The configuration and the split that are wanted; a split may be ""."""
    if wanted in configs and wanted:
        return wanted, ""
    config, _, split = wanted.rpartition("/")
    if not config:
        config = next((c for c in ("", "default") if c in configs), "")
    if config not in configs and len(configs) == 1 and not wanted.rpartition("/")[0]:
        (config,) = configs
    if config not in configs:
        raise _choice(f"{what}: has the configurations", sorted(configs), what, "")
    if split and split not in configs[config]:
        found = sorted(configs[config])
        raise _choice(f"{what}: no split {split!r}, but", found, what, config)
    return config, split


def _choice(problem: str, found: list[str], what: str, config: str) -> UserError:
    inside = f"{config}/" if config not in ("", "default") else ""
    some = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    return UserError(f"{problem} {some}; choose one, as in {what}:{inside}{found[0]}.")


def _declared(
    names: list[str], metadata: Sequence[Mapping[str, Any]]
) -> dict[str, Splits]:
    """Configurations by name that the metadata declare; the default is also ""."""
    configs: dict[str, Splits] = {}
    for entry in metadata:
        splits: Splits = {}
        for split, pattern in _patterns(entry.get("data_files")):
            folder = str(entry.get("data_dir", "")).strip("/")
            whole = _regex(f"{folder}/{pattern}" if folder else pattern)
            splits.setdefault(split, []).extend(
                n for n in names if whole.fullmatch(n) and suffix_of(n) in SUFFIXES
            )
        splits = {split: found for split, found in splits.items() if found}
        if splits:
            name = str(entry.get("config_name", "default"))
            configs[name] = splits
            if entry.get("default") or len(metadata) == 1:
                configs[""] = splits
    if configs and not {"", "default"} & set(configs):
        configs[""] = next(iter(configs.values()))
    return configs


def _patterns(data_files: Any) -> list[tuple[str, str]]:
    """(split, pattern) of all that `data_files` declares, in any of its forms."""
    if isinstance(data_files, str):
        return [("train", data_files.removeprefix("./"))]
    pairs: list[tuple[str, str]] = []
    for entry in data_files if isinstance(data_files, list) else []:
        if not isinstance(entry, Mapping):
            pairs += _patterns(str(entry))
            continue
        paths = entry.get("path", [])
        for path in [paths] if isinstance(paths, str) else paths:
            split = str(entry.get("split", "train"))
            pairs.append((split, str(path).removeprefix("./")))
    return pairs


def _regex(pattern: str) -> re.Pattern[str]:
    """A pattern of file names: "*" and "?" stop at "/", "**" does not."""
    parts = re.split(r"(\*\*/?|\*|\?)", pattern)
    meanings = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meanings.get(p) or re.escape(p) for p in parts))


def _by_name(names: list[str]) -> dict[str, Splits]:
    """Configurations by folder ("" for none and for data/), with their splits."""
    kinds: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in names:
        path = PurePosixPath(name)
        stem = path.name.split(".")[0]
        hidden = any(part.startswith(".") for part in path.parts)
        if suffix_of(name) in SUFFIXES and not hidden and not _NO_DATA.fullmatch(stem):
            kinds.setdefault(_place(path, stem), {}).setdefault(
                suffix_of(name), []
            ).append(name)
    configs: dict[str, Splits] = {}
    for (config, split), by_suffix in kinds.items():
        suffix = min(by_suffix, key=SUFFIXES.index)  # copies in other kinds are left
        configs.setdefault(config, {})[split] = by_suffix[suffix]
    return configs


def _place(path: PurePosixPath, stem: str) -> tuple[str, str]:
    """The configuration and the split that a file's name tells."""
    folders = list(path.parent.parts)
    shard = _SHARD.match(stem)
    if shard:
        split = shard[1]
    elif _ours(stem):
        split = stem
    elif folders and _ours(folders[-1]):
        split = folders.pop()
    else:
        words = re.split(r"[^a-z]+", stem.lower())
        split = next((word for word in words if word in _KEYWORDS), "train")
    if folders and folders[0] == "data":
        folders = folders[1:]
    return "/".join(folders), split


def _ours(split: str) -> str | None:
    """Our split for one of any name, such as "train_sft"; None if the name is odd."""
    first = re.split(r"[^a-z]", split.lower())[0]
    return _KEYWORDS.get(first)
