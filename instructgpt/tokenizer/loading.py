"""Loads a tokenizer from a file, or from a folder like those of public models."""

import os
import shutil
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from instructgpt.errors import UserError
from instructgpt.reading import check_content
from instructgpt.tokenizer.bpe import BPETokenizer
from instructgpt.tokenizer.interface import Tokenizer
from instructgpt.tokenizer.pieces import SentencePieceTokenizer
from instructgpt.tokenizer.settings import (
    ADDED,
    CONFIG,
    MAP,
    Settings,
    read_settings,
)

# File names of GPT-2's vocabulary and merges in transformers and by OpenAI.
_MERGES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
_END_OF_TEXT = "<|endoftext|>"
# Names of all files of a public tokenizer.
_FILES = (
    *("tokenizer.json", "tokenizer.model", CONFIG, MAP, ADDED, "chat_template.jinja"),
    *(name for pair in _MERGES for name in pair),
)


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      path: a SentencePiece .model, a tokenizer.json, or a folder that holds one of
        these or GPT-2's vocabulary and merges. tokenizer_config.json beside it names
        the control tokens and says whether BOS precedes every text.

    Raises:
      UserError: a file is missing or damaged, or names no EOS.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path)
    if path.suffix == ".json":
        return _from_json(path)
    return _from_model(path, Settings())


def copy_tokenizer(source: str | os.PathLike[str], folder: Path) -> bool:
    """Copies a tokenizer's files, from a folder or as one file, into `folder`.

    Returns:
      Whether there were any files.

    Raises:
      UserError: a file cannot be read or is a Git LFS pointer.
    """
    source = Path(source)
    if source.is_file():
        found = {f"tokenizer{source.suffix}": source}
    else:
        found = {n: source / n for n in _FILES if (source / n).exists()}
    if found:
        folder.mkdir(parents=True, exist_ok=True)
    for name, path in found.items():
        check_content(path)
        shutil.copyfile(path, folder / name)
    return bool(found)


def _from_folder(folder: Path) -> Tokenizer:
    if (folder / "tokenizer.json").exists():
        return _from_json(folder / "tokenizer.json")
    if (folder / "tokenizer.model").exists():
        return _from_model(folder / "tokenizer.model", read_settings(folder))
    for vocabulary, merges in _MERGES:
        if (folder / vocabulary).exists():
            return _from_merges(folder / vocabulary, folder / merges)
    raise UserError(
        f"{folder}: no tokenizer; it needs tokenizer.json, tokenizer.model, or"
        " vocab.json with merges.txt"
    )


def _from_model(path: Path, settings: Settings) -> Tokenizer:
    check_content(path)
    return SentencePieceTokenizer(
        path.read_bytes(),
        name=str(path),
        settings=settings,
    )


def _from_json(path: Path) -> Tokenizer:
    pipeline = _pipeline(path)
    settings = read_settings(path.parent)
    eos = settings.eos
    if eos is None and pipeline.token_to_id(_END_OF_TEXT) is not None:
        eos = _END_OF_TEXT
    if eos is None:
        raise UserError(
            f"{path}: nothing says which token ends a text; put tokenizer_config.json"
            ' with "eos_token" beside it'
        )
    return _byte_pairs(pipeline, settings, eos=eos, bos=settings.bos, path=path)


def _byte_pairs(
    pipeline: tokenizers.Tokenizer,
    settings: Settings,
    *,
    eos: str,
    bos: str | None,
    path: Path,
) -> Tokenizer:
    return BPETokenizer(
        pipeline,
        eos=eos,
        bos=bos,
        pad=settings.pad,
        add_bos=settings.add_bos,
        added=settings.added,
        name=str(path),
    )


def _pipeline(path: Path) -> tokenizers.Tokenizer:
    check_content(path)
    try:
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises no narrower type
        raise UserError(
            f"{path}: not a tokenizer.json, or a damaged one ({error}); copy it again."
        ) from error


def _from_merges(vocabulary: Path, merges: Path) -> Tokenizer:
    if not merges.exists():
        raise UserError(
            f"{merges}: missing, but {vocabulary.name} is there; copy both."
        )
    for path in (vocabulary, merges):
        check_content(path)
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises no narrower type
        raise UserError(
            f"{vocabulary}: cannot be read with {merges.name} ({error}); copy both"
            " again."
        ) from error
    pipeline = tokenizers.Tokenizer(model)
    pipeline.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pipeline.decoder = decoders.ByteLevel()
    settings = read_settings(vocabulary.parent)
    eos = settings.eos or _END_OF_TEXT
    return _byte_pairs(
        pipeline, settings, eos=eos, bos=settings.bos or eos, path=vocabulary
    )
