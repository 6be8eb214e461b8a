"""Measures the models of a sweep: policies by answers, reward models by rankings.

Numbers are kept beside the runs, so that a sweep that is resumed, or gets more values,
measures only what is new.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from instructgpt.checkpoints import open_checkpoint
from instructgpt.data.rows import Rows
from instructgpt.errors import UserError, about
from instructgpt.evals.interface import Value
from instructgpt.evals.language import HeldOutLoss
from instructgpt.evals.measures import Yardstick
from instructgpt.evals.preferences import reward_rates
from instructgpt.identity import ANSWERS, RUNS, is_finished, of_workdir, read_json
from instructgpt.inference import LanguageModel
from instructgpt.manifest import value_checksum
from instructgpt.models.config import ModelConfig
from instructgpt.ranges import NonNegativeInt, PositiveInt
from instructgpt.stages import common, loading
from instructgpt.stages.asking import short_prompts
from instructgpt.stages.inputs import short_rows, text_windows
from instructgpt.stages.label import open_comparisons
from instructgpt.stages.rankings import comparison_encoder
from instructgpt.stages.sweep_values import Point, Sweep

_MOST_RESPONSES = 9  # answers of a ranking (paper §3.4)
Numbers = dict[str, Value]


@dataclasses.dataclass(frozen=True)
class MeasureConfig:
    """How every result is measured; stages are folders of the recipe's workdir."""

    split: Literal["valid", "test"] = "valid"  # of prompts, documents and rankings
    num_prompts: NonNegativeInt = 0  # number of prompts of the split; 0: all
    batch_size: PositiveInt = 64
    # Tokens of a row on which the pretraining loss is measured; 0: the context length.
    window: NonNegativeInt = 0
    reward: str = "reward"  # the reward model that scores answers
    baseline: str = "sft"  # the model that win rates are against; "": none
    select: str = "select"  # the stage that chose the baseline's epoch; "": the last
    # The model that the KL is measured against, the value's own where the sweep makes
    # one; "": none.
    reference: str = "rl_init"


class Measuring:
    """Measures the models of a sweep; made before its runs, to check what it reads."""

    def __init__(self, context: common.Context, sweep: Sweep, config: MeasureConfig):
        """Checks the recipe's models and opens those that all values share.

        Raises:
          UserError: a stage of the recipe has not been run, or does not fit the data.
        """
        self._context, self._sweep, self._config = context, sweep, config
        self._reward = sweep.reward or sweep.source(config.reward)
        self._policies = False  # whether any of the measured models is a policy
        self._losses = None
        if context.data.has("documents", config.split):
            self._losses = HeldOutLoss(self._windows)
        for key in ("reward", "baseline", "reference"):
            if name := getattr(config, key):
                path = self._reward if key == "reward" else sweep.source(name)
                with about(f"config.measure.{key}"):
                    found = check_source(_whole(path), context, scalar=key == "reward")
                if key != "reward" and self._losses is not None:
                    self._losses.check(found)
        count = config.num_prompts
        self._records = short_prompts(context, config.split, count=count)
        if len(self._records) < 2:
            raise UserError(
                f"config.measure: there are {len(self._records)} prompts, too few for "
                "an interval; give num_prompts=2 or more, or 0 for all"
            )

    @functools.cached_property
    def _yardstick(self) -> Yardstick:
        """The shared models, opened when the first policy is measured."""
        context, config = self._context, self._config
        found = Yardstick(
            records=self._records,
            reward=loading.reward_model(_whole(self._reward), context),
            world=context.data.world,
            losses=self._losses,
            batch_size=config.batch_size,
            key=context.key,
        )
        if config.baseline:
            found.baseline = found.utilities(
                self._open_baseline(),
                name=f"measure {config.baseline}",
                keep=context.workdir / ANSWERS / "baseline",
            )
        return found

    def _windows(self, config: ModelConfig) -> Any:
        return text_windows(
            self._context,
            self._config.split,
            config,
            self._config.window,
            key="config.measure.window",
        )

    def _open_baseline(self) -> LanguageModel:
        config, sweep = self._config, self._sweep
        chosen = sweep.source(config.select) if config.select else Path()
        init = loading.InitConfig(
            str(sweep.source(config.baseline)),
            part="",
            selected_by=str(chosen) if (chosen / "selected.json").exists() else "",
        )
        return loading.language_model(init, self._context)

    def beside(self) -> dict[str, Numbers]:
        """Numbers of the recipe's own models beside those of a sweep's policies.

        Returns:
          By the stage's name: all numbers of the baseline and of the reference, and the
          held-out loss of the pretrained model.
        """
        names = ["pretrain", self._config.baseline, self._config.reference]
        out: dict[str, Numbers] = {}
        for name in dict.fromkeys(filter(None, names)):
            path = self._sweep.source(name)
            if self._policies and is_finished(path):
                kept = self._context.workdir / RUNS / f"{name}.json"
                run = self._loss if name == "pretrain" else self._policy
                out[name] = self._kept(kept, path, functools.partial(run, path, None))
        return out

    def _loss(self, path: Path, point: Point | None) -> Numbers:
        del point
        if self._losses is None:
            return {}
        model = loading.language_model(_whole(path), self._context)
        return {"pretrain_loss": self._losses.interval(model)}

    def measure(self, point: Point, name: str) -> tuple[Numbers, int]:
        """Numbers of the model that a value's stage has left, and its size.

        Raises:
          UserError: its model cannot be used.
        """
        path = self._sweep.source(name, point)
        checkpoints, step = open_checkpoint(path, verify="nothing")
        meta = checkpoints.meta(step)
        checkpoints.close()
        scalar = meta["kind"] == "scalar"
        self._policies |= not scalar
        run = functools.partial(self._rankings if scalar else self._policy, path, point)
        numbers = self._kept(path.parent / f"{name}.measured.json", path, run)
        return numbers, ModelConfig(**meta["model"]).num_params

    def _kept(self, kept: Path, path: Path, measure: Callable[[], Numbers]) -> Numbers:
        """What was measured before of the same model in the same way, or is now."""
        config, sweep = self._config, self._sweep
        others = filter(None, (config.baseline, config.reference))
        sources = [path, self._reward, *map(sweep.source, others)]
        digests = [of_workdir(source) for source in sources]
        made_from = value_checksum([dataclasses.asdict(config), digests])
        if kept.exists():
            found = read_json(kept, remedy="delete it: it is measured again")
            if found["made_from"] == made_from:
                return found["numbers"]
        numbers = measure()
        kept.parent.mkdir(parents=True, exist_ok=True)
        common.write_json(kept, {"made_from": made_from, "numbers": numbers})
        return numbers

    def _policy(self, path: Path, point: Point | None) -> Numbers:
        context, config = self._context, self._config
        if point is None and config.baseline == path.name:
            policy = self._open_baseline()
        else:
            policy = loading.language_model(_whole(path), context)
        reference = None
        if config.reference:
            source = self._sweep.source(config.reference, point)
            reference = loading.language_model(_whole(source), context)
        shown = path.name if point is None else point.text
        return self._yardstick.measure(
            policy,
            reference,
            name=f"measure {shown}",
            keep=context.workdir / ANSWERS / path.parent.name / path.name,
        )

    def _rankings(self, path: Path, point: Point | None) -> Numbers:
        """A reward model's accuracy on held-out rankings, of two groups of labelers."""
        del point
        context = self._context
        model = loading.reward_model(loading.InitConfig(str(path)), context)
        encode = comparison_encoder(context, _MOST_RESPONSES)
        label = self._sweep.source("label")
        splits: dict[str, Rows] = {}
        for split in ("valid", "heldout"):
            own = {"heldout": "test"}.get(split, split)
            if is_finished(label):
                splits[split] = Rows(open_comparisons(label, split), encode)
            elif context.data.has("comparisons", own):
                source = context.data.source("comparisons", own)
                splits[split] = short_rows(context, source, encode, f"{own} rankings")
        rates = reward_rates(
            model, splits, batch_size=self._config.batch_size, log=common.announce
        )
        return {
            f"accuracy_{split}": rates[f"all_pairs_{split}"]
            for split in splits
            if f"all_pairs_{split}" in rates
        }


def _whole(path: Path) -> loading.InitConfig:
    """A stage's last model; of a PPO policy, its average."""
    return loading.InitConfig(str(path), part="")


def check_source(
    init: loading.InitConfig, context: common.Context, *, scalar: bool | None = None
) -> ModelConfig:
    """The config of a model of the finished recipe.

    Raises:
      UserError: it is not there, or does not fit the data; the message says which key
        names another recipe.
    """
    try:
        return loading.find(init, context, scalar=scalar)
    except UserError as error:
        raise UserError(
            f"{error} (a sweep starts from a finished recipe, "
            "--config.sweep.recipe=WORKDIR)"
        ) from error
