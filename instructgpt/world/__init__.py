"""The miniature world: facts, documents, prompts, demonstrations, judge, labelers.

Everything follows from `World(seed)`; the truth about it is known, so the paper's
claims can be measured in minutes. Models learn from demonstrations and rankings only;
the gold `judge` evaluates.
"""

import functools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from instructgpt.world import demonstrations as _demonstrations
from instructgpt.world.documents import draw_documents
from instructgpt.world.facts import Facts, as_random, make_facts
from instructgpt.world.judge import Judgement, judge_response
from instructgpt.world.kinds import Style, Task
from instructgpt.world.labelers import (
    Labeler,
    agreement,
    agreement_counts,
    make_labelers,
    rank_by_each,
)
from instructgpt.world.prompts import Prompt, draw_prompts
from instructgpt.world.splits import SPLITS, LeakGuard
from instructgpt.world.tasks import KINDS

__all__ = [
    "Judgement",
    "Labeler",
    "Prompt",
    "Task",
    "World",
    "agreement",
    "agreement_counts",
    "judge",
    "rank_by_each",
]

_HEADER = "Questions and answers. A helpful assistant answers every question."
Sizes = Mapping[str, tuple[int, ...]]  # of each kind of record: train, valid, test
Makers = dict[str, dict[str, Callable[[], Iterable[dict[str, Any]]]]]


class World:
    """A closed world made from a seed."""

    def __init__(self, seed: int = 0):
        self.seed = seed
        self.facts: Facts = make_facts(seed)

    def documents(self, split: str, n: int) -> Iterator[dict[str, str]]:
        """`n` pretraining documents {id, text, kind}; the first n of a longer draw."""
        _check(split)
        return draw_documents(self.facts, seed=self.seed, split=split, number=n)

    def prompts(
        self,
        split: str,
        n: int,
        *,
        source: str | None = None,
        stream: str = "prompts",
    ) -> list[Prompt]:
        """`n` prompts of a split, distinct where possible.

        Args:
          split: train, valid or test; they share no customer and no core question.
          n: how many; a shorter draw is the beginning of a longer one.
          source: "customer" or "labeler"; None mixes 80 % and 20 %.
          stream: a name; other names draw other prompts.
        """
        _check(split)
        drawn = draw_prompts(
            self.facts,
            seed=self.seed,
            split=split,
            number=n,
            stream=stream,
            source=source,
        )
        return list(drawn)

    def rm_prompts(self, split: str, n: int) -> list[Prompt]:
        """`n` prompts whose answers are ranked; a fifth are labelers' (Table 6).

        Another draw than `ppo_prompts`, in which the same prompt may stand.
        """
        return self.prompts(split, n, stream="rm")

    def ppo_prompts(self, split: str, n: int) -> list[Prompt]:
        """`n` prompts for PPO and the comparison of models: customers' (Table 6)."""
        return self.prompts(split, n, source="customer")

    def sets(self, sizes: Sizes) -> Makers:
        """What makes the records of each kind and split, for a number of each.

        The kinds are documents, demonstrations, prompts and rm_prompts; a split of no
        records is left out. Records of the training split are looked through as they
        are made: no prompt or core question of the other splits may stand in them.

        Raises:
          AssertionError: when training records are made, if one gives a held-out
            question away.
        """
        guard = LeakGuard(self._held_out_questions(sizes))
        makers: Makers = {}
        for kind, counts in sizes.items():
            makers[kind] = {}
            for split, count in zip(SPLITS, counts, strict=True):
                if count:
                    make = functools.partial(self._records, kind, split, count)
                    checked = functools.partial(_checked, guard, make)
                    makers[kind][split] = checked if split == "train" else make
        return makers

    def _records(self, kind: str, split: str, n: int) -> Iterable[dict[str, Any]]:
        match kind:
            case "documents":
                return self.documents(split, n)
            case "demonstrations":
                return self.demonstrations(split, n)
            case "prompts":
                return (prompt.record() for prompt in self.ppo_prompts(split, n))
            case "rm_prompts":
                return (prompt.record() for prompt in self.rm_prompts(split, n))
        raise ValueError(f"the world has no {kind}")

    def _held_out_questions(self, sizes: Sizes) -> Iterator[str]:
        """The prompts without their constraints and their core questions."""
        makers = {
            "demonstrations": self._demonstration_prompts,
            "prompts": self.ppo_prompts,
            "rm_prompts": self.rm_prompts,
        }
        for name, make in makers.items():
            for split, count in zip(SPLITS, sizes.get(name, (0, 0, 0)), strict=True):
                for prompt in make(split, count) if split != "train" else ():
                    kind = KINDS[prompt.task.kind]
                    yield kind.prompt(prompt.task)
                    yield kind.question(prompt.task)

    def demonstrate(self, prompt: Prompt, rng: Any) -> str:
        """A human-like answer; `rng`: random.Random, NumPy generator or a seed."""
        return _demonstrations.demonstrate(self.facts, prompt.task, as_random(rng))

    def ideal(self, prompt: Prompt, rng: Any = 0) -> str:
        """One of the best answers."""
        return _demonstrations.ideal(self.facts, prompt.task, as_random(rng))

    def demonstrations(self, split: str, n: int) -> list[dict[str, str]]:
        """`n` demonstration records; nine in ten prompts are by labelers (Table 6)."""
        records = []
        for i, prompt in enumerate(self._demonstration_prompts(split, n)):
            rng = random.Random(f"demonstration {self.seed} {split} {i}")
            record = prompt.record()
            del record["task"]
            record["response"] = self.demonstrate(prompt, rng)
            records.append(record)
        return records

    def _demonstration_prompts(self, split: str, n: int) -> list[Prompt]:
        labelers = round(0.89 * n)
        prompts = [
            *self.prompts(split, labelers, source="labeler", stream="sft-labeler"),
            *self.prompts(split, n - labelers, source="customer", stream="sft"),
        ]
        random.Random(f"order {self.seed} {split}").shuffle(prompts)
        return prompts

    def labelers(self) -> list[Labeler]:
        """Twenty labelers: 15 for training data, then 5 held out for evaluation."""
        return make_labelers(self.facts, self.seed)

    def few_shot_prefix(self, k: int = 2) -> str:
        """The prefix of the prompted GPT: a header and `k` solved examples."""
        rng = random.Random(f"prefix {self.seed} {k}")
        drawn = self.prompts("train", 60, stream="prefix")
        usable = [
            p
            for p in drawn
            if p.style == "plain"
            and "\n" not in p.text
            and not p.task.constraint
            and p.category in ("generation", "open_qa", "brainstorming")
            and p.task.kind not in ("insult_request", "ask_harm", "false_premise")
        ]
        lines = [_HEADER]
        kinds: set[str] = set()
        for prompt in usable:
            if len(kinds) == k:
                break
            kind = KINDS[prompt.task.kind]
            answer = kind.compose(self.facts, prompt.task, rng, Style("full"))
            # Short ones: the prefix shares the model's context with the prompt.
            short = len(f"{prompt.text} {answer}".split()) <= 16
            if short and prompt.task.kind not in kinds:
                kinds.add(prompt.task.kind)
                lines.append(f"Q: {prompt.text}\nA: {answer}")
        return "\n".join(lines) + "\n"

    def format_prompted(self, prompt_text: str, k: int = 2) -> str:
        """The prefix and the user's prompt; the model continues after "A:"."""
        return f"{self.few_shot_prefix(k)}Q: {prompt_text}\nA:"


def judge(world: World, task: Task | dict[str, Any] | str, response: str) -> Judgement:
    """Judges a response; the task may be a Task, its fields, or its JSON.

    Raises:
      ValueError: the task is not one of this world's (any response is fine).
    """
    if isinstance(task, str):
        task = Task.from_json(task)
    elif isinstance(task, dict):
        task = Task(**task)
    return judge_response(world.facts, task, response)


def _checked(
    guard: LeakGuard, make: Callable[[], Iterable[dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    return guard.checked(make())


def _check(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
