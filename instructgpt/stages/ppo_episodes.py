"""PPO's episodes: their settings, checks of sizes that must divide, and their data."""

import dataclasses
from typing import NamedTuple

from jax.sharding import Mesh
from ml_collections import ConfigDict

from instructgpt.data.datasets import DataConfig
from instructgpt.data.documents import TokenWindows
from instructgpt.data.loader import Loader, make_loader
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFraction,
    PositiveInt,
)
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import batch_share, batch_ways, check_divides
from instructgpt.stages.asking import Record, short_prompts
from instructgpt.stages.blocks import TrainConfig, block_of
from instructgpt.stages.inputs import (
    enough_windows,
    has_valid,
    prompt_rows,
    text_windows,
    valid_windows,
)
from instructgpt.stages.opening import Context
from instructgpt.steps.ppo import PPOConfig

_LENGTH_KEY = "config.rollout.ptx_length"


@dataclasses.dataclass(frozen=True)
class RolloutConfig:
    """How episodes are sampled and how often they are used."""

    minibatch_size: PositiveInt  # number of episodes per optimiser step
    epochs: PositiveInt = 1  # number of passes over a batch of episodes
    temperature: NonNegativeFloat = 1.0
    top_p: PositiveFraction = 1.0
    # Number of prompts decoded at a time, of free slots filled together, and of widths
    # of a prefill, see SamplingConfig.
    slots: NonNegativeInt = 0
    refill: NonNegativeInt = 0
    prompt_buckets: PositiveInt = 1
    # Number of pretraining windows per episode (paper: 8), and tokens of a window, also
    # of the held-out loss (0: the model's context length).
    ptx_per_episode: NonNegativeFloat = 0.0
    ptx_length: NonNegativeInt = 0
    # Score of a response cut at the length limit; None keeps the reward's score.
    truncation_score: float | None = None
    # Number of parts of the episodes that are scored one at a time; each part reads
    # all weights.
    score_microbatches: PositiveInt = 1
    num_prompts: NonNegativeInt = 0  # number of training prompts; 0: all
    num_samples: NonNegativeInt = 8  # validation prompts answered at each evaluation

    def sampling(self, max_response: int) -> SamplingConfig:
        """The sampling settings of the episodes."""
        return SamplingConfig(
            max_response,
            temperature=self.temperature,
            top_p=self.top_p,
            slots=self.slots,
            refill=self.refill,
            prompt_buckets=self.prompt_buckets,
        )

    @property
    def ptx_rows(self) -> int:
        """Number of pretraining windows per minibatch."""
        return round(self.ptx_per_episode * self.minibatch_size)


class Settings(NamedTuple):
    """The blocks of a PPO stage that define its iterations."""

    ppo: PPOConfig
    rollout: RolloutConfig
    train: TrainConfig
    data: DataConfig

    @classmethod
    def of(cls, config: ConfigDict) -> "Settings":
        """Builds the settings from a stage's config."""
        return cls(
            block_of(config, "ppo", PPOConfig),
            block_of(config, "rollout", RolloutConfig),
            block_of(config, "train", TrainConfig),
            block_of(config, "data", DataConfig),
        )

    @property
    def minibatches(self) -> int:
        """Number of minibatches of an iteration's episodes; each is one update."""
        return self.train.batch_size // self.rollout.minibatch_size

    @property
    def text_rows(self) -> int:
        """Number of pretraining windows of an iteration."""
        return self.minibatches * self.rollout.ptx_rows

    def sampling(self) -> SamplingConfig:
        """The sampling settings of the episodes."""
        return self.rollout.sampling(self.data.max_response)


def check_sizes(settings: Settings, mesh: Mesh) -> None:
    """Raises UserError if episodes or text do not divide into their parts.

    Args:
      settings: The stage's settings.
      mesh: The mesh of the run.
    """
    ppo, rollout, train_config, _ = settings
    size, batch = rollout.minibatch_size, train_config.batch_size
    if batch % size:
        raise UserError(
            f"config.rollout.minibatch_size={size} does not divide "
            f"config.train.batch_size={batch}"
        )
    check_divides(mesh, rollout__minibatch_size=size)
    if size % ppo.microbatches:
        raise UserError(
            f"config.ppo.microbatches={ppo.microbatches} does not divide "
            f"config.rollout.minibatch_size={size}"
        )
    parts, ways = rollout.score_microbatches, batch_ways(mesh)
    if parts < 1 or batch % (parts * ways):
        raise UserError(
            f"config.rollout.score_microbatches={parts} times the mesh's data x fsdp = "
            f"{ways} ways does not divide config.train.batch_size={batch}"
        )
    check_divides(mesh, rollout__slots=rollout.slots)
    if train_config.microbatches != 1:
        raise UserError(
            f"config.train.microbatches={train_config.microbatches}: PPO cuts its "
            "minibatches by config.ppo.microbatches; set that, and leave this at 1"
        )
    _check_ptx(mesh, settings)
    if rollout.temperature == 0:
        raise UserError(
            "config.rollout.temperature=0: greedy rollouts have no log-probs to learn "
            "from; use 1"
        )


def _check_ptx(mesh: Mesh, settings: Settings) -> None:
    ppo, rollout, *_ = settings
    key, rows = "config.rollout.ptx_per_episode", rollout.ptx_rows
    if bool(ppo.ptx_coef) != bool(rollout.ptx_per_episode):
        raise UserError(
            f"config.ppo.ptx_coef and {key} go together: set both for PPO-ptx, or both "
            "to 0 for PPO"
        )
    given = f"{key}={rollout.ptx_per_episode}: "
    if rollout.ptx_per_episode and not rows:
        raise UserError(
            f"{given}a minibatch of {rollout.minibatch_size} episodes gets no row of "
            "pretraining text; raise it"
        )
    ways = batch_ways(mesh)
    parts = "ptx_microbatches" if ppo.ptx_microbatches else "microbatches"
    count = getattr(ppo, parts)
    if rows % count or settings.text_rows % ways:
        raise UserError(
            f"{given}{rows} rows per minibatch must be a multiple of "
            f"config.ppo.{parts}={count}, and the iteration's "
            f"{settings.text_rows} of the mesh's data x fsdp = {ways} ways; change it"
        )


def prompt_loader(context: Context, settings: Settings) -> Loader:
    """Loads the prompts of the episodes; one pass over them is an epoch."""
    source = context.data.source("prompts", "train")
    rows = prompt_rows(context, source, "train prompts")
    return make_loader(
        rows.first(settings.rollout.num_prompts or len(rows)),
        None,
        batch_size=settings.train.batch_size,
        seed=context.config.seed,
        **batch_share(context.mesh)._asdict(),
    )


def text_loader(
    context: Context, settings: Settings, model_config: ModelConfig
) -> dict[str, Loader]:
    """Loads an iteration's pretraining rows as `ptx`; empty for plain PPO."""
    if not settings.text_rows:
        return {}
    windows = text_windows(
        context, "train", model_config, settings.rollout.ptx_length, key=_LENGTH_KEY
    )
    loader = make_loader(
        enough_windows(context, windows, settings.text_rows),
        None,
        batch_size=settings.text_rows,
        seed=context.config.seed,
        **batch_share(context.mesh)._asdict(),
    )
    return {"ptx": loader}


class HeldOut(NamedTuple):
    """The held-out data of the policy's evaluation, as far as they exist."""

    windows: TokenWindows | None  # windows of pretraining text
    prompts: list[Record] | None  # prompts whose answers are shown

    @classmethod
    def open(
        cls, context: Context, settings: Settings, model_config: ModelConfig
    ) -> "HeldOut":
        """Opens the valid splits; prints what is left out if one is missing."""
        prompts = None
        windows = valid_windows(
            context,
            model_config,
            settings.rollout.ptx_length,
            key=_LENGTH_KEY,
            what="held-out pretraining loss",
        )
        count = settings.rollout.num_samples
        if count and has_valid(context, "prompts", "samples"):
            prompts = short_prompts(context, "valid", count=count)
        return cls(windows, prompts)
