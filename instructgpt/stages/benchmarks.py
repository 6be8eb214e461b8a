"""Benchmarks of any models: the evaluate stage when `config.evaluate.suite` is set.

The models need not be of one recipe: each has its own tokenizer, and none has to do
with the data of a config. Benchmarks are those of the Evaluation Harness, among them
the paper's (evals/tasks).
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from instructgpt.data.datasets import Datasets
from instructgpt.errors import UserError, about
from instructgpt.evals.benchmarks.suite import Suite
from instructgpt.evals.benchmarks.toxicity import open_scorer, with_toxicity
from instructgpt.evals.benchmarks.truthful import open_judges, with_truth
from instructgpt.evals.interface import Results, nested
from instructgpt.identity import ANSWERS
from instructgpt.inference import LanguageModel
from instructgpt.paths import resolve
from instructgpt.stages import common, loading
from instructgpt.stages.compared import (
    Answer,
    ModelEntry,
    entry_init,
    find_functions,
    prompt_format_of,
    step_of,
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Models that benchmarks measure, checked before any of them runs."""

    context: common.Context
    labels: Mapping[str, str]
    inits: Mapping[str, loading.InitConfig]  # with absolute paths
    # Models that are functions, from texts to their completions.
    functions: Mapping[str, Answer]

    @classmethod
    def open(
        cls,
        config: ConfigDict,
        workdir: str | os.PathLike[str],
        entries: Mapping[str, ModelEntry],
    ) -> "Comparison":
        """Opens the workdir, after a look at each model.

        Raises:
          UserError: a model is missing, is no language model or has no tokenizer.
        """
        workdir = Path(workdir).absolute()
        if not entries:
            raise UserError("config.evaluate.models: name the models to be measured")
        inits, forms = {}, []
        functions = find_functions(entries)
        for name, entry in entries.items():
            init = entry_init(entry, name)
            if entry.prompted:
                common.announce(
                    f"{config.name}: {name} is left out, as benchmarks have "
                    "examples of their own"
                )
                continue
            if name in functions:
                continue
            init = dataclasses.replace(
                init,
                path=resolve(init.path, workdir),
                selected_by=init.selected_by and resolve(init.selected_by, workdir),
            )
            with about(f"model {name}"):
                forms.append(prompt_format_of(init))
            inits[name] = init
        if not forms:
            raise UserError("config.evaluate.models: name a workdir besides functions")
        none = Datasets({}, {}, workdir, forms[0], None)
        labels = {
            name: entry.label
            for name, entry in entries.items()
            if name in inits or name in functions
        }
        context = common.start(config, workdir, data=none)
        return cls(context, labels, inits, functions)

    def run(
        self,
        names: str,
        *,
        limit: int,
        sets: str,
        batch_size: int,
        toxicity: str,
        judges: str,
    ) -> dict[str, Any]:
        """Loads benchmarks, runs them on each model, and returns the results.

        Args:
          names: Names of benchmarks, see `Suite.open`.
          limit: Questions of a benchmark; 0: all.
          sets: A folder of data sets; "": they are from the hub.
          batch_size: Rows of a batch.
          toxicity: What scores completions, see `open_scorer`; "": nothing does.
          judges: What judges TruthfulQA's answers, see `open_judges`; "": nothing.

        Raises:
          UserError: see `Suite.open` and `open_scorer`.
        """
        workdir = self.context.workdir
        with about("config.evaluate"):
            suite = Suite.open(
                names,
                limit=limit,
                sets=resolve(sets, workdir) if sets else "",
                batch_size=batch_size,
                keep=workdir / ANSWERS,
            )
        path = resolve(toxicity, workdir)
        scores = open_scorer(path if toxicity and Path(path).exists() else toxicity)
        asked = open_judges(resolve(judges, workdir) if judges else "")
        for name in self.functions:
            suite.check_answers_suffice(name)
        numbers: dict[str, dict[str, Any]] = {}
        for name in self.labels:
            found = with_toxicity(self._measure(name, suite), scores)
            found = with_truth(found, asked)
            rows = [dict(row) for row in found.rows]
            common.write_json(workdir / "samples" / f"{name}.json", rows)
            numbers[name] = nested(found.numbers)
        return {
            "models": {name: {"label": label} for name, label in self.labels.items()},
            "benchmarks": numbers,
            "questions": suite.questions,
        }

    def _measure(self, name: str, suite: Suite) -> Results:
        if name in self.functions:
            from instructgpt.evals.benchmarks.function_model import FunctionModel

            return suite.ask(FunctionModel(self.functions[name], f"model {name}"))
        init = self.inits[name]
        model = LanguageModel.open(
            init.path, part=init.part, step=step_of(init), verify=self.context.verify
        )
        return suite.run(model, name=name)
