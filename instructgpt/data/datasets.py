"""All data sets of a run: the miniature world's, or those of a folder of JSONL files.

The sets are written once through TFDS as ArrayRecord under `dir`, with the tokenizer
beside them; later runs open them.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from instructgpt.data.documents import document_tokens
from instructgpt.data.draws import check_folder, split_files
from instructgpt.data.origins.tables import SUFFIXES
from instructgpt.data.records import FIELDS, SPLITS, DistinctPrompts, Record
from instructgpt.data.sources import (
    Records,
    build,
    build_jsonl,
    file_hash,
    has_split,
    is_built,
    jsonl_name,
    open_source,
)
from instructgpt.data.templates import PromptFormat
from instructgpt.errors import UserError
from instructgpt.locks import LOCK, one_at_a_time
from instructgpt.manifest import MANIFEST, file_checksum, listed, note_file
from instructgpt.outputs import delete_partial, writing
from instructgpt.ranges import FolderPath, NonNegativeInt, PositiveInt
from instructgpt.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from instructgpt.world import World

# Kinds of records that the world makes.
KINDS = ("documents", "demonstrations", "prompts", "rm_prompts", "gpt_prompts")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Location and origin of the data sets, and limits of lengths."""

    dir: FolderPath  # holds the sets and the tokenizer
    # Tokens of a prompt with its template; longer ones are left out.
    max_prompt: PositiveInt
    max_response: PositiveInt  # tokens of a response with its EOS
    # A folder with KIND.SPLIT.jsonl files (or .json, .csv, .parquet); "": the miniature
    # world.
    jsonl: str = ""
    # A tokenizer's file or folder; "": the tokenizer in the folder of the JSONL files,
    # or the world's.
    tokenizer: str = ""
    template: str = "plain"  # name of a prompt template, see data/templates.py
    world_seed: NonNegativeInt = 0
    vocab_size: PositiveInt = 1024  # pieces of the world's tokenizer
    # Numbers of the world's records in train, valid and test.
    documents: tuple[NonNegativeInt, ...] = (0, 0, 0)
    demonstrations: tuple[NonNegativeInt, ...] = (0, 0, 0)
    # Prompts of PPO and of the comparison; then prompts whose answers are ranked.
    prompts: tuple[NonNegativeInt, ...] = (0, 0, 0)
    rm_prompts: tuple[NonNegativeInt, ...] = (0, 0, 0)
    # Prompts as they were sent to GPT-3, which only the comparison of models has.
    gpt_prompts: tuple[NonNegativeInt, ...] = (0, 0, 0)

    def __post_init__(self):
        for kind in KINDS:
            sizes = getattr(self, kind)
            if len(sizes) != len(SPLITS):
                raise UserError(
                    f"config.data.{kind}={sizes}: give three numbers, of {SPLITS}"
                )


@dataclasses.dataclass(frozen=True)
class Datasets:
    """The opened data sets of a run."""

    names: dict[str, str]  # kind -> name of its set
    # Fingerprint of the records: of each JSONL file, or of the world.
    fingerprints: dict[str, str]
    dir: Path
    prompt_format: PromptFormat
    world: World | None  # the world, if the data are its own; it judges and ranks

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the prompt format."""
        return self.prompt_format.tokenizer

    @property
    def few_shot(self) -> Callable[[str], str] | None:
        """The function that adds solved examples before a prompt, if there are any."""
        return None if self.world is None else self.world.format_prompted

    @property
    def held_out(self) -> dict[str, str]:
        """Fingerprints of the data that no model may be trained on."""
        names = self.fingerprints
        return {k: v for k, v in names.items() if k.split(".")[1:2] != ["train"]}

    def source(self, kind: str, split: str) -> Records:
        """Random access to the records of a split."""
        if kind not in self.names:
            raise UserError(
                f"config.data: there are no {kind}; add {kind}.{split}.jsonl to the "
                "folder, or give the miniature world some"
            )
        if not self.has(kind, split):
            raise UserError(
                f"config.data: there are no {split} {kind}; add {kind}.{split}.jsonl "
                "to the folder (prepare and curate cut it out of all records, by "
                "--valid or --split), or give the miniature world some"
            )
        return open_source(kind, self.names[kind], self.dir, split)

    def has(self, kind: str, split: str) -> bool:
        """Whether the split exists."""
        return kind in self.names and has_split(kind, self.names[kind], self.dir, split)

    def tokens(self, split: str) -> np.ndarray:
        """The documents of a split as one long array of tokens."""
        records = self.source("documents", split)
        with one_at_a_time(self.dir / LOCK):
            return document_tokens(records, self.tokenizer)


def open_datasets(config: DataConfig, *, log: Callable[[str], None]) -> Datasets:
    """Opens the data sets, and makes those that are missing.

    Raises:
      UserError: a file is missing or not valid.
    """
    directory = Path(config.dir)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(directory / LOCK) as alone:
        if alone:
            delete_partial(directory.rglob("*"))
        return (_from_files if config.jsonl else _world)(config, log)


def open_prompt_format(config: DataConfig) -> PromptFormat:
    """Reads the tokenizer and template of data that a stage has opened before.

    Raises:
      UserError: the tokenizer is not at the config's path, or is damaged.
    """
    if config.tokenizer or config.jsonl:
        return _prompt_format(config, Path(config.jsonl))
    path = _world_tokenizer(config)
    if path.exists():
        _check_noted(path)
    return _prompt_format(config, path)


def _world_name(config: DataConfig) -> str:
    """The name of the world's sets, which includes their sizes."""
    digits = "-".join("x".join(map(str, getattr(config, kind))) for kind in KINDS)
    return f"world-{config.world_seed}-{digits}"


def _world_tokenizer(config: DataConfig) -> Path:
    name = f"tokenizer-{config.vocab_size}.model"
    return Path(config.dir) / _world_name(config) / name


def _world(config: DataConfig, log: Callable[[str], None]) -> Datasets:
    directory, world = Path(config.dir), World(config.world_seed)
    sizes = {kind: getattr(config, kind) for kind in KINDS}
    name = _world_name(config)
    if not all(is_built(kind, name, directory) for kind in KINDS if any(sizes[kind])):
        for kind, splits in world.sets(sizes).items():
            if splits:
                build(kind, name, directory, splits)
    path = _world_tokenizer(config)
    if not config.tokenizer and not path.exists():
        log(f"made the miniature world (seed {config.world_seed}) in {directory}")
        texts = (r["text"] for r in open_source("documents", name, directory, "train"))
        train_tokenizer(texts, path, vocab_size=config.vocab_size)
        note_file(path)
    if not config.tokenizer:
        _check_noted(path)
    names = {kind: name for kind in KINDS if any(sizes[kind])}
    prompt_format = _prompt_format(config, path)
    made = {"world": str(config.world_seed)}
    return Datasets(names, made, directory, prompt_format, world)


def _check_noted(path: Path) -> None:
    """Raises UserError if the world's tokenizer has changed since it was made."""
    try:
        whole = listed(path.parent).get(path.name) in (None, file_checksum(path))
    except ValueError:
        whole = False
    if not whole:
        raise UserError(
            f"{path}: damaged; delete it and {path.parent / MANIFEST}, and it is made "
            "again"
        )


def _prompt_format(config: DataConfig, own: Path) -> PromptFormat:
    tokenizer = load_tokenizer(config.tokenizer or own)
    return PromptFormat(tokenizer, config.template)


def _prompts_of(
    names: Mapping[str, str], directory: Path, log: Callable[[str], None]
) -> str:
    """Builds the set of all prompts of rankings and demonstrations; gives its name."""
    # A demonstration is also the text that an answer may be compared with.
    kinds = [kind for kind in ("demonstrations", "comparisons") if kind in names]

    def prompts(split: str) -> Iterator[Record]:
        distinct = DistinctPrompts()
        for kind in kinds:
            if has_split(kind, names[kind], directory, split):
                for record in open_source(kind, names[kind], directory, split):
                    kept = {k: v for k, v in record.items() if k in FIELDS["prompts"]}
                    if distinct.is_new(kept):
                        yield {**kept, "reference": record.get("response", "")}

    name = "-".join(names[kind] for kind in kinds)
    there = {
        split: functools.partial(prompts, split)
        for split in SPLITS
        if any(has_split(kind, names[kind], directory, split) for kind in kinds)
    }
    if not is_built("prompts", name, directory):
        build("prompts", name, directory, there)
        log(
            "there are no prompts of PPO: those of the rankings and demonstrations are "
            "used; prompts.train.jsonl beside them gives others"
        )
    return name


def _from_files(config: DataConfig, log: Callable[[str], None]) -> Datasets:
    folder, directory = Path(config.jsonl), Path(config.dir)
    if not folder.is_dir():
        raise UserError(f"config.data.jsonl={config.jsonl}: no such folder")
    names: dict[str, str] = {}
    given: dict[str, str] = {}
    name = Path(os.path.abspath(folder)).name  # "." and ".." have no name of their own
    found = {kind: split_files(folder, kind) for kind in FIELDS}
    if not all(
        is_built(kind, jsonl_name(name, files), directory)
        for kind, files in found.items()
        if files
    ):
        check_folder(folder)
    for kind, files in found.items():
        if files:
            names[kind] = build_jsonl(kind, name, directory, files)
            given |= {path.name: file_hash([path]) for path in files.values()}
    if not names:
        raise UserError(
            f"config.data.jsonl={config.jsonl}: holds no file like "
            f"demonstrations.train.jsonl ({', '.join(SUFFIXES)}, also .gz or .xz)"
        )
    if "prompts" not in names and {"comparisons", "demonstrations"} & set(names):
        names["prompts"] = _prompts_of(names, directory, log)
    return Datasets(names, given, directory, _prompt_format(config, folder), None)
