"""The interfaces of evaluators, which query a model, and of judges of its answers.

Both are named in the config of the evaluate stage, with their keyword fields: a
built-in one by its short name, your own by `module:Class`:

    config.judges.brief = dict(name="my_judges:Brief", words=20)

A class is constructed from these fields. A class that also needs the data, the reward
model or other settings of the comparison has a classmethod `open(setting, **fields)`,
which replaces the constructor and returns None if the data lack what it needs.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from instructgpt.data.datasets import Datasets
from instructgpt.data.documents import TokenWindows
from instructgpt.errors import UserError
from instructgpt.evals.judgements import Judgement
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.models.config import ModelConfig
from instructgpt.named import check_call, find_named

Record = Mapping[str, Any]
Value = float | Sequence[float]  # a number, or (value, low, high) of its interval


class Results(NamedTuple):
    """The results of an evaluator, or of all judgements, for one model."""

    # Numbers by name. A name may begin with a group: "flags/hallucination".
    numbers: Mapping[str, Value]
    # One JSON row per sample. Rows of judgements are in the order of the records, and
    # the report shows their `rating` beside the answer.
    rows: Sequence[Mapping[str, Any]] = ()


class Evaluator(Protocol):
    """Measures one model at a time, such as by a benchmark or a loss.

    evals/language.py has one.

    It may also have `check(config)`, which is called with the config of each model
    before any of them is asked, and raises UserError where it could not be.
    """

    def run(self, model: LanguageModel, records: Sequence[Record]) -> Results:
        """Returns the results for a model.

        Args:
          model: The model, which gives answers or log-likelihoods.
          records: The prompts that all models are compared on; an evaluator may use its
            own questions instead.
        """
        ...


class Judge(Protocol):
    """Judges the answers of all models to the same prompts."""

    def judge(
        self, records: Sequence[Record], responses: Mapping[str, Sequence[str]]
    ) -> Sequence[Judgement]:
        """Returns judgements of the answers, of all or of some, in any order.

        Win rates and all other numbers are computed from them (preference.py), by the
        ranks that a judgement gives, or by its score.

        Args:
          records: The N prompts, each with an `id`.
          responses: N answers of every model by its name, so that a judge can compare
            two models' answers in either order.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Setting:
    """The data and settings of a comparison."""

    data: Datasets
    split: str  # split of the prompts and documents: valid or test
    baseline: str  # name of the model that the others are compared with
    models: Sequence[str]  # names of all compared models, the baseline among them
    # Those of them that were trained to raise the reward model's score.
    trained_for_reward: Sequence[str]
    workdir: Path  # of the comparison; a judge may keep files there
    batch_size: int
    reward: Callable[[], RewardModel]  # loads the reward model, only once
    # Returns held-out pretraining text as rows of tokens for a model's config.
    windows: Callable[[ModelConfig], TokenWindows]
    log: Callable[[str], None]  # prints a line for the user


# The methods of an evaluator and of a judge, with their arguments.
METHODS = {"run": ("model", "records"), "judge": ("records", "responses")}


def named_classes(
    blocks: Mapping[str, Mapping[str, Any]],
    built_in: Mapping[str, type],
    *,
    method: str,
    where: str,
) -> dict[str, type]:
    """The classes of the evaluators or judges that a config names, by key.

    The built-in ones come first, in the order of their keys.

    Args:
      blocks: The `name` and the keyword fields of each key.
      built_in: Classes by short name.
      method: Name of the method that the classes must have, a key of METHODS.
      where: The config key of the blocks, for errors.

    Raises:
      UserError: there is no such class, or it has no such method or field.
    """
    out = {}
    for key, block in blocks.items():
        if not isinstance(block, Mapping):
            raise UserError(
                f"{where}.{key}={block!r}: give dict(name='module:Class', ...)"
            )
        fields = dict(block)
        name = fields.pop("name", "")
        cls = find_class(name, built_in, method=method, where=f"{where}.{key}")
        make, first = (cls.open, ["setting"]) if hasattr(cls, "open") else (cls, [])
        try:
            inspect.signature(make).bind(*first, **fields)
        except TypeError as error:
            raise UserError(f"{where}.{key}: {name}: {error}") from error
        out[key] = cls
    return dict(sorted(out.items(), key=lambda item: item[1] not in built_in.values()))


def build_named(
    blocks: Mapping[str, Mapping[str, Any]],
    built_in: Mapping[str, type],
    setting: Setting,
    *,
    method: str,
    where: str,
) -> dict[str, Any]:
    """Builds the evaluators or judges of `named_classes`, by key.

    Those for which the data lack something are left out. The arguments besides
    `setting`, which is for classes with an `open`, are those of `named_classes`.
    """
    out = {}
    classes = named_classes(blocks, built_in, method=method, where=where)
    for key, cls in classes.items():
        fields = {k: v for k, v in blocks[key].items() if k != "name"}
        made = cls.open(setting, **fields) if hasattr(cls, "open") else cls(**fields)
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
      method: Name of the method that the class must have.
      where: The config key of its block, for errors.

    Raises:
      UserError: there is no such class, or it has no such method with the arguments
        of METHODS.
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
    static = isinstance(inspect.getattr_static(cls, method), staticmethod | classmethod)
    arguments = METHODS[method] if static else ("self", *METHODS[method])
    what = f"{where}.name={name!r}: its {method}()"
    check_call(getattr(cls, method), arguments, what)
    return cls


def nested(numbers: Mapping[str, Value]) -> dict[str, Any]:
    """Numbers for results.json, with each group as a nested dict."""
    out: dict[str, Any] = {}
    for name, value in numbers.items():
        group, _, own = name.rpartition("/")
        block = out.setdefault(group, {}) if group else out
        # NumPy's numbers and arrays are no JSON.
        block[own] = np.asarray(value).tolist()
    return out
