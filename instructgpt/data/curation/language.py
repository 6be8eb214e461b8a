"""Which language a text is in, by py3langid, a fork of the paper's langid.py (A.4).

An optional dependency whose model is part of the package. It takes about 0.1 ms a
text, so the data card looks at a sample.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable

from instructgpt.errors import UserError

MAX_CHARS = 1000  # of a text; more would tell little


def make_identifier() -> Callable[[str], str]:
    """A function from a text to its language in ISO 639-1, for example "en".

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
    """The share of each language among the texts, the most frequent first."""
    counts = Counter(identify(text) for text in texts)
    total = counts.total()
    return {language: count / total for language, count in counts.most_common()}


class Sample:
    """The texts with the smallest keys: a random sample, as the keys are hashes.

    Keeps at most `size` texts of MAX_CHARS characters each. The order in which texts
    are added does not matter.
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
        """In the order of their keys."""
        return [text for _, text in sorted(self._heap, reverse=True)]
