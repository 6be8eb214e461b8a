"""Settings in the files beside a tokenizer: control and added tokens, use of BOS.

They are read like in transformers: special_tokens_map.json overrules
tokenizer_config.json, unless the latter has the newer key `added_tokens_decoder`.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.reading import describe, read_object

MAX_IDS = 1 << 24  # far more than any tokenizer has
CONFIG, MAP, ADDED = (
    *("tokenizer_config.json", "special_tokens_map.json"),
    "added_tokens.json",
)
_DECODER = "added_tokens_decoder"
# Classes that add BOS before every text unless their settings say otherwise.
_WITH_BOS = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")


class AddedToken(NamedTuple):
    """A token that is added to those of a tokenizer's model."""

    content: str
    id: int
    control: bool  # whether it is a control token, to which no text encodes
    where: str  # file and key, for messages


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings in the files beside a tokenizer; None means not set."""

    eos: str | None = None
    bos: str | None = None
    pad: str | None = None
    add_bos: bool | None = None
    class_adds_bos: bool = False  # the class's default, used if `add_bos` is None
    added: tuple[AddedToken, ...] = ()  # in the order of ids
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def source(self, role: str) -> str:
        """The file and key that name a control token; role is "eos", "bos" or "pad"."""
        return self.sources[f"{role}_token"]


def read_settings(folder: Path) -> Settings:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Args:
      folder: The folder; each file is optional.

    Raises:
      UserError: a file is damaged, or a key has a value of a wrong type.
    """
    files = {n: folder / n for n in (CONFIG, MAP, ADDED) if (folder / n).exists()}
    content = {name: read_object(path) for name, path in files.items()}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    modern = content.get(CONFIG, {}).get(_DECODER) is not None
    for name in (CONFIG,) if modern else (CONFIG, MAP):
        for key, value in content.get(name, {}).items():
            if value is not None:
                values[key] = value
                sources[key] = f"{files[name]}: {key}"
    roles = {
        role: _content(values[f"{role}_token"], sources[f"{role}_token"])
        for role in ("eos", "bos", "pad")
        if f"{role}_token" in values
    }
    add_bos = values.get("add_bos_token")
    if not isinstance(add_bos, bool | None):
        raise UserError(
            f"{sources['add_bos_token']} is {describe(add_bos)}; make it true or false"
        )
    if modern:
        added = _from_decoder(values[_DECODER], sources[_DECODER], roles.values())
    else:
        added = _from_added(content.get(ADDED, {}), files.get(ADDED))
    named = str(values.get("tokenizer_class", "")).removesuffix("Fast")
    return Settings(
        **roles,
        add_bos=add_bos,
        class_adds_bos=named in _WITH_BOS,
        added=tuple(sorted(added, key=lambda token: token.id)),
        sources=sources,
    )


def _content(token: Any, where: str) -> str:
    """A token's text, given as text or as an object that holds it."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(
            f"{where} is {describe(token)}, not the text of a token; correct it"
        )
    return text


def check_id(number: Any, where: str) -> int:
    """Checks a token's id from a file.

    Args:
      number: A whole number, or its decimal text.
      where: The file and the token, for messages.

    Raises:
      UserError: the number is not an id.
    """
    text = str(number)
    if isinstance(number, int | str) and text.isascii() and text.isdecimal():
        number = int(text) if len(text) < 10 else MAX_IDS
        if number < MAX_IDS:
            return number
    raise UserError(
        f"{where} has the id {describe(text)}; ids are whole numbers from 0 to "
        f"{MAX_IDS - 1:,}, correct it or copy the file again"
    )


def _from_decoder(
    tokens: Any, where: str, roles: Iterable[str]
) -> Iterator[AddedToken]:
    if not isinstance(tokens, dict):
        raise UserError(f"{where} is {describe(tokens)}, not an object; correct it")
    for number, token in tokens.items():
        content = _content(token, f"{where}.{number}")
        control = isinstance(token, dict) and bool(token.get("special"))
        # As in transformers, every token with a role is a control token.
        yield AddedToken(
            content,
            check_id(number, f"{where}: {content!r}"),
            control or content in roles,
            where,
        )


def _from_added(tokens: Mapping[str, Any], path: Path | None) -> Iterator[AddedToken]:
    """Tokens of added_tokens.json; all are control tokens, in practice chat marks."""
    for content, number in tokens.items():
        where = str(path)
        content = _content(content, f"{where}: a key")
        yield AddedToken(
            content, check_id(number, f"{where}: {content!r}"), True, where
        )
