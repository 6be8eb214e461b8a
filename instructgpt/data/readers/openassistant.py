"""OpenAssistant's conversation trees: the prompter's turns and the replies to them.

A line is a tree: `prompt` is its first message, and `replies` of a message are the
messages that answer it; prompter and assistant take turns. Volunteers ranked the
assistant's replies to a message; `rank` 0 is the best.

Abandoned trees (whose `tree_state` is given and not ready_for_export) and messages by a
model (`synthetic`) are left out and counted.

Köpf et al. 2023, "OpenAssistant Conversations", https://arxiv.org/abs/2304.07327.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.ranking import dense_ranks
from instructgpt.data.readers.json_rows import Row, json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record
from instructgpt.errors import UserError, shown

_FINISHED = "ready_for_export"


class _Turn(NamedTuple):
    """A prompter's message with its history and its replies."""

    message: Row
    history: list[str]
    replies: list[Row]

    def record(self) -> Record:
        return {
            "id": self.message.name("message_id"),
            "history": self.history,
            "prompt": self.message.text("text"),
            "customer": self.message.name("user_id", ""),
        }


def prompts(path: Path, *, report: Report, lang: str = "") -> Iterator[Record]:
    """Yields every message of a prompter, answered or not."""
    for turn in _turns(path, lang=lang, report=report):
        yield turn.record()


def demonstrations(
    path: Path, *, report: Report, lang: str = "", replies: str = "best"
) -> Iterator[Record]:
    """Yields a prompter's message with a reply.

    Args:
      path: the trees.
      report: counts records that are left out.
      lang: keep messages of this language only, for example "en"; "" keeps all.
      replies: "best" keeps the replies that no other outranks (all of them where none
        has a rank), "all" every reply.

    Raises:
      UserError: an unknown `replies`, or a line that is not a tree.
    """
    if replies not in ("best", "all"):
        raise UserError(f"openassistant: replies={replies!r}; choose 'best' or 'all'.")
    for turn in _turns(path, lang=lang, report=report):
        kept = turn.replies if replies == "all" else _best(turn.replies)
        if turn.replies:
            report.skip("outranked reply", len(turn.replies) - len(kept))
        else:
            report.skip("prompt without a reply")
        for reply in kept:
            yield {
                **turn.record(),
                "id": reply.name("message_id"),
                "response": reply.text("text"),
            }


def comparisons(path: Path, *, report: Report, lang: str = "") -> Iterator[Record]:
    """Yields a prompter's message with its ranked replies, two or more."""
    for turn in _turns(path, lang=lang, report=report):
        ranked = [reply for reply in turn.replies if reply.has("rank")]
        if len(ranked) < 2:
            report.skip("prompt with fewer than two ranked replies")
            continue
        report.skip("reply without a rank", len(turn.replies) - len(ranked))
        yield {
            **turn.record(),
            "responses": [reply.text("text") for reply in ranked],
            "ranks": dense_ranks([reply.number("rank") for reply in ranked]),
        }


def _best(replies: list[Row]) -> list[Row]:
    ranks = [reply.number("rank") for reply in replies if reply.has("rank")]
    if not ranks:
        return replies
    return [r for r in replies if r.has("rank") and r.number("rank") == min(ranks)]


def _turns(path: Path, *, lang: str, report: Report) -> Iterator[_Turn]:
    """Yields the prompter's messages of all trees, parents before children."""
    for tree in json_rows(path):
        _check_is_tree(tree)
        state = tree.text("tree_state", _FINISHED)
        if state != _FINISHED:
            report.skip(f"tree given up, its state {shown(state)}")
            continue
        root = tree.row("prompt")
        waiting = [(root, list[str]())] if _keep(root, "prompter", lang, report) else []
        while waiting:
            message, history = waiting.pop()
            replies = _kept_replies(message, "assistant", lang, report)
            yield _Turn(message, history, replies)
            later = [
                (follow_up, [*history, message.text("text"), reply.text("text")])
                for reply in replies
                for follow_up in _kept_replies(reply, "prompter", lang, report)
            ]
            waiting += reversed(later)


def _check_is_tree(row: Row) -> None:
    """Raises UserError for a line of the flat files, which is a single message."""
    if row.has("message_id") and row.has("text") and not row.has("prompt"):
        raise UserError(
            f"{row.where}: a message, as in the flat files *.messages.jsonl; give the"
            " file of trees of the same release, *.trees.jsonl."
        )


def _kept_replies(message: Row, role: str, lang: str, report: Report) -> list[Row]:
    return [r for r in message.rows("replies", []) if _keep(r, role, lang, report)]


def _keep(message: Row, role: str, lang: str, report: Report) -> bool:
    """Whether a message can be used; else it and those below it are counted."""
    if message.text("role") != role:
        raise UserError(
            f"{message.where}: role {shown(message.text('role'))} where the {role}"
            " should speak; give the file as it was published."
        )
    if message.flag("deleted", False):
        reason = "deleted message"
    elif not message.flag("review_result", True):
        reason = "message that failed its review"
    elif message.flag("synthetic", False):
        reason = "synthetic message"
    elif not message.text("text").strip():
        reason = "empty message"
    elif lang and message.text("lang") != lang:
        reason = f"message not in {lang!r}"
    else:
        return True
    report.skip(reason)
    report.skip("message below one that is left out", _count_below(message))
    return False


def _count_below(message: Row) -> int:
    below = message.rows("replies", [])
    for reply in below:  # the list grows during the loop
        below += reply.rows("replies", [])
    return len(below)
