"""Writes the tokenizer inside a GGUF file as the files of a public folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import decoders, models, normalizers, pre_tokenizers

from instructgpt.errors import UserError
from instructgpt.tokenizer.settings import CONFIG

# Types of tokens, the same numbers as SentencePiece's.
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Metadata keys that each kind of tokenizer needs.
_PARTS = {
    "gpt2": {"tokens": str, "token_type": int, "merges": str},
    "llama": {"tokens": str, "token_type": int, "scores": float},
}
_ROLES = {"eos": "eos", "bos": "bos", "pad": "padding"}  # role -> name in GGUF keys
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


def _split(digits: str) -> list[Any]:
    pattern = tokenizers.Regex(f"{_ENDINGS}|{_WORDS}|{digits}|{_REST}")
    return [
        pre_tokenizers.Split(pattern, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def _gpt2() -> list[Any]:
    return [pre_tokenizers.ByteLevel(add_prefix_space=False)]


# tokenizer.ggml.pre -> pre-tokenisers that split text before byte pairs are merged.
_CUTS = {
    "gpt-2": _gpt2,
    "olmo": _gpt2,
    "mpt": _gpt2,  # also Pythia's
    "smollm": lambda: [pre_tokenizers.Digits(individual_digits=True), *_gpt2()],
    "llama-bpe": lambda: _split(r"\p{N}{1,3}"),
    "qwen2": lambda: _split(r"\p{N}"),
    "deepseek-r1-qwen": lambda: _split(r"\p{N}"),
}
_QWEN = ("qwen2", "deepseek-r1-qwen")
_PRE = "tokenizer.ggml.pre"


class UnknownTokenizerError(UserError):
    """Raised for a complete tokenizer of a kind that is not supported."""


def write_gguf_tokenizer(
    metadata: Mapping[str, Any], folder: Path, *, where: str
) -> str:
    """Writes tokenizer.json or tokenizer.model, and tokenizer_config.json.

    Args:
      metadata: The GGUF file's metadata.
      folder: Folder for the files; it is created if it is missing.
      where: Name of the file, at the start of error messages.

    Returns:
      A note for the user about the tokenizer; "" if there is nothing to say.

    Raises:
      UnknownTokenizerError: the file has no tokenizer, or one of an unknown kind.
      UserError: the tokenizer is incomplete or damaged.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if not isinstance(kind, str) or kind not in _PARTS:
        raise UnknownTokenizerError(
            f"{where}: tokenizer {kind!r} is not supported; known: {', '.join(_PARTS)}"
        )
    try:
        _check(metadata, kind, where)
        if kind == "gpt2":
            name = "tokenizer.json"
            content = _byte_level(metadata, where).to_str(pretty=True).encode()
        else:
            name, content = "tokenizer.model", _sentencepiece(metadata)
        settings = _settings(metadata, kind)
    except UserError:
        raise
    except Exception as error:  # three libraries fail on values of wrong types
        raise UserError(
            f"{where}: the tokenizer is damaged ({error}); download the file again"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2))
    if kind == "gpt2" and _PRE not in metadata:
        return (
            f"{where} does not tell how text is cut (no {_PRE}); it is cut as GPT-2 "
            "does, and where the model was trained otherwise, give its tokenizer as "
            "--config.data.tokenizer"
        )
    return ""


def _check(metadata: Mapping[str, Any], kind: str, where: str) -> None:
    """Raises UserError unless all parts exist and fit each other."""
    lengths = {}
    for part, item in _PARTS[kind].items():
        key = f"tokenizer.ggml.{part}"
        if key not in metadata:
            raise UserError(
                f"{where}: the tokenizer has no {part}; download the file again"
            )
        if not isinstance(metadata[key], list):
            raise UserError(f"{where}: {key} is no list; download the file again")
        for value in metadata[key]:
            if type(value) is not item:
                raise UserError(f"{where}: {key} holds {value!r}; download it again")
        lengths[part] = len(metadata[key])
    size = lengths["tokens"]
    if {n for part, n in lengths.items() if part != "merges"} != {size}:
        raise UserError(
            f"{where}: the tokenizer's parts differ in length ({lengths}); download "
            "the file again"
        )
    for switch in ("add_bos_token", "add_space_prefix"):
        key = f"tokenizer.ggml.{switch}"
        if not isinstance(metadata.get(key, True), bool):
            raise UserError(
                f"{where}: {key}={metadata[key]!r} is neither true nor false; download "
                "the file again"
            )
    for role in _ROLES.values():
        key = f"tokenizer.ggml.{role}_token_id"
        number = metadata.get(key, 0)
        if not isinstance(number, int) or not 0 <= number < size:
            raise UserError(
                f"{where}: {key}={number!r} is none of {size} tokens; download the "
                "file again"
            )


def _settings(metadata: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The content of tokenizer_config.json."""
    tokens = metadata["tokenizer.ggml.tokens"]
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for role, key in _ROLES.items():
        token = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if token is not None:
            settings[f"{role}_token"] = tokens[token]
    # Most Llama 3 files do not say it either.
    settings["add_bos_token"] = metadata.get(
        "tokenizer.ggml.add_bos_token",
        kind == "llama" or metadata.get(_PRE) == "llama-bpe",
    )
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        settings["chat_template"] = template
    return settings


def _byte_level(metadata: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    cut = metadata.get(_PRE, "gpt-2")
    if not isinstance(cut, str) or cut not in _CUTS:
        raise UnknownTokenizerError(
            f"{where}: pre-tokenizer {cut!r} is not supported; known: "
            f"{', '.join(_CUTS)}"
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata["tokenizer.ggml.token_type"]
    pairs = [tuple(pair.split(" ", 1)) for pair in metadata["tokenizer.ggml.merges"]]
    try:
        model = models.BPE(
            vocab={token: i for i, token in enumerate(tokens)},
            merges=pairs,
            ignore_merges=cut == "llama-bpe",
        )
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{where}: the tokenizer's merges do not fit its tokens ({error}); download"
            " the file again"
        ) from error
    pipeline = tokenizers.Tokenizer(model)
    if cut in _QWEN:
        pipeline.normalizer = normalizers.NFC()
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(_CUTS[cut]())
    pipeline.decoder = decoders.ByteLevel()
    pipeline.add_special_tokens(
        [t for t, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    )
    pipeline.add_tokens(
        [t for t, kind in zip(tokens, kinds, strict=True) if kind == _USER_DEFINED]
    )
    return pipeline


def _sentencepiece(metadata: Mapping[str, Any]) -> bytes:
    """A SentencePiece model of the same pieces."""
    proto: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    for token, score, kind in zip(
        metadata["tokenizer.ggml.tokens"],
        metadata["tokenizer.ggml.scores"],
        metadata["tokenizer.ggml.token_type"],
        strict=True,
    ):
        proto.pieces.add(piece=token, score=float(score), type=int(kind))
    trainer = proto.trainer_spec
    trainer.model_type = trainer.BPE
    trainer.byte_fallback = _BYTE in metadata["tokenizer.ggml.token_type"]
    trainer.unk_id = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    trainer.bos_id = metadata.get("tokenizer.ggml.bos_token_id", -1)
    trainer.eos_id = metadata.get("tokenizer.ggml.eos_token_id", -1)
    trainer.pad_id = metadata.get("tokenizer.ggml.padding_token_id", -1)
    names = {"unk": trainer.unk_id, "bos": trainer.bos_id, "eos": trainer.eos_id}
    for name, token in {**names, "pad": trainer.pad_id}.items():
        if token >= 0:
            setattr(trainer, f"{name}_piece", proto.pieces[token].piece)
    normalizer = proto.normalizer_spec
    normalizer.name = "identity"
    normalizer.add_dummy_prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    normalizer.remove_extra_whitespaces = False
    return proto.SerializeToString()
