"""Benchmarks of a model: the paper's task files, and any task of the harness."""

import contextlib
import dataclasses
import importlib.util
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from instructgpt.errors import UserError
from instructgpt.evals.interface import Results, Value
from instructgpt.evals.intervals import mean_interval
from instructgpt.inference import LanguageModel
from instructgpt.manifest import value_checksum

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

TASKS = Path(__file__).parent.parent / "tasks"
_SEED = 1234  # the harness's own, of the few-shot examples
_RESAMPLES = 200  # of the interval of a measure that is no mean


@dataclasses.dataclass(frozen=True)
class Suite:
    """Runs tasks of the Evaluation Harness on each model.

    A number's name is TASK/METRIC. The interval of a mean is `mean_interval`'s; that of
    another measure, such as BLEU, is by bootstrap over its rows.
    """

    tasks: "tuple[Task, ...]"
    limit: int | None = None  # questions of a task; None: all
    batch_size: int | None = None
    keep: Path | None = None  # folder of what models have said

    @classmethod
    def open(
        cls,
        names: str | Sequence[str],
        *,
        limit: int = 0,
        sets: str = "",
        batch_size: int | None = None,
        keep: Path | None = None,
    ) -> "Suite":
        """Loads tasks, and builds each one's questions to see that they are whole.

        Args:
          names: Tasks or groups: ours, see evals/tasks, or the harness's; a text has
            commas between them.
          limit: Questions of a task, from the first on; 0: all.
          sets: A folder of data sets, see `local_sets`; "": they are from the hub.
          batch_size: Rows of a batch; None: 64 or less.
          keep: A folder that stores what models say, so that a run resumes after a
            kill. The caller deletes it.

        Raises:
          UserError: the harness is not installed, there is no such task, its data are
            missing, or its file does not fit them.
        """
        listed = names.split(",") if isinstance(names, str) else list(names)
        found = load_tasks(listed, Path(sets).expanduser() if sets else None)
        for task in found:
            _check_task(task, limit or None)
        return cls(tuple(found), limit or None, batch_size, keep)

    @property
    def questions(self) -> dict[str, int]:
        """The number of questions of each task."""
        counts = {task.task_name: len(task.eval_docs) for task in self.tasks}
        return {name: min(n, self.limit or n) for name, n in counts.items()}

    def run(self, model: LanguageModel, *, name: str = "") -> Results:
        """Returns each task's metrics, and a row for each of its questions.

        Args:
          model: The model.
          name: Name at the start of progress lines; "": no lines.
        """
        from instructgpt.evals.benchmarks.adapter import HarnessModel

        same = value_checksum([model.weights, dataclasses.asdict(model.model.config)])
        keep = self.keep / f"benchmarks-{same}" if self.keep else None
        return self.ask(
            HarnessModel(model, batch_size=self.batch_size, name=name, keep=keep)
        )

    def check_answers_suffice(self, name: str) -> None:
        """Raises UserError if a task needs more of a model than answers."""
        choices = [
            task.task_name
            for task in self.tasks
            if task.config.output_type != "generate_until"
        ]
        if choices:
            raise UserError(
                f"model {name} is a function, which only answers: {choices[0]} needs "
                "probabilities; leave it out of the suite"
            )

    def ask(self, model: "LM") -> Results:
        """`run` for any model of the harness, such as one of transformers."""
        from lm_eval.evaluator import simple_evaluate

        with _without_bars():
            found = simple_evaluate(
                model,
                tasks=list(self.tasks),
                limit=self.limit,
                bootstrap_iters=0,
                random_seed=_SEED,
                numpy_random_seed=_SEED,
                torch_random_seed=_SEED,
                fewshot_random_seed=_SEED,
            )
        numbers: dict[str, Value] = {}
        rows: list[dict[str, Any]] = []
        for task in self.tasks:
            samples = found["samples"][task.task_name]
            numbers |= dict(_numbers(task, samples))
            rows += [_row(task, sample) for sample in samples]
        return Results(numbers, rows)


def load_tasks(names: Sequence[str], data: Path | None = None) -> "list[Task]":
    """Loads tasks of our files or of the harness, and their data.

    Raises:
      UserError: see `Suite.open`.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "benchmarks need the Evaluation Harness: pip install -e '.[eval]'"
        )
    from lm_eval.tasks import TaskManager

    from instructgpt.evals.benchmarks.local_sets import local_sets

    known = TaskManager(include_path=str(TASKS), include_defaults=False)
    if not set(names) <= set(known.all_tasks):  # the harness has thousands more
        known = TaskManager(include_path=str(TASKS))
    found: dict[str, Task] = {}
    for name in names:
        if name not in known.all_tasks:
            raise UserError(
                f"there is no task {name!r}: give one of evals/tasks "
                "(instructgpt is the group of all) or of `lm-eval ls tasks`"
            )
        with local_sets(data), _without_bars():
            try:
                found |= known.load([name])["tasks"]
            except UserError:
                raise
            except Exception as error:  # whatever a task's code or its data raise
                raise UserError(f"task {name!r}: {_first_line(error)}") from error
    return list(found.values())


def _check_task(task: "Task", limit: int | None) -> None:
    """Raises UserError if the questions of a task cannot be built from its data."""
    try:
        task.set_fewshot_seed(seed=_SEED)
        with _without_bars():
            task.build_all_requests(limit=limit)
    except Exception as error:
        raise UserError(
            f"task {task.task_name!r} does not fit its data: {_first_line(error)}"
        ) from error


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Hides the progress bars of the harness, which say nothing of a model."""
    import datasets
    from lm_eval.api import task

    datasets.disable_progress_bars()
    with mock.patch.object(task, "tqdm", lambda rows, **options: rows):
        yield


def _first_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _numbers(
    task: "Task", samples: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, Value]]:
    """The metrics of a task with their intervals."""
    from lm_eval.api.metrics import mean

    # The harness gives a row for each way of reading an answer, and often one way only.
    filters = dict.fromkeys(sample["filter"] for sample in samples)
    for way in filters:
        rows = [sample for sample in samples if sample["filter"] == way]
        for metric, summed in task.aggregation().items():
            values = [row[metric] for row in rows if metric in row]
            if not values:
                continue
            found = _mean(values) if summed is mean else _bootstrap(summed, values)
            name = metric if len(filters) == 1 else f"{metric} ({way})"
            yield f"{task.task_name}/{name}", found


def _mean(values: Sequence[float]) -> Value:
    """The mean with its interval; without one where a single value has no limits."""
    shares = all(0 <= value <= 1 for value in values)
    found = mean_interval(values, limits=(0.0, 1.0) if shares else None)
    return tuple(found) if np.isfinite(found).all() else found.value


def _bootstrap(
    summed: Callable[[Sequence[Any]], float], values: Sequence[Any]
) -> Value:
    """A measure of all rows, with the 95 % interval of its resamples."""
    rng = random.Random(_SEED)
    drawn = [summed(rng.choices(values, k=len(values))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(summed(values)), float(low), float(high)


def _row(task: "Task", sample: Mapping[str, Any]) -> dict[str, Any]:
    """What the report shows of a question: all that a metric was computed from."""
    said = (
        [list(response) for response in sample["filtered_resps"]]
        if isinstance(sample["filtered_resps"][0], tuple)
        else sample["filtered_resps"]
    )
    return {
        "task": task.task_name,
        "number": sample["doc_id"],
        "prompt": sample["arguments"][0][0],
        "choices": [arguments[1] for arguments in sample["arguments"]]
        if len(sample["arguments"]) > 1
        else None,
        "target": sample["target"],
        "response": said if len(said) > 1 else said[0],
        "filter": sample["filter"],
        "metrics": {metric: _plain(sample[metric]) for metric in sample["metrics"]},
    }


def _plain(value: Any) -> Any:
    """A metric of one question as JSON has it: no numbers of NumPy, no tuples."""
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
