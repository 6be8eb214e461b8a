"""Assigns questions to splits, and checks that no question is in two splits.

A task's core question is its prompt without preface, few-shot block, dialogue frame and
constraint (`Kind.question`). Its hash decides the split for all kinds and sources, so
that equal questions are in the same split; a customer's split is decided by the name.
The guard searches training text for held-out questions when the sets are written.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

SPLITS = ("train", "valid", "test")
_TOKEN = re.compile(r"\w+|[^\w\s]")
# With this salt, kinds with few questions have about their share of each split.
_SALT = "question 522"
_START = 3  # number of first tokens of a question that the guard indexes


@functools.lru_cache(maxsize=65536)
def split_of(name: str) -> str:
    """The split of a name by its hash: 80 % train, 8 % valid, 12 % test."""
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    part = int.from_bytes(digest) % 100
    return "train" if part < 80 else "valid" if part < 88 else "test"


def split_of_question(question: str) -> str:
    """The split of a core question; white space is ignored."""
    return split_of(f"{_SALT} {' '.join(question.split())}")


def tokens_of(text: str) -> tuple[str, ...]:
    """The words and punctuation marks of a text in lower case."""
    return tuple(_TOKEN.findall(text.lower()))


class LeakGuard:
    """Finds held-out questions in training text, by words and punctuation marks.

    Args:
      questions: Texts that must not be part of any training text.
    """

    def __init__(self, questions: Iterable[str]):
        self._by_start: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        for question in questions:
            tokens = tokens_of(question)
            if len(tokens) < _START:
                raise ValueError(f"question {question!r} is too short to look for")
            self._by_start.setdefault(tokens[:_START], set()).add(tokens)

    def find(self, text: str) -> str | None:
        """A held-out question that the text contains, or None."""
        tokens = tokens_of(text)
        for i, start in enumerate(zip(tokens, tokens[1:], tokens[2:], strict=False)):
            for question in self._by_start.get(start, ()):
                if tokens[i : i + len(question)] == question:
                    return " ".join(question)
        return None

    def checked(self, records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yields the training records after checking each.

        Raises:
          AssertionError: a text field of a record contains a held-out question, which
            is a bug of the world's generator, not a user's mistake.
        """
        for record in records:
            for field in ("text", "prompt", "response"):
                found = self.find(record.get(field, ""))
                if found is not None:
                    raise AssertionError(
                        f"the held-out question {found!r} stands in training record "
                        f"{record['id']}, field {field!r}: {record[field]!r}"
                    )
            yield record
