"""Replies of a language model at an address, kept on disk as they arrive."""

import json
import os
import threading
from pathlib import Path
from typing import Any

from instructgpt.progress import format_count


class Replies:
    """Replies by question, kept in a file of JSON Lines; used by several threads."""

    def __init__(self, path: Path):
        self.path = path
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, Any]] = {}
        self._asked = 0
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
                self._found[row["key"]] = row
            except (ValueError, KeyError, TypeError):
                continue  # the line that a kill left half-written

    @property
    def count(self) -> int:
        """Number of kept replies."""
        return len(self._found)

    def get(self, key: str) -> str | None:
        """The kept reply to a question."""
        row = self._found.get(key)
        return None if row is None else row["text"]

    def add(self, key: str, reply: Any) -> str:
        """Keeps a reply of the client, and returns its text; "" if it says nothing.

        Raises:
          ValueError: it is no completion; then it is not kept.
        """
        try:
            text = reply.choices[0].message.content
        except (AttributeError, IndexError, TypeError) as error:
            raise ValueError("the reply is no chat completion") from error
        if not isinstance(text, str | None):
            raise ValueError("the reply is no chat completion")
        usage = getattr(reply, "usage", None)
        row = {
            "key": key,
            "text": text or "",
            "asked": _count(usage, "prompt_tokens"),
            "said": _count(usage, "completion_tokens"),
        }
        with self._lock:
            self._asked += 1
            self._found[key] = row
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                # A kill may have left a line without its end.
                start = b"\n" if file.tell() and not _ends_a_line(self.path) else b""
                file.write(start + json.dumps(row).encode() + b"\n")
        return text or ""

    def cost(self, price: tuple[float, float]) -> str:
        """The number of replies, their tokens and what they cost, as text.

        Args:
          price: Price of a million tokens of requests, and of replies; 0: unknown.
        """
        asked, said = (
            sum(row[name] for row in self._found.values()) for name in ("asked", "said")
        )
        text = (
            f"{self._asked} new replies, {self.count} in all; "
            f"{format_count(asked)} tokens asked, {format_count(said)} said"
        )
        money = (asked * price[0] + said * price[1]) / 1e6
        return f"{text}, ${money:.2f}" if money else text


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _count(usage: Any, name: str) -> int:
    """A number of tokens; 0 where the server does not tell."""
    value = getattr(usage, name, 0)
    return value if isinstance(value, int) else 0
