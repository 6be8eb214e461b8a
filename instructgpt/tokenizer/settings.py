"""What lies beside a tokenizer: its control tokens, added ones, and BOS or not.

Read as transformers reads it: special_tokens_map.json overrules tokenizer_config.json,
unless that lists `added_tokens_decoder`, which came later and makes the map obsolete.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from instructgpt.errors import UserError
from instructgpt.reading import describe, read_object

MAX_IDS = 1 << 24  # a hundred times as many as any tokenizer has
CONFIG, MAP, ADDED = (
    *("tokenizer_config.json", "special_tokens_map.json"),
    "added_tokens.json",
)
_DECODER = "added_tokens_decoder"
# Classes that put BOS before every text unless their settings say otherwise.
_WITH_BOS = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")


class AddedToken(NamedTuple):
    """A token that a tokenizer has besides those of its model."""

    content: str
    id: int
    control: bool  # else text spells it
    where: str  # file and key, for messages


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the files beside a tokenizer say; None where they say nothing."""

    eos: str | None = None
    bos: str | None = None
    pad: str | None = None
    add_bos: bool | None = None
    class_adds_bos: bool = False  # what the class does where `add_bos` is None
    added: tuple[AddedToken, ...] = ()  # by id
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def source(self, role: str) -> str:
        """File and key that name a control token: role "eos", "bos" or "pad"."""
        return self.sources[f"{role}_token"]


def read_settings(folder: Path) -> Settings:
    """Reads tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    Args:
      folder: Holds any or none of them.

    Raises:
      UserError: one is damaged, or a key has a value of another kind.
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
    """A token's text, from its text or an object that holds it."""
    text = token.get("content") if isinstance(token, dict) else token
    if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(
            f"{where} is {describe(token)}, not the text of a token; correct it"
        )
    return text


def check_id(number: Any, where: str) -> int:
    """A token's id, or one line that says which file gives a number that is none.

    Args:
      number: From a file: a whole number, or its decimal text.
      where: File and token.

    Raises:
      UserError: it is no id.
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
        # transformers makes a control token of each that has a role, too.
        yield AddedToken(
            content,
            check_id(number, f"{where}: {content!r}"),
            control or content in roles,
            where,
        )


def _from_added(tokens: Mapping[str, Any], path: Path | None) -> Iterator[AddedToken]:
    """The file does not say which are control tokens: in practice, marks of a chat."""
    for content, number in tokens.items():
        where = str(path)
        content = _content(content, f"{where}: a key")
        yield AddedToken(
            content, check_id(number, f"{where}: {content!r}"), True, where
        )
