"""Identifies languages by py3langid, a fork of the paper's langid.py (A.4).

It is an optional dependency that includes its model. It takes about 0.1 ms per text,
so the data card uses a sample.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable

from instructgpt.errors import UserError

MAX_CHARS = 1000  # characters of a text that are used; more would tell little


def make_identifier() -> Callable[[str], str]:
    """Builds the function from a text to its language in ISO 639-1, such as "en".

    Raises:
      UserError: py3langid is not installed.
    """
    try:
        import py3langid
    except ImportError as error:
        raise UserError(
            "the language of texts needs py3langid; run pip install py3langid, or leave"
            " --languages and --language-sample out."
        ) from error
    return lambda text: str(py3langid.classify(text[:MAX_CHARS])[0])


def language_shares(
    texts: Iterable[str], identify: Callable[[str], str]
) -> dict[str, float]:
    """Shares of languages among the texts, the most frequent first."""
    counts = Counter(identify(text) for text in texts)
    total = counts.total()
    return {language: count / total for language, count in counts.most_common()}


class Sample:
    """A random sample: the texts with the smallest keys, which are hashes.

    It keeps at most `size` texts of MAX_CHARS characters each. The order of adding does
    not matter.
    """

    def __init__(self, size: int):
        self._size = size
        self._heap: list[tuple[int, str]] = []  # (-key, text), the largest key first

    def add(self, key: int, text: str) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (-key, text[:MAX_CHARS]))
        elif self._size and -key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (-key, text[:MAX_CHARS]))

    def texts(self) -> list[str]:
        """The sampled texts in the order of their keys."""
        return [text for _, text in sorted(self._heap, reverse=True)]
