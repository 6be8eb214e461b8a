"""Simulated labelers: gold utility, personal taste, and noise.

Two labelers rank the same answers a little differently, as people do; the numbers are
set so that they agree on about 73 % of the pairs that neither ties, as the paper
reports (section 3.4).
"""

import dataclasses
import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

from instructgpt.data.world.facts import Facts, as_random
from instructgpt.data.world.grammar import read
from instructgpt.data.world.judge import COURTEOUS, judge_response
from instructgpt.data.world.kinds import Task
from instructgpt.data.world.prompts import Prompt

NOISE = 1.6  # standard deviation, in units of utility
TASTE = 0.45  # standard deviation of a labeler's weights
TIE = 0.35  # perceived utilities closer than this share a rank
MAX_RANK = 5


@dataclasses.dataclass(frozen=True)
class Labeler:
    """A simulated labeler; the weights are per standard unit of a visible feature."""

    name: str
    held_out: bool
    facts: Facts = dataclasses.field(repr=False)
    noise: float
    tie: float
    length: float
    courtesy: float
    directness: float
    detail: float
    caution: float

    def perceive(self, task: Task, response: str) -> float:
        """Utility as the labeler sees it, before noise."""
        judgement = judge_response(self.facts, task, response)
        reading = read(response)
        kinds = [unit.kind for unit in reading.units]
        return (
            judgement.utility
            + self.length * (min(reading.words, 40) - 10) / 8
            + self.courtesy * any(k in COURTEOUS for k in kinds)
            + self.directness * (len(kinds) == 1)
            + self.detail * (len(kinds) >= 2 and "unreadable" not in kinds)
            + self.caution * any(k in ("refusal", "unknown") for k in kinds)
        )

    def rank(
        self, prompt: Prompt | Task, responses: Sequence[str], rng: Any
    ) -> list[int]:
        """Ranks from 1 (best) to 5; equal ranks are ties. Equal texts always tie."""
        rng = as_random(rng)
        task = prompt.task if isinstance(prompt, Prompt) else prompt
        seen: dict[str, float] = {}
        for response in responses:
            key = " ".join(response.split())
            if key not in seen:
                noise = rng.gauss(0.0, self.noise)
                seen[key] = self.perceive(task, response) + noise
        rank_of, rank, top = {}, 0, float("inf")
        for key in sorted(seen, key=seen.__getitem__, reverse=True):
            if top - seen[key] > self.tie or rank == 0:
                rank, top = rank + 1, seen[key]
            rank_of[key] = min(rank, MAX_RANK)
        return [rank_of[" ".join(r.split())] for r in responses]


def make_labelers(
    facts: Facts, seed: int, *, training: int = 15, held_out: int = 5
) -> list[Labeler]:
    """The pool: training labelers first, then those kept for evaluation."""
    labelers = []
    for i in range(training + held_out):
        rng = random.Random(f"labeler {seed} {i}")
        labelers.append(
            Labeler(
                name=f"rater_{i + 1:02d}",
                held_out=i >= training,
                facts=facts,
                noise=NOISE * rng.uniform(0.85, 1.15),
                tie=TIE * rng.uniform(0.7, 1.3),
                length=rng.gauss(0.0, TASTE),
                courtesy=rng.gauss(0.0, TASTE),
                directness=rng.gauss(0.0, TASTE),
                detail=rng.gauss(0.0, TASTE),
                caution=rng.gauss(0.0, TASTE),
            )
        )
    return labelers


def agreement_counts(rankings: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Agreements and comparisons between labelers who ranked the same answers.

    Args:
      rankings: [L][K], a ranking of the K answers by each labeler.

    Returns:
      (agree, total) over two labelers and two answers that neither ties.
    """
    agree = total = 0
    for one, other in itertools.combinations(rankings, 2):
        for i, j in itertools.combinations(range(len(one)), 2):
            first, second = one[i] - one[j], other[i] - other[j]
            if first and second:
                total += 1
                agree += (first > 0) == (second > 0)
    return agree, total


def agreement(items: Iterable[Sequence[Sequence[int]]]) -> float:
    """Pairwise agreement over prompts: pooled `agreement_counts`; NaN if no pair."""
    counts = [agreement_counts(rankings) for rankings in items]
    agree, total = sum(a for a, _ in counts), sum(t for _, t in counts)
    return agree / total if total else float("nan")
