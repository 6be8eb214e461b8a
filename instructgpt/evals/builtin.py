"""The built-in evaluators and judges, by the short names that a config uses."""

from instructgpt.evals.judges.chat import ChatJudge
from instructgpt.evals.judges.gold import GoldJudge
from instructgpt.evals.judges.labelers import LabelersJudge
from instructgpt.evals.judges.people import PeopleJudge
from instructgpt.evals.judges.reward import RewardJudge
from instructgpt.evals.language import HeldOutLoss
from instructgpt.evals.world_tasks import WorldTasks
from instructgpt.evals.world_toxicity import WorldToxicity
from instructgpt.evals.world_truthful import WorldTruthful

EVALUATORS: dict[str, type] = {
    "pretrain_loss": HeldOutLoss,
    "world_truthful": WorldTruthful,
    "world_toxicity": WorldToxicity,
    "world_tasks": WorldTasks,
}
JUDGES: dict[str, type] = {
    "gold": GoldJudge,
    "people": PeopleJudge,
    "chat": ChatJudge,
    "labelers": LabelersJudge,
    "reward": RewardJudge,
}
