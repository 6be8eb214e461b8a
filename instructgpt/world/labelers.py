"""Simulated labelers: gold utility, personal taste, and noise.

Two labelers rank the same answers a little differently, as people do; the numbers are
set so that they agree on about 73 % of the pairs that neither ties, as the paper
reports (section 3.4). When they rank for training they put helpfulness first, in final
evaluations truthfulness and harmlessness (judge.py). As untruths then weigh less,
utilities differ less, and the noise is smaller.
"""

import dataclasses
import random
from collections.abc import Sequence
from typing import Any

from instructgpt.world.facts import Facts, as_random
from instructgpt.world.grammar import read
from instructgpt.world.judge import COURTEOUS, Rule, judge_response
from instructgpt.world.kinds import Task
from instructgpt.world.prompts import Prompt

# Standard deviation of a labeler's noise, in units of utility.
NOISE: dict[Rule, float] = {"training": 1.1, "final": 1.4}
TASTE = 0.45  # standard deviation of a labeler's weights
TIE = 0.35  # perceived utilities closer than this share a rank
MAX_RANK = 5


@dataclasses.dataclass(frozen=True)
class Impression:
    """The features of an answer that all labelers see: gold utility and style."""

    utility: float
    length: float  # (number of words - 10) / 8
    courtesy: bool
    directness: bool
    detail: bool
    caution: bool


def read_answer(
    facts: Facts, task: Task, response: str, rule: Rule = "training"
) -> Impression:
    """Reads and judges an answer once, for all labelers."""
    reading = read(response)
    kinds = [unit.kind for unit in reading.units]
    return Impression(
        utility=judge_response(facts, task, response, rule=rule).utility,
        length=(min(reading.words, 40) - 10) / 8,
        courtesy=any(k in COURTEOUS for k in kinds),
        directness=len(kinds) == 1,
        detail=len(kinds) >= 2 and "unreadable" not in kinds,
        caution=any(k in ("refusal", "unknown") for k in kinds),
    )


@dataclasses.dataclass(frozen=True)
class Labeler:
    """A simulated labeler with weights for the visible features of an answer."""

    name: str
    held_out: bool
    facts: Facts = dataclasses.field(repr=False)
    noise: float  # relative to that of all labelers
    tie: float
    length: float
    courtesy: float
    directness: float
    detail: float
    caution: float

    def perceive(self, seen: Impression) -> float:
        """Utility as the labeler sees it, before noise."""
        return (
            seen.utility
            + self.length * seen.length
            + self.courtesy * seen.courtesy
            + self.directness * seen.directness
            + self.detail * seen.detail
            + self.caution * seen.caution
        )

    def rank(
        self,
        prompt: Prompt | Task,
        responses: Sequence[str],
        rng: Any,
        *,
        rule: Rule = "training",
    ) -> list[int]:
        """Ranks from 1 (best) to 5; equal ranks are ties. Equal texts always tie."""
        return rank_by_each([self], prompt, responses, rng, rule=rule)[0]

    def order(
        self, seen: dict[str, Impression], rng: random.Random, rule: Rule
    ) -> dict[str, int]:
        """The rank of each text."""
        noise = self.noise * NOISE[rule]
        felt = {
            text: self.perceive(answer) + rng.gauss(0.0, noise)
            for text, answer in seen.items()
        }
        rank_of, rank, top = {}, 0, float("inf")
        for text in sorted(felt, key=felt.__getitem__, reverse=True):
            if top - felt[text] > self.tie or rank == 0:
                rank, top = rank + 1, felt[text]
            rank_of[text] = min(rank, MAX_RANK)
        return rank_of


def rank_by_each(
    labelers: Sequence[Labeler],
    prompt: Prompt | Task,
    responses: Sequence[str],
    rng: Any,
    *,
    rule: Rule = "training",
) -> list[list[int]]:
    """Ranks by several labelers of one world; the answers are read only once.

    Args:
      labelers: Who ranks.
      prompt: The prompt or its task.
      responses: The K answers.
      rng: A random.Random, NumPy generator or seed.
      rule: What the labelers put first.

    Returns:
      [L][K]: the K ranks by each of L labelers.
    """
    rng = as_random(rng)
    texts, seen = _read_all(labelers, prompt, responses, rule)
    orders = [labeler.order(seen, rng, rule) for labeler in labelers]
    return [[order[text] for text in texts] for order in orders]


def rank_alone(
    labelers: Sequence[Labeler],
    prompt: Prompt | Task,
    responses: Sequence[str],
    *,
    seed: str,
    rule: Rule = "training",
) -> list[list[int]]:
    """Ranks by several labelers, each with noise of their own.

    A labeler's ranks depend on the seed, the labeler's name, the prompt and the set of
    answers only: not on who else ranks them, nor on the order in which they are shown.

    Args:
      labelers: Who ranks.
      prompt: The prompt or its task.
      responses: The K answers, in any order.
      seed: Names the run and the prompt.
      rule: What the labelers put first.

    Returns:
      [L][K]: the K ranks by each of L labelers.
    """
    texts, seen = _read_all(labelers, prompt, responses, rule)
    seen = dict(sorted(seen.items()))  # noise is drawn in this order
    orders = [
        labeler.order(seen, random.Random(f"{rule} {seed} {labeler.name}"), rule)
        for labeler in labelers
    ]
    return [[order[text] for text in texts] for order in orders]


def _read_all(
    labelers: Sequence[Labeler],
    prompt: Prompt | Task,
    responses: Sequence[str],
    rule: Rule,
) -> tuple[list[str], dict[str, Impression]]:
    """The answers without extra blanks [K], and what labelers see in each of them."""
    task = prompt.task if isinstance(prompt, Prompt) else prompt
    texts = [" ".join(response.split()) for response in responses]
    originals = dict(zip(reversed(texts), reversed(responses), strict=True))
    seen = {
        text: read_answer(labelers[0].facts, task, originals[text], rule)
        for text in dict.fromkeys(texts)
    }
    return texts, seen


def make_labelers(
    facts: Facts, seed: int, *, training: int = 15, held_out: int = 5
) -> list[Labeler]:
    """Draws the labelers: those for training first, then those held out."""
    labelers = []
    for i in range(training + held_out):
        rng = random.Random(f"labeler {seed} {i}")
        labelers.append(
            Labeler(
                name=f"rater_{i + 1:02d}",
                held_out=i >= training,
                facts=facts,
                noise=rng.uniform(0.85, 1.15),
                tie=TIE * rng.uniform(0.7, 1.3),
                length=rng.gauss(0.0, TASTE),
                courtesy=rng.gauss(0.0, TASTE),
                directness=rng.gauss(0.0, TASTE),
                detail=rng.gauss(0.0, TASTE),
                caution=rng.gauss(0.0, TASTE),
            )
        )
    return labelers
