"""Anthropic's helpful and harmless dialogues: one chosen, one rejected.

A line has two texts that should differ only in the assistant's last turn:

    {"chosen": "\\n\\nHuman: ...\\n\\nAssistant: ...", "rejected": "..."}

Rows of another shape are left out and counted: two turns of one speaker in a row, texts
that differ earlier, an empty turn.

Bai et al. 2022, https://arxiv.org/abs/2204.05862.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.readers.json_rows import Row, json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")


class _Dialogue(NamedTuple):
    history: list[str]  # earlier turns, an even number
    prompt: str
    response: str


class _OddShapeError(Exception):
    """Raised for a row that cannot be used; the message is the counted reason."""


def comparisons(path: Path, *, report: Report) -> Iterator[Record]:
    """Yields the two last turns of the assistant, the chosen one first."""
    for row in json_rows(path):
        try:
            yield _comparison(row)
        except _OddShapeError as error:
            report.skip(str(error))


def demonstrations(path: Path, *, report: Report) -> Iterator[Record]:
    """Yields the last turn of the assistant in the chosen dialogue."""
    for row in json_rows(path):
        try:
            yield {"id": row.id, **_parse(row.text("chosen"))._asdict()}
        except _OddShapeError as error:
            report.skip(str(error))


def _comparison(row: Row) -> Record:
    chosen, rejected = (_parse(row.text(name)) for name in ("chosen", "rejected"))
    if chosen[:2] != rejected[:2]:
        raise _OddShapeError("dialogues that part before the last turn")
    if chosen.response == rejected.response:
        raise _OddShapeError("identical responses")
    return {
        "id": row.id,
        "history": chosen.history,
        "prompt": chosen.prompt,
        "responses": [chosen.response, rejected.response],
        "ranks": [1, 2],
    }


def _parse(text: str) -> _Dialogue:
    before, *parts = _SPEAKER.split(text)
    speakers, turns = parts[::2], [turn.strip() for turn in parts[1::2]]
    if before.strip() or not turns:
        raise _OddShapeError("dialogue that does not open with a speaker")
    if speakers != ["Human", "Assistant"] * (len(turns) // 2):
        raise _OddShapeError("dialogue in which the speakers do not take turns")
    *history, prompt, response = turns
    if not response:
        raise _OddShapeError("empty response")
    if not all([*history, prompt]):
        raise _OddShapeError("empty turn")
    return _Dialogue(history, prompt, response)
