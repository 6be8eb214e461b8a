"""A function that answers, as a model of the Evaluation Harness."""

from collections.abc import Callable, Sequence

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from instructgpt.errors import UserError, shown
from instructgpt.inference.completion import before_stop

Answer = Callable[[Sequence[str]], Sequence[str]]  # texts -> their completions


class FunctionModel(LM):
    """A model that is a function from texts to completions, such as a call of a server.

    It has no probabilities, so it can do no task of choices. A completion is cut at the
    first of a task's stops. A task's limit of tokens is not applied, as a function has
    no tokens: it must keep to a limit of its own.
    """

    def __init__(self, answer: Answer, name: str):
        """Takes the function, and its name for errors."""
        super().__init__()
        self._answer, self._name = answer, name

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Completions up to the first of each request's `until`, without it.

        Raises:
          UserError: the function gives other than one text for each.
        """
        texts = [request.args[0] for request in requests]
        found = self._answer(texts)
        whole = isinstance(found, list | tuple) and len(found) == len(texts)
        if not whole or not all(isinstance(x, str) for x in found):
            raise UserError(
                f"{self._name} must give a text for each of {len(texts)} texts, not "
                f"{shown(found)}"
            )
        untils = (request.args[1].get("until") or [] for request in requests)
        stops = [[until] if isinstance(until, str) else until for until in untils]
        return [before_stop(x, s) for x, s in zip(found, stops, strict=True)]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """A function has none; `Suite.check_answers_suffice` refuses such tasks."""
        raise UserError(f"{self._name} only answers, and has no probabilities")

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """A function has none; see `loglikelihood`."""
        raise UserError(f"{self._name} only answers, and has no probabilities")
