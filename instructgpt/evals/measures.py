"""What is measured of each policy of a sweep, all on the same prompts.

The score of the reward model is what PPO raises, and the gold judge says what it is
worth: where the first rises while the second falls, the policy is over-optimised.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from instructgpt.evals.interface import Value
from instructgpt.evals.intervals import mean_interval, win_rate
from instructgpt.evals.judgements import LIKERT
from instructgpt.evals.judges.gold import judge_all
from instructgpt.evals.language import HeldOutLoss
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.inference.likelihood import Pair
from instructgpt.world import Judgement, World

Record = Mapping[str, Any]


@dataclasses.dataclass
class Yardstick:
    """The prompts, models and judges by which every policy is measured."""

    records: Sequence[Record]  # the prompts that are answered, at temperature 1
    reward: RewardModel
    world: World | None  # whose gold judge decides; None: the reward model decides
    losses: HeldOutLoss | None  # None: there is no held-out text
    batch_size: int
    key: jax.Array
    baseline: Sequence[float] | None = None  # utilities of the answers to be beaten

    def measure(
        self,
        policy: LanguageModel,
        reference: LanguageModel | None,
        *,
        name: str,
        keep: Path | None = None,
    ) -> dict[str, Value]:
        """Measures a policy by its sampled answers; numbers with 95 % intervals.

        Args:
          policy: The policy.
          reference: The model that the KL is measured against; None: no KL.
          name: Name at the start of the line of progress.
          keep: Folder of the answers sampled so far, see `LanguageModel.generate`.

        Returns:
          `rm_score`; in a world `likert` and `utility`; `win_rate` against the baseline
          where there is one; `kl`, in nats per response; `response_length` in tokens
          with the end; `pretrain_loss` in nats per token.
        """
        answers = self._answer(policy, name=name, keep=keep)
        texts = [text.strip("\n") for text in answers]
        scores = self.reward.score(self.records, texts, batch_size=self.batch_size)
        out: dict[str, Value] = {"rm_score": mean_interval(scores)}
        utilities: Sequence[float] = [float(score) for score in scores]
        if self.world is not None:
            judged = judge_all(self.world, self.records, texts)
            utilities = [judgement.utility for judgement in judged]
            out |= _gold(judged)
        if self.baseline is not None:
            out["win_rate"] = win_rate(utilities, self.baseline)
        pairs = [
            _encoded(policy, record, text)
            for record, text in zip(self.records, answers, strict=True)
        ]
        if reference is not None:
            of_policy, of_reference = (
                model.token_log_likelihood(pairs, batch_size=self.batch_size)
                for model in (policy, reference)
            )
            out["kl"] = mean_interval(
                [
                    ours.log_prob - theirs.log_prob
                    for ours, theirs in zip(of_policy, of_reference, strict=True)
                ]
            )
        out["response_length"] = mean_interval([len(target) for _, target in pairs])
        if self.losses is not None:
            out["pretrain_loss"] = self.losses.interval(policy)
        return {k: v if isinstance(v, float) else list(v) for k, v in out.items()}

    def utilities(
        self, policy: LanguageModel, *, name: str, keep: Path | None = None
    ) -> list[float]:
        """Utilities of a policy's answers: the gold judge's, or the reward's scores."""
        texts = [t.strip("\n") for t in self._answer(policy, name=name, keep=keep)]
        if self.world is None:
            scores = self.reward.score(self.records, texts, batch_size=self.batch_size)
            return [float(score) for score in scores]
        return [j.utility for j in judge_all(self.world, self.records, texts)]

    def _answer(
        self, policy: LanguageModel, *, name: str, keep: Path | None
    ) -> list[str]:
        """One sampled answer to each prompt."""
        found = policy.generate(
            self.records,
            key=self.key,
            batch_size=self.batch_size,
            name=name,
            keep=keep,
        )
        return [texts[0] for texts in found]


def _gold(judged: Sequence[Judgement]) -> dict[str, Value]:
    return {
        "likert": mean_interval([j.likert for j in judged], limits=LIKERT),
        "utility": mean_interval([j.utility for j in judged]),
    }


def _encoded(policy: LanguageModel, record: Record, text: str) -> Pair:
    """Tokens of a prompt and of its answer; one that was cut has no end."""
    form, limit = policy.text.prompt_format, policy.text.max_response
    return form.prompt_ids(dict(record)), form.response_ids(text)[:limit]
