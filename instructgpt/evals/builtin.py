"""The built-in evaluators and judges, by the short names that a config uses."""

from instructgpt.evals.judges.chat import ChatJudge
from instructgpt.evals.judges.gold import GoldJudge
from instructgpt.evals.judges.labelers import LabelersJudge
from instructgpt.evals.judges.people import PeopleJudge
from instructgpt.evals.judges.reward import RewardJudge
from instructgpt.evals.language import HeldOutLoss
from instructgpt.evals.world.tasks import WorldTasks
from instructgpt.evals.world.toxicity import WorldToxicity
from instructgpt.evals.world.truthful import WorldTruthful

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
