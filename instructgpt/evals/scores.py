"""A judge by the reward model: mean scores, and win rates by score."""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.evals.interface import Results, Setting, Value
from instructgpt.evals.intervals import win_rate
from instructgpt.inference import RewardModel


class RewardJudge:
    """Scores each answer; the higher of two scores wins, a tie counts one half.

    The policies were optimised for this model's score, so it is weaker evidence than
    the judgement of people or a gold judge (paper §4.1, and Gao et al. 2023).
    """

    def __init__(self, reward: RewardModel, *, baseline: str, batch_size: int):
        self._reward, self._baseline = reward, baseline
        self._batch_size = batch_size

    @classmethod
    def open(cls, setting: Setting) -> "RewardJudge":
        """Builds the judge with the comparison's reward model."""
        reward = setting.reward()
        return cls(reward, baseline=setting.baseline, batch_size=setting.batch_size)

    def judge(
        self,
        records: Sequence[Mapping[str, Any]],
        responses: Mapping[str, Sequence[str]],
    ) -> dict[str, Results]:
        """Returns mean scores, and win rates against the baseline by score."""
        scores = {
            name: self._reward.score(records, texts, batch_size=self._batch_size)
            for name, texts in responses.items()
        }
        out = {}
        for name, found in scores.items():
            rate = win_rate(found, scores[self._baseline])
            numbers: dict[str, Value] = {
                "mean_score": float(found.mean()),
                # The baseline against itself is exactly one half.
                "score_win_rate": (0.5,) * 3 if name == self._baseline else rate,
            }
            out[name] = Results(numbers, [{"rating": float(x)} for x in found])
        return out
