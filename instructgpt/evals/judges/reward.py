"""A judge by the reward model: mean scores, and win rates by score."""

from collections.abc import Mapping, Sequence
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals.interface import Setting
from instructgpt.evals.judgements import Judgement
from instructgpt.inference import RewardModel


class RewardJudge:
    """Scores each answer; the higher of two scores wins, a tie counts one half.

    Policies that were trained for this model's score have learnt its errors too, so
    that their win rates by it are no evidence (paper §4.1, and Gao et al. 2023). They
    are refused unless the config says that they are wanted all the same.
    """

    def __init__(self, reward: RewardModel, *, batch_size: int):
        self._reward, self._batch_size = reward, batch_size

    @classmethod
    def open(cls, setting: Setting, own_policies: bool = False) -> "RewardJudge":
        """Builds the judge with the comparison's reward model.

        Args:
          setting: The comparison.
          own_policies: Whether policies that were trained for this model's score are
            judged too.

        Raises:
          UserError: there are such policies, and they are not wanted.
        """
        if setting.trained_for_reward and not own_policies:
            raise UserError(
                "config.judges: the reward model would judge "
                f"{', '.join(setting.trained_for_reward)}, trained to raise its score; "
                "take another judge, or say that this is wanted by own_policies=True"
            )
        return cls(setting.reward(), batch_size=setting.batch_size)

    def judge(
        self,
        records: Sequence[Mapping[str, Any]],
        responses: Mapping[str, Sequence[str]],
    ) -> list[Judgement]:
        """Returns the score of every answer."""
        found = []
        for name, texts in responses.items():
            scores = self._reward.score(records, texts, batch_size=self._batch_size)
            found += [
                Judgement(record["id"], name, score=float(score), labeler="reward")
                for record, score in zip(records, scores, strict=True)
            ]
        return found
