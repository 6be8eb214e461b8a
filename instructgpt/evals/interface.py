"""What compares models: evaluators, which ask a model, and judges of its answers.

Both are named in the config of the evaluate stage, a built-in one by its short name and
one of your own by `module:Class`, with their keyword fields:

    config.judges.brief = dict(name="my_judges:Brief", words=20)

A class is built from these fields. One that also needs the data, the reward model or
the other settings of the comparison has a classmethod `open(setting, **fields)`, which
is called in place of the constructor, and gives None where the data lack what it needs.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from instructgpt.data.datasets import Datasets
from instructgpt.data.documents import TokenWindows
from instructgpt.errors import UserError
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.models.config import ModelConfig
from instructgpt.named import find_named

Record = Mapping[str, Any]
Value = float | Sequence[float]  # a number, or (value, low, high) of its interval


class Results(NamedTuple):
    """What is found about one model."""

    # By name. A name may begin with a group and a slash: "flags/hallucination".
    numbers: Mapping[str, Value]
    # One for each sample, as JSON. A judge's are in the order of the records; a
    # `rating` in them stands beside the answer in the report.
    rows: Sequence[Mapping[str, Any]] = ()


class Evaluator(Protocol):
    """Asks one model at a time: a benchmark, a loss; evals/language.py has one.

    It may also have `check(config)`, which is called with the config of each model
    before any of them is asked, and raises UserError where it could not be.
    """

    def run(self, model: LanguageModel, records: Sequence[Record]) -> Results:
        """What is found about a model.

        Args:
          model: To be asked for answers or log-likelihoods.
          records: The prompts that all models are compared on; an evaluator may have
            questions of its own instead.
        """
        ...


class Judge(Protocol):
    """Judges the answers of all models to the same prompts."""

    def judge(
        self, records: Sequence[Record], responses: Mapping[str, Sequence[str]]
    ) -> Mapping[str, Results]:
        """What is found about each model, by its name.

        Args:
          records: [N] prompts.
          responses: [N] answers of every model by its name, so that a judge can be
            shown two of them at once, in either order.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a comparison is made with."""

    data: Datasets
    split: str  # whose prompts and documents: valid or test
    baseline: str  # name of the model that the others are compared with
    batch_size: int
    reward: Callable[[], RewardModel]  # loads it once
    # Held-out pretraining text as rows of tokens for a model of this config.
    windows: Callable[[ModelConfig], TokenWindows]
    log: Callable[[str], None]  # tells the user


def build_named(
    blocks: Mapping[str, Mapping[str, Any]],
    built_in: Mapping[str, type],
    setting: Setting,
    *,
    method: str,
    where: str,
) -> dict[str, Any]:
    """Evaluators or judges by key, as the config names them.

    Args:
      blocks: Of each key its `name` and the keyword fields.
      built_in: Classes by short name.
      setting: For classes with an `open`.
      method: That the classes must have.
      where: The config key of the blocks, for errors.

    Raises:
      UserError: there is no such class, or it has no such method or field.
    """
    out = {}
    for key, block in blocks.items():
        fields = dict(block)
        name = fields.pop("name", "")
        cls = find_class(name, built_in, method=method, where=f"{where}.{key}")
        make: Callable[..., Any] = getattr(cls, "open", cls)
        first = () if make is cls else (setting,)
        try:
            inspect.signature(make).bind(*first, **fields)
        except TypeError as error:
            raise UserError(f"{where}.{key}: {name}: {error}") from error
        made = make(*first, **fields)
        if made is not None:
            out[key] = made
    return out


def find_class(
    name: str, built_in: Mapping[str, type], *, method: str, where: str
) -> type:
    """The class that a config names.

    Args:
      name: A short name, or module:Class.
      built_in: Classes by short name.
      method: That it must have.
      where: The config key of its block, for errors.

    Raises:
      UserError: there is none, or it has no such method.
    """
    if name in built_in:
        return built_in[name]
    if ":" not in name:
        raise UserError(
            f"{where}.name={name!r}: give one of {sorted(built_in)}, or one of your "
            "own as module:Class"
        )
    cls = find_named(name, where=f"{where}.name", example="my_judges:Brief")
    if not callable(getattr(cls, method, None)):
        raise UserError(f"{where}.name={name!r}: the class has no method {method!r}")
    return cls


def nested(numbers: Mapping[str, Value]) -> dict[str, Any]:
    """Numbers for results.json, those of a group under its name."""
    out: dict[str, Any] = {}
    for name, value in numbers.items():
        group, _, own = name.rpartition("/")
        block = out.setdefault(group, {}) if group else out
        block[own] = list(value) if isinstance(value, Sequence) else value
    return out
