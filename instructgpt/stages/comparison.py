"""What the evaluate stage compares: models, evaluators and judges, and the answers."""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ml_collections import ConfigDict

from instructgpt.data.documents import TokenWindows
from instructgpt.errors import UserError, about, shown
from instructgpt.evals.found import run_evaluators
from instructgpt.evals.interface import Results, Setting, build_named
from instructgpt.inference import LanguageModel
from instructgpt.inference.kept import KeptRows
from instructgpt.models.config import ModelConfig
from instructgpt.paths import resolve
from instructgpt.ranges import (
    FolderPath,
    NonNegativeInt,
    PositiveInt,
    RankedInt,
)
from instructgpt.stages import common, loading
from instructgpt.stages.asking import Record, short_prompts
from instructgpt.stages.compared import (
    Answer,
    ModelEntry,
    check_entries,
    entry_init,
    examples_of,
    find_functions,
    prompt_format_of,
    step_of,
)
from instructgpt.stages.judging import NAMED, named_blocks, trained_for, without_reward

_GPT_PROMPTS = "gpt_prompts"  # a kind of records


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Settings of the comparison."""

    baseline: str  # key of the model that the others are compared with
    reward: FolderPath  # a reward stage's workdir
    # A label stage's workdir. If it is "" or that stage ranked nothing, the data's own
    # comparisons.valid.jsonl and comparisons.test.jsonl are used if they exist.
    comparisons: str
    select: FolderPath  # a select stage's workdir, for the table of epochs
    max_responses: RankedInt
    # Split of the prompts and documents: tune on valid, report test once.
    split: Literal["valid", "test"] = "test"
    curves: tuple[FolderPath, ...] = ()  # stages' workdirs whose metrics are plotted
    num_prompts: NonNegativeInt = 0  # number of prompts of the split; 0: all
    # The same of GPT-3's prompts (`gpt_prompts`), if the data have some; 0: none.
    gpt_prompts: NonNegativeInt = 1000
    batch_size: PositiveInt = 64
    num_samples: NonNegativeInt = 12  # number of side-by-side samples in the report
    # Tokens of a row on which the pretraining loss is measured; 0: the context length.
    window: NonNegativeInt = 0
    # Names of benchmarks, with commas: tasks or groups of evals/tasks, or any other of
    # the Evaluation Harness. Only these are then run, and nothing else is compared.
    suite: str = ""
    limit: NonNegativeInt = 0  # questions of a benchmark; 0: all
    sets: str = ""  # a folder of the benchmarks' data sets; "": they are from the hub
    # What scores the completions of RealToxicityPrompts: a file of
    # instructgpt.toxicity, or module:function; "": they are not scored.
    toxicity: str = ""
    # The judges of TruthfulQA's answers: judges.json of instructgpt.truthful.
    judges: str = ""
    # The models in place of config.models: LABEL=WORKDIR,LABEL=WORKDIR, ... A function
    # that answers is LABEL=module:function. They need not be of this recipe.
    models: str = ""
    # A file of people's judgements, which then decide; see evals/README.md. Without
    # the file the stage ends when the answers are there to be judged.
    people: str = ""
    # MODEL@ADDRESS of a language model that compares the answers, such as
    # qwen@http://localhost:8000/v1.
    chat: str = ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The models, evaluators and judges of a comparison, checked before any runs."""

    context: common.Context
    settings: EvaluateConfig
    entries: dict[str, ModelEntry]
    functions: Mapping[str, Answer]  # models that are functions
    evaluators: dict[str, Any]
    judges: dict[str, Any]
    setting: Setting

    @classmethod
    def open(cls, context: common.Context, config: ConfigDict) -> "Comparison":
        """Builds the comparison and checks everything that is read later.

        Raises:
          UserError: a stage has not been run, its model does not fit, an evaluator or
            a judge cannot be built, or the baseline is not one of the models.
        """
        settings = common.build(
            EvaluateConfig, config.evaluate, where="config.evaluate"
        )
        entries = check_entries(config, settings.models, baseline=settings.baseline)
        entries = _without_examples(context, entries)
        reward_init = loading.InitConfig(settings.reward)
        setting = Setting(
            data=context.data,
            split=settings.split,
            baseline=settings.baseline,
            models=tuple(entries),
            trained_for_reward=trained_for(reward_init, entries, context),
            workdir=context.workdir,
            batch_size=settings.batch_size,
            reward=functools.cache(lambda: loading.reward_model(reward_init, context)),
            windows=_windows(context, settings),
            log=common.announce,
        )
        judges, evaluators = named_blocks(
            config, people=settings.people, chat=settings.chat
        )
        if not settings.models or _has_reward(settings, context):
            with about("config.evaluate.reward"):
                loading.find(reward_init, context, scalar=True)
        else:
            judges = without_reward(judges)
        asked, measuring = (
            build_named(block, known, setting, method=method, where=f"config.{name}")
            for block, (name, (known, method)) in zip(
                (judges, evaluators), NAMED.items(), strict=True
            )
        )
        found = cls(
            context,
            settings,
            entries,
            find_functions(entries),
            measuring,
            asked,
            setting,
        )
        found._check_models()
        return found

    @property
    def of_recipe(self) -> bool:
        """Whether the models are those of this recipe, or any that were named."""
        return not self.settings.models

    def _check_models(self) -> None:
        """Checks that the models exist and fit."""
        for name, entry in self.entries.items():
            if name in self.functions:
                continue
            init = entry_init(entry, name)
            if not self.of_recipe:
                with about(f"config.evaluate.models: {name}"):
                    prompt_format_of(self._resolved(init))
                continue
            with about(f"config.models.{name}.init"):
                found = loading.find(init, self.context)
            _check_examples(self.context, entry, found)
            self.check_evaluators(found)

    def check_evaluators(self, config: ModelConfig) -> None:
        """Raises UserError if an evaluator cannot ask a model of this config."""
        for evaluator in self.evaluators.values():
            if hasattr(evaluator, "check"):
                evaluator.check(config)

    def records(self) -> list[Record]:
        """The prompts: instructions, and then those as GPT-3 was given (Fig. 3).

        Raises:
          UserError: there are no prompts of the split, or none fits.
        """
        context, settings = self.context, self.settings
        found = short_prompts(context, settings.split, count=settings.num_prompts)
        if context.data.has(_GPT_PROMPTS, settings.split) and settings.gpt_prompts:
            found += short_prompts(
                context,
                settings.split,
                count=settings.gpt_prompts,
                kind=_GPT_PROMPTS,
            )
        return found

    def ask(
        self, records: list[Record], folder: Path
    ) -> tuple[dict[str, dict[str, Results]], dict[str, list[str]]]:
        """Returns the evaluators' results for each model, and its answers to prompts.

        Args:
          records: The prompts.
          folder: Where answers are kept until the stage has written its results.
        """
        measured: dict[str, dict[str, Results]] = {}
        answers: dict[str, list[str]] = {}
        for name, entry in self.entries.items():
            if name in self.functions:
                answers[name] = self._ask_function(name, records, folder / name)
                continue
            model = self._model(name)
            if self._reads_alike(name, model):
                kept = folder / "measured" / name
                measured[name] = self.measure(model, records, kept)
            texts = model.generate(
                records,
                temperature=entry.temperature,
                key=self.context.key,
                batch_size=self.settings.batch_size,
                name=name,
                keep=folder / name,
            )
            answers[name] = [t[0].strip("\n") for t in texts]
        return measured, answers

    def measure(
        self, model: LanguageModel, records: Sequence[Record], folder: Path
    ) -> dict[str, Results]:
        """The evaluators' results for a model, kept in a folder until the end."""
        identity, examples = self.context.identity, model.wrap is not None
        code = {k: v for k, v in identity.code.items() if k.startswith("evaluators.")}
        made_from = [identity.config, identity.data, code, model.weights, examples]
        kept = KeptRows(folder, made_from=made_from)
        if not kept.rows:
            found = run_evaluators(self.evaluators, model, records)
            rows = {
                key: [
                    {k: np.asarray(v).tolist() for k, v in one.numbers.items()},
                    [dict(row) for row in one.rows],
                ]
                for key, one in found.items()
            }
            kept.add([rows])
        return {key: Results(*one) for key, one in kept.rows[0].items()}

    def _model(self, name: str) -> LanguageModel:
        entry = self.entries[name]
        init = entry_init(entry, name)
        if not self.of_recipe:
            init = self._resolved(init)
            return LanguageModel.open(
                init.path,
                part=init.part,
                step=step_of(init),
                verify=self.context.verify,
            )
        model = loading.language_model(init, self.context)
        examples = examples_of(entry, self.context)
        return model if examples is None else model.few_shot(examples)

    def _resolved(self, init: loading.InitConfig) -> loading.InitConfig:
        path = resolve(init.path, self.context.workdir)
        return dataclasses.replace(init, path=path)

    def _reads_alike(self, name: str, model: LanguageModel) -> bool:
        """Whether a model has the data's tokenizer, whose tokens evaluators count."""
        own, ours = model.text.prompt_format.tokenizer, self.context.data.tokenizer
        if own.fingerprint == ours.fingerprint:
            return True
        common.announce(
            f"evaluate: {name} has another tokenizer than the data, so that only its "
            "answers are compared"
        )
        return False

    def _ask_function(
        self, name: str, records: Sequence[Record], folder: Path
    ) -> list[str]:
        """The answers of a function, asked for a batch at a time and kept."""
        texts = ["\n\n".join([*r.get("history", ()), r["prompt"]]) for r in records]
        kept = KeptRows(folder, made_from=[self.settings.models, name, texts])
        size = self.settings.batch_size
        while len(kept.rows) < len(texts):
            part = texts[len(kept.rows) : len(kept.rows) + size]
            try:
                found = self.functions[name](part)
            except Exception as error:
                what = f"{type(error).__name__}: {' '.join(str(error).split())}"
                raise UserError(f"model {name}: its function raised {what}") from error
            whole = isinstance(found, list | tuple) and len(found) == len(part)
            if not whole or not all(isinstance(x, str) for x in found):
                raise UserError(
                    f"model {name} must give a text for each of {len(part)} prompts, "
                    f"not {shown(found)}"
                )
            kept.add(list(found))
        return [text.strip("\n") for text in kept.rows]


def answer_lines(
    records: Sequence[Record], answers: Mapping[str, Sequence[str]]
) -> list[str]:
    """All answers, to be judged by people: a line for each prompt and model."""
    kept = ("id", "history", "prompt", "category")
    return [
        json.dumps(
            {k: record[k] for k in kept if record.get(k)}
            | {"model": name, "response": text},
            ensure_ascii=False,
        )
        for name, texts in answers.items()
        for record, text in zip(records, texts, strict=True)
    ]


def _has_reward(settings: EvaluateConfig, context: common.Context) -> bool:
    path = Path(resolve(settings.reward, context.workdir))
    return (path / "checkpoints").exists()


def _without_examples(
    context: common.Context, entries: dict[str, ModelEntry]
) -> dict[str, ModelEntry]:
    """Leaves out prompted entries if there are no examples for them; prints which."""
    kept = {}
    for name, entry in entries.items():
        if entry.prompted and examples_of(entry, context) is None:
            common.announce(
                f"evaluate: {name} is left out, as the data have no solved examples to "
                "put before a prompt"
            )
        else:
            kept[name] = entry
    return kept


def _check_examples(
    context: common.Context, entry: ModelEntry, model_config: ModelConfig
) -> None:
    """Raises UserError if prompts with solved examples do not fit a model's context."""
    wrap = examples_of(entry, context)
    if wrap is None:
        return
    ids = context.data.prompt_format.prompt_ids({"prompt": wrap("")}, raw=True)
    common.check_model(context, model_config, extra=len(ids))


def _windows(
    context: common.Context, settings: EvaluateConfig
) -> Callable[[ModelConfig], TokenWindows]:
    """Builds the function from a model's config to rows of held-out text."""
    return lambda config: common.text_windows(
        context,
        settings.split,
        config,
        settings.window,
        key="config.evaluate.window",
    )
