"""The evaluators and judges that a config names by a short name."""

from instructgpt.evals.gold import GoldJudge
from instructgpt.evals.language import HeldOutLoss
from instructgpt.evals.scores import RewardJudge

EVALUATORS: dict[str, type] = {"pretrain_loss": HeldOutLoss}
JUDGES: dict[str, type] = {"gold": GoldJudge, "reward": RewardJudge}
