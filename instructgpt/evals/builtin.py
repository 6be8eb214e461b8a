"""The built-in evaluators and judges, by the short names that a config uses."""

from instructgpt.evals.gold import GoldJudge
from instructgpt.evals.language import HeldOutLoss
from instructgpt.evals.scores import RewardJudge

EVALUATORS: dict[str, type] = {"pretrain_loss": HeldOutLoss}
JUDGES: dict[str, type] = {"gold": GoldJudge, "reward": RewardJudge}
