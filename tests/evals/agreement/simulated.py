"""Simulated labelers with known faults, whose rankings the tests look at."""

from datetime import UTC, datetime, timedelta

import numpy as np

from instructgpt.evals.agreement.rows import Ranked

START = datetime(2022, 1, 3, 9, tzinfo=UTC)
CATEGORIES = ("generation", "open_qa", "brainstorming", "chat")


class Someone:
    """A labeler who perceives an answer's value with noise.

    Args:
      name: The name.
      group: The labelers' group.
      noise: Standard deviation of what is perceived; values of answers have 1.
      fault: "" for an honest one; "rushes", "order" (ranks as displayed), "half order"
        (on half of the tasks), "drifts" (noise alone in the end), "careless" (always).
      speed: The labeler's usual time, relative to others'.
    """

    def __init__(self, name, *, group="training", noise=0.9, fault="", speed=1.0):
        self.name, self.group, self.noise = name, group, noise
        self.fault, self.speed = fault, speed

    def rank(self, rng, values, shown, progress):
        """Ranks of the answers, whose true values are given; ties are near ones."""
        fault = self.fault
        if fault == "order" or (fault == "half order" and rng.random() < 0.5):
            return tuple(1 + shown.index(i) for i in range(len(values)))
        noise = self.noise
        if fault == "careless" or (fault == "drifts" and progress > 0.6):
            noise = 20.0
        felt = values + noise * rng.standard_normal(len(values))
        ranks, rank, top = [0] * len(values), 0, np.inf
        for i in np.argsort(-felt):
            if top - felt[i] > 0.25 * noise:
                rank, top = rank + 1, felt[i]
            ranks[i] = rank
        return tuple(ranks)

    def seconds(self, rng, words):
        """Time for a task: a little to begin with, and some for each word."""
        time = (20 + 0.3 * words) * self.speed * np.exp(0.5 * rng.standard_normal())
        return float(time * (0.15 if self.fault == "rushes" else 1.0))


def people(number, rng, *, group="training", name="rater", **kwargs):
    """Honest labelers whose usual speeds differ by 35 %."""
    speeds = np.exp(0.35 * rng.standard_normal(number))
    return [
        Someone(f"{name}_{i + 1:02d}", group=group, speed=speed, **kwargs)
        for i, speed in enumerate(speeds)
    ]


def work(rng, labelers, *, prompts=100, each=3, gold=0, repeats=0, size=None):
    """Rows of labelers who rank prompts: each prompt by some, gold items by all.

    Args:
      rng: A generator.
      labelers: Who works.
      prompts: Number of prompts.
      each: Labelers of a prompt.
      gold: Number of gold items, which all rank.
      repeats: Number of tasks that each labeler is given again in the end.
      size: K; drawn from 4 to 9 for each prompt if not given.
    """
    jobs = {one.name: [] for one in labelers}
    for i in range(prompts + gold):
        values = rng.standard_normal(size or rng.integers(4, 10))
        is_gold = i >= prompts
        truth = tuple(1 + int((values > v).sum()) for v in values) if is_gold else ()
        chosen = range(len(labelers))
        if not is_gold:
            chosen = rng.permutation(len(labelers))[:each]
        for j in chosen:
            jobs[labelers[j].name].append((f"prompt {i}", values, truth, False))
    rows = []
    for one in labelers:
        tasks = [jobs[one.name][i] for i in rng.permutation(len(jobs[one.name]))]
        tasks += [(*task[:3], True) for task in tasks[:repeats]]
        for place, (name, values, truth, repeat) in enumerate(tasks):
            shown = [int(i) for i in rng.permutation(len(values))]
            words = int(rng.integers(40, 400))
            ranks = one.rank(rng, values, shown, place / len(tasks))
            rows.append(
                Ranked(
                    name,
                    one.name,
                    ranks if rng.random() > 0.02 else (),
                    group=one.group,
                    category=CATEGORIES[int(name.split()[1]) % len(CATEGORIES)],
                    shown=tuple(shown),
                    when=(START + timedelta(minutes=5 * place)).isoformat(),
                    seconds=one.seconds(rng, words),
                    words=words,
                    gold=truth,
                    repeat=repeat,
                    likert=tuple(
                        float(np.clip(round(8 - 7 * r / (max(ranks) + 1)), 1, 7))
                        for r in ranks
                    ),
                )
            )
    done = {(row.id, row.labeler) for row in rows if row.ranks and not row.repeat}
    return [row for row in rows if not row.repeat or (row.id, row.labeler) in done]
