"""Puts a prompt of your own to the finished models, side by side."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from instructgpt.errors import about
from instructgpt.stages import common, loading
from instructgpt.stages.evaluate import (
    EvaluateConfig,
    build_entries,
    entry_sampler,
    load_entry,
    prompt_options,
)
from instructgpt.stages.sampling import Prompts, ScoreTexts


class Answer(NamedTuple):
    """What one model said, and what the reward model thinks of it."""

    label: str
    text: str
    score: float


class Panel:
    """The models of a recipe's evaluate stage and its reward model, loaded once.

    Args:
      config: Of the evaluate stage.
      workdir: Of the evaluate stage; its models are found from there.

    Raises:
      UserError: a stage that makes one of the models has not been run.
    """

    def __init__(self, config: ConfigDict, workdir: str | Path):
        self._context = common.start(config, workdir, reading=True)
        settings = common.build(
            EvaluateConfig, config.evaluate, where="config.evaluate"
        )
        samplers: dict[Any, Any] = {}
        self._models = []
        with jax.set_mesh(self._context.mesh):
            for name, entry in build_entries(config).items():
                loaded = load_entry(self._context, entry, name)
                put = prompt_options(self._context, entry, loaded.model.config)
                # Models that differ in nothing but parameters share a compilation.
                key = (loaded.model.config, entry.temperature, entry.prompted)
                if key not in samplers:
                    samplers[key] = entry_sampler(self._context, entry, loaded)
                self._models.append((entry.label, loaded, samplers[key], put))
            init = loading.InitConfig(settings.reward)
            reward = loading.load(init, self._context, scalar=True)
            self._score = ScoreTexts(self._context, reward, batch_size=1)

    def ask(self, prompt: str, *, seed: int = 0) -> list[Answer]:
        """One sampled answer of every model; another seed gives others.

        Raises:
          UserError: the prompt is too long, or a model gives what is not finite.
        """
        record = {"id": "yours", "prompt": prompt}
        answers = []
        with jax.set_mesh(self._context.mesh):
            for label, loaded, sampler, put in self._models:
                asked = Prompts(self._context, "", records=[record], **put)
                key = jax.random.key(seed)
                with about(loaded.source):
                    ((text,),) = asked.respond(
                        sampler, loaded.params, key, batch_size=1
                    )
                text = text.strip("\n")
                (score,) = self._score([record], [text])
                answers.append(Answer(label, text, float(score)))
        return answers
