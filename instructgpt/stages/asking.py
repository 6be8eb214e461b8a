"""What stages ask their models: prompts that fit, answers so far, tables of samples."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from instructgpt.distributed import is_first, on_first
from instructgpt.errors import UserError
from instructgpt.inference import LanguageModel
from instructgpt.progress import print_table
from instructgpt.stages.common import Context, write_json
from instructgpt.stages.inputs import keep_short
from instructgpt.stages.loading import text_format

Record = dict[str, Any]
_SO_FAR = "answers"  # a folder of the workdir, while a stage draws answers


def short_prompts(
    context: Context, split: str, *, count: int = 0, kind: str = "prompts"
) -> list[Record]:
    """The first prompts of a split that fit; a line says how many are too long.

    Args:
      context: The stage.
      split: Of the prompts.
      count: How many at most; 0 for all.
      kind: "prompts", "rm_prompts", or "demonstrations" for theirs.

    Raises:
      UserError: the data have no such split, or none of it fits.
    """
    source = context.data.source(kind, split)
    kept = keep_short(context, source, f"{split} {kind}")[: count or None]
    return [source[int(i)] for i in kept]


@contextlib.contextmanager
def answers_so_far(context: Context) -> Iterator[Path]:
    """A folder for the answers of a stage, from which one that was killed goes on.

    A user's mistake leaves none of them, so that the config may be corrected. The stage
    calls `forget_answers` once it has written what they are for.
    """
    folder = context.workdir / _SO_FAR
    try:
        yield folder
    except UserError:
        # Other processes may not have met the mistake, so nobody waits for them.
        if is_first():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def forget_answers(context: Context) -> None:
    """Deletes the folder of `answers_so_far`."""
    folder = context.workdir / _SO_FAR
    on_first(lambda: shutil.rmtree(folder, ignore_errors=True))


def make_sample_table(
    context: Context, model: Any, records: Sequence[Record] | None
) -> Callable[[Any, int], None]:
    """Builds (params, step) -> None: prints and keeps `samples/STEP.json`.

    Args:
      context: The stage.
      model: The module of the language model in training.
      records: What is answered; without any, nothing is sampled, shown or kept.
    """
    if not records:
        return lambda params, step: None
    text = text_format(context)

    def show(params: Any, step: int) -> None:
        key = jax.random.fold_in(context.key, step)
        policy = LanguageModel(model, params, text, context.mesh)
        texts = policy.generate(records, key=key, batch_size=len(records))
        rows = [
            {"prompt": r["prompt"], "response": t[0]}
            for r, t in zip(records, texts, strict=True)
        ]
        write_json(context.workdir / "samples" / f"{step:07d}.json", rows)
        if is_first():
            shown = [(_short(r["prompt"]), _short(r["response"])) for r in rows[:3]]
            print_table(shown, ["prompt", f"response at step {step}"])

    return show


def _short(text: str, limit: int = 60) -> str:
    text = " / ".join(text.splitlines())
    return text if len(text) <= limit else text[: limit - 1] + "…"
