"""Runs checkpoints on text: text in, and text, log-probs or scores out.

    prompts = ["Where does Dela live?", "Who is Falk?"]
    policy = LanguageModel.open("runs/mini/ppo_ptx", part="ema")
    answers = [texts[0] for texts in policy.generate(prompts)]
    scores = RewardModel.open("runs/mini/reward").score(prompts, answers)

The models handle templates, stop tokens, padding, batches and the mesh; callers handle
only text. A prompt is a text, or a record with `prompt` and, for a dialogue, `history`:
the earlier prompts and responses in turn. Models that differ only in their parameters
share compiled programs, one for each temperature and batch size.
"""

from instructgpt.inference.language_model import LanguageModel
from instructgpt.inference.reward_model import RewardModel

__all__ = ["LanguageModel", "RewardModel"]
