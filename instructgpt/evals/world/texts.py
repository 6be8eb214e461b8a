"""What the evaluators of the miniature world share."""

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from instructgpt.evals.interface import Results
from instructgpt.evals.intervals import Interval, ratio_interval
from instructgpt.inference import LanguageModel

# Tokens of a completion, and those that texts are padded to. All have the same numbers,
# so that they share programs.
MAX_RESPONSE, WIDTH = 16, 128


def share(values: Sequence[bool], clusters: Sequence[Hashable]) -> Interval:
    """The share of values that are true, with a 95 % interval over clusters.

    Args:
      values: One for each question.
      clusters: What each is about; several wordings of one fact are a cluster.
    """
    known = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    numbers = [known[cluster] for cluster in clusters]
    sums = np.bincount(numbers, weights=np.array(values, float))
    return ratio_interval(sums, np.bincount(numbers).astype(float))


Run = Callable[[Any, LanguageModel, Sequence[Mapping[str, Any]]], Results]


def once_per_model(run: Run) -> Run:
    """A method `run` that measures each model once, without examples before prompts.

    Texts are given to a model as they are, so that the entries GPT and GPT (prompted)
    have the same results.
    """

    @functools.wraps(run)
    def run_once(
        self: Any, model: LanguageModel, records: Sequence[Mapping[str, Any]]
    ) -> Results:
        if model.wrap is not None:
            model = dataclasses.replace(model, wrap=None)
        if not model.weights:  # a model in training
            return run(self, model, records)
        results: dict[str, Results] = self.__dict__.setdefault("_measured", {})
        if model.weights not in results:
            results[model.weights] = run(self, model, records)
        return results[model.weights]

    return run_once
