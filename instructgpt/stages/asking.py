"""Prompts for models in stages, stored answers, and tables of samples."""

import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax

from instructgpt.arrays import Params
from instructgpt.distributed import is_first, on_first
from instructgpt.identity import ANSWERS
from instructgpt.inference import LanguageModel
from instructgpt.progress import print_table
from instructgpt.stages.common import Context, write_json
from instructgpt.stages.inputs import prompt_rows
from instructgpt.stages.loading import text_format

Record = dict[str, Any]


def short_prompts(
    context: Context, split: str, *, count: int = 0, kind: str = "prompts"
) -> list[Record]:
    """The first prompts of a split that fit; prints how many are too long.

    Args:
      context: The opened stage.
      split: Split of the prompts.
      count: Largest number of prompts; 0 for all.
      kind: "prompts", "rm_prompts", or "demonstrations" for the prompts of these.

    Raises:
      UserError: the data have no such split, or no prompt fits.
    """
    source = context.data.source(kind, split)
    rows = prompt_rows(context, source, f"{split} {kind}")
    return [rows.record(row) for row in range(min(count or len(rows), len(rows)))]


def forget_answers(context: Context) -> None:
    """Deletes the answers from which a stage resumes, after it wrote its results."""
    folder = context.workdir / ANSWERS
    on_first(lambda: shutil.rmtree(folder, ignore_errors=True))


def make_sample_table(
    context: Context, model: Any, records: Sequence[Record] | None
) -> Callable[[Any, int], None]:
    """Builds (params, step) -> None: prints, shows and keeps `samples/STEP.json`.

    Args:
      context: The opened stage.
      model: The module of the language model in training.
      records: Prompts to answer; None or empty: nothing is sampled, shown or kept.
    """
    if not records:
        return lambda params, step: None
    text = text_format(context)

    def show(params: Params, step: int) -> None:
        key = jax.random.fold_in(context.key, step)
        policy = LanguageModel(model, params, text, context.mesh)
        texts = policy.generate(records, key=key, batch_size=len(records))
        rows = [
            {"prompt": r["prompt"], "response": t[0]}
            for r, t in zip(records, texts, strict=True)
        ]
        write_json(context.workdir / "samples" / f"{step:07d}.json", rows)
        cells = [(r["prompt"], r["response"]) for r in rows]
        context.metrics.show_table(step, "samples", ("prompt", "response"), cells)
        if is_first():
            shown = [(_short(r["prompt"]), _short(r["response"])) for r in rows[:3]]
            print_table(shown, ["prompt", f"response at step {step}"])

    return show


def _short(text: str, limit: int = 60) -> str:
    text = " / ".join(text.splitlines())
    return text if len(text) <= limit else text[: limit - 1] + "…"
