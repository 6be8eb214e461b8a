"""All sets of a run by name: the miniature world, or a folder of your own JSONL.

The sets are written once through TFDS as ArrayRecord under `dir`, and the
tokenizer beside them; later runs open them again.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from instructgpt.data.documents import document_tokens
from instructgpt.data.records import FIELDS, SPLITS
from instructgpt.data.sources import (
    Records,
    build,
    build_jsonl,
    file_hash,
    has_split,
    is_built,
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

# What the world makes.
KINDS = ("documents", "demonstrations", "prompts", "rm_prompts")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the sets are, how they come to be, and how long rows may be."""

    dir: FolderPath  # holds the sets and the tokenizer
    # Tokens of a prompt with its template; longer ones are left out.
    max_prompt: PositiveInt
    max_response: PositiveInt  # tokens of a response with its EOS
    # A folder with KIND.SPLIT.jsonl files; "" is the world.
    jsonl: str = ""
    # A tokenizer's file, or a folder with the files of one; "" is what lies in the
    # folder of the JSONL, or the world's own.
    tokenizer: str = ""
    template: str = "plain"  # how prompts are put to a model, see data/templates.py
    world_seed: NonNegativeInt = 0
    vocab_size: PositiveInt = 1024  # of the tokenizer trained on the world's documents
    # Records of the world: train, valid, test.
    documents: tuple[NonNegativeInt, ...] = (0, 0, 0)
    demonstrations: tuple[NonNegativeInt, ...] = (0, 0, 0)
    # Prompts of PPO and of the comparison of models; those whose answers are ranked.
    prompts: tuple[NonNegativeInt, ...] = (0, 0, 0)
    rm_prompts: tuple[NonNegativeInt, ...] = (0, 0, 0)

    def __post_init__(self):
        for kind in KINDS:
            sizes = getattr(self, kind)
            if len(sizes) != len(SPLITS):
                raise UserError(
                    f"config.data.{kind}={sizes}: give three numbers, of {SPLITS}"
                )


@dataclasses.dataclass(frozen=True)
class Datasets:
    """Opened sets."""

    names: dict[str, str]  # of each kind's set
    # What tells the records from others: of each file of one's own, or of the world.
    fingerprints: dict[str, str]
    dir: Path
    prompt_format: PromptFormat
    world: World | None  # what judges and ranks, if the data is the world's

    @property
    def tokenizer(self) -> Tokenizer:
        """The format's."""
        return self.prompt_format.tokenizer

    @property
    def few_shot(self) -> Callable[[str], str] | None:
        """Puts solved examples before a prompt; None where the data have none."""
        return None if self.world is None else self.world.format_prompted

    @property
    def held_out(self) -> dict[str, str]:
        """The fingerprints of what no model may be trained on."""
        train = ".train.jsonl"
        return {k: v for k, v in self.fingerprints.items() if not k.endswith(train)}

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
        """Whether there is such a split."""
        return kind in self.names and has_split(kind, self.names[kind], self.dir, split)

    def tokens(self, split: str) -> np.ndarray:
        """The documents of a split as one long array of tokens."""
        records = self.source("documents", split)
        with one_at_a_time(self.dir / LOCK):
            return document_tokens(records, self.tokenizer)


def open_datasets(config: DataConfig, *, log: Callable[[str], None]) -> Datasets:
    """Opens the sets, and makes what is missing.

    Raises:
      UserError: a file is missing or bad.
    """
    directory = Path(config.dir)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(directory / LOCK) as alone:
        if alone:
            delete_partial(directory.rglob("*"))
        return _from_files(config, directory) if config.jsonl else _world(config, log)


def open_prompt_format(config: DataConfig) -> PromptFormat:
    """The tokenizer and template of data that a stage has opened before.

    Raises:
      UserError: the tokenizer is not where the config says, or is damaged.
    """
    if config.tokenizer or config.jsonl:
        return _prompt_format(config, Path(config.jsonl))
    path = _world_tokenizer(config)
    if path.exists():
        _check_noted(path)
    return _prompt_format(config, path)


def _world_name(config: DataConfig) -> str:
    """What the sets of the world are called; their sizes are part of it."""
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
    """Raises UserError if the world's tokenizer is not the one that was made."""
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


def _from_files(config: DataConfig, directory: Path) -> Datasets:
    folder = Path(config.jsonl)
    if not folder.is_dir():
        raise UserError(f"config.data.jsonl={config.jsonl}: no such folder")
    names: dict[str, str] = {}
    given: dict[str, str] = {}
    name = Path(os.path.abspath(folder)).name  # of "." and ".." too
    for kind in FIELDS:
        files = {
            split: folder / f"{kind}.{split}.jsonl"
            for split in SPLITS
            if (folder / f"{kind}.{split}.jsonl").exists()
        }
        if files:
            names[kind] = build_jsonl(kind, name, directory, files)
            given |= {path.name: file_hash([path]) for path in files.values()}
    if not names:
        raise UserError(
            f"config.data.jsonl={config.jsonl}: holds no file like "
            "demonstrations.train.jsonl"
        )
    return Datasets(names, given, directory, _prompt_format(config, folder), None)
