"""Comparisons of two summaries of a post, from "Learning to summarize".

    {"info": {"id": ..., "post": ..., "title": ..., "subreddit": ...},
     "summaries": [{"text": ...}, {"text": ...}], "choice": 0, "worker": ...,
     "split": "train"}

`info` of a news article has `article` in place of `post`, and no `subreddit`.

Stiennon et al. 2020, https://arxiv.org/abs/2009.01325.
"""

from collections.abc import Iterator
from pathlib import Path

from instructgpt.data.readers.json_rows import Row, json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record
from instructgpt.errors import UserError, shown

# The authors chose models on `valid1` and evaluated on `valid2`.
_SPLITS = {"train": "train", "valid1": "valid", "valid2": "test"}


def comparisons(path: Path, *, report: Report) -> Iterator[Record]:
    """Yields two summaries ranked by the worker, with the split of the row."""
    for row in json_rows(path):
        responses = [summary.text("text").strip() for summary in row.rows("summaries")]
        choice = row.number("choice")
        if len(responses) != 2 or choice not in (0, 1):
            raise UserError(
                f"{row.where}: {len(responses)} summaries and choice {choice}; give two"
                " summaries and the number of the better one, 0 or 1."
            )
        if not all(responses):
            report.skip("empty response")
        elif responses[0] == responses[1]:
            report.skip("identical responses")
        else:
            yield {
                "id": row.id,
                "prompt": _prompt(row.row("info")),
                "responses": responses,
                "ranks": [1, 2] if choice == 0 else [2, 1],
                "labeler": row.name("worker"),
                "split": _split(row),
            }


def _prompt(info: Row) -> str:
    """The post under its forum and title, with a cue for the summary."""
    lines = [f"SUBREDDIT: r/{info.text('subreddit')}"] if info.has("subreddit") else []
    lines += [f"TITLE: {info.text('title').strip()}"] if info.has("title") else []
    body = "article" if info.has("article") else "post"
    lines += [f"{body.upper()}: {info.text(body).strip()}", "TL;DR:"]
    return "\n\n".join(lines)


def _split(row: Row) -> str:
    split = row.text("split")
    if split not in _SPLITS:
        raise UserError(
            f"{row.where}: split {shown(split)}; it must be one of"
            f" {', '.join(_SPLITS)}."
        )
    return _SPLITS[split]
