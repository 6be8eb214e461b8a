"""Reads units from files: groups of records that are kept, removed or split together.

A unit is one line of the input. Most lines are one record. A line of demonstrations
may instead be a few-shot instruction, as the paper's labelers wrote them (§3.2, A.1):

    {"instruction": "Give the sentiment of a tweet.", "pairs": [["So happy", "good"],
     ["Late again", "bad"], ...], "customer": "", "category": "classification"}

Its K pairs become K demonstrations, each with the other K - 1 in its prompt.
"""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from instructgpt.data.records import (
    Line,
    Record,
    check_kind,
    check_line,
    parse_lines,
    record_lines,
)
from instructgpt.errors import UserError, shown


class Unit(NamedTuple):
    """One line of the input."""

    where: str  # "PATH:NUMBER"
    id: str
    customer: str  # "" for a unit that a labeler wrote
    text: str  # compared to find duplicates: the prompt, or the whole instruction
    records: list[Record]
    split: str = ""  # split of the file, if files are splits already


def read_units(
    path: str | os.PathLike[str], *, kind: str, split: str = ""
) -> Iterator[Unit]:
    """Yields the units of a JSONL file, in order.

    Args:
      path: file of records of one kind, one JSON object per line or a list of them.
      kind: "prompts", "demonstrations" or "comparisons".
      split: recorded in every unit.

    Raises:
      UserError: "path:line: what is wrong; what to do".
    """
    check_kind(kind)
    for line in record_lines(parse_lines(path), kind):
        if kind == "demonstrations" and _is_few_shot(line.value):
            unit = expand_few_shot(line)
        else:
            record = check_line(line, kind)
            unit = Unit(
                line.where,
                record["id"],
                record["customer"],
                prompt_text(record),
                [record],
            )
        yield unit._replace(split=split) if split else unit


def prompt_text(record: Record) -> str:
    """The earlier turns, if any, and the prompt, each on its own line."""
    history = record["history"]
    return "\n".join([*history, record["prompt"]]) if history else record["prompt"]


def response_texts(record: Record) -> list[str]:
    """The responses of a demonstration (one), a comparison (K) or a prompt (none)."""
    if "response" in record:
        return [record["response"]]
    return record.get("responses", [])


def expand_few_shot(line: Line) -> Unit:
    """Converts K pairs to K demonstrations of style "few_shot" with ids ending in "/k".

    The prompt of pair k consists of the instruction, the other pairs in order, and the
    query of pair k, with blank lines between them.

    Raises:
      UserError: "path:line: what is wrong; what to do", for example if there are fewer
        than two pairs.
    """
    instruction, pairs = line.value.get("instruction"), line.value["pairs"]
    if not isinstance(instruction, str) or not instruction.strip():
        raise UserError(
            f"{line.where}: field 'instruction' must be a text that is not empty, found"
            f" {shown(instruction)}."
        )
    if not isinstance(pairs, list) or len(pairs) < 2:
        raise UserError(
            f"{line.where}: field 'pairs' must be a list of two or more pairs"
            f" [query, response], found {shown(pairs)}; a single one is a demonstration"
            " with the fields 'prompt' and 'response'."
        )
    for k, pair in enumerate(pairs):
        if not _is_pair(pair):
            raise UserError(
                f"{line.where}: pair {k} of 'pairs' must be two texts that are not"
                f" empty, [query, response], found {shown(pair)}."
            )
    # The other fields are checked like those of a demonstration.
    head = _demonstration(line, line.value, prompt=instruction, response=instruction)
    head["source"] = head["source"] or ("customer" if head["customer"] else "labeler")
    examples = [f"Query: {query}\nResponse: {response}" for query, response in pairs]
    records = []
    for k, (query, response) in enumerate(pairs):
        context = [*examples[:k], *examples[k + 1 :], f"Query: {query}\nResponse:"]
        prompt = "\n\n".join([instruction, *context])
        record = _demonstration(line, head, prompt=prompt, response=response)
        records.append({**record, "id": f"{head['id']}/{k}"})
    text = "\n\n".join([instruction, *examples])
    return Unit(line.where, head["id"], head["customer"], text, records)


def _demonstration(line: Line, fields: Record, *, prompt: str, response: str) -> Record:
    changes = {"history": [], "style": "few_shot", "prompt": prompt}
    value = {**fields, **changes, "response": response}
    return check_line(line._replace(value=value), "demonstrations")


def _is_few_shot(value: Any) -> bool:
    return isinstance(value, dict) and "pairs" in value


def _is_pair(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(isinstance(text, str) and text.strip() for text in pair)
    )
