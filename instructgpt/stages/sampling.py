"""Responses for a stage: samplers, prompt batches, decoded text, sample tables."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from instructgpt.data.transforms import encode_comparison, encode_prompt
from instructgpt.distributed import fetch, is_first
from instructgpt.errors import about
from instructgpt.evals.batching import mesh_batches
from instructgpt.finite import check_finite
from instructgpt.metrics import Progress, print_table
from instructgpt.rollouts import generate, make_response_scorer, make_sampler
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import put_whole_batch
from instructgpt.stages.common import Context, write_json
from instructgpt.stages.inputs import keep_short
from instructgpt.stages.loading import Loaded


def stop_ids(context: Context, *, newline: bool = False) -> tuple[int, ...]:
    """What ends a response: the template's mark, EOS, for prompted models a newline."""
    tokenizer = context.data.tokenizer
    ends = [context.data.prompt_format.end_id, tokenizer.eos_id]
    return tuple(dict.fromkeys(ends + [tokenizer.token_id("\n")] * newline))


def banned_ids(context: Context) -> tuple[int, ...]:
    """What is never drawn: padding, and begin-of-text where it is not EOS as well."""
    tokenizer = context.data.tokenizer
    if tokenizer.bos_id is None or tokenizer.bos_id == tokenizer.eos_id:
        return (tokenizer.pad_id,)
    return tokenizer.pad_id, tokenizer.bos_id


def stage_sampler(
    context: Context,
    model: Any,
    config: SamplingConfig,
    *,
    newline: bool = False,
):
    """A jitted sampler with the tokenizer's stop and banned ids."""
    return make_sampler(
        model,
        config=config,
        stop_ids=stop_ids(context, newline=newline),
        pad_id=context.data.tokenizer.pad_id,
        banned_ids=banned_ids(context),
    )


class Prompts:
    """The first `count` prompts of a split that fit, as records and batches.

    One line says how many of the split are too long.

    Args:
      context: The stage.
      split: Of the prompts.
      count: How many at most; 0 for all.
      kind: "prompts", or "demonstrations" for theirs.
      wrap: Applied to each prompt's text (a few-shot prefix).
      max_prompt: Tokens; None is config.data.max_prompt.
      raw: Whether the prompts are used as they are, without the template.
      records: Prompts of your own, in place of a split's.
    """

    def __init__(
        self,
        context: Context,
        split: str,
        *,
        count: int = 0,
        kind: str = "prompts",
        wrap: Callable[[str], str] | None = None,
        max_prompt: int | None = None,
        raw: bool = False,
        records: Sequence[dict[str, Any]] | None = None,
    ):
        self._context = context
        limit = max_prompt or context.data_config.max_prompt
        source = context.data.source(kind, split) if records is None else records
        what = f"{split} {kind}" if records is None else kind
        indices = keep_short(context, source, what)[: count or None]
        self.records = [source[int(i)] for i in indices]
        rows = self.records
        if wrap is not None:
            rows = [{**r, "prompt": wrap(r["prompt"])} for r in rows]
        self._rows = rows
        self._encode = functools.partial(
            encode_prompt,
            prompt_format=context.data.prompt_format,
            max_prompt=limit,
            raw=raw,
        )

    def __len__(self) -> int:
        return len(self.records)

    def respond(
        self,
        sampler: Any,
        params: Any,
        key: jax.Array,
        *,
        batch_size: int,
        name: str = "",
    ) -> list[list[str]]:
        """K responses' texts for each prompt; with a name, a progress line.

        Raises:
          UserError: a log-prob of what was drawn is not finite.
        """
        batches = mesh_batches(
            self._rows,
            self._encode,
            batch_size=batch_size,
            mesh=self._context.mesh,
            whole=True,
        )
        progress = Progress(name, len(self), enabled=is_first())

        def report(done: int) -> None:
            if name:
                progress.update(done, {})

        generated = generate(
            sampler,
            params,
            batches,
            key,
            mesh=self._context.mesh,
            on_batch=report,
        )
        if name:
            progress.close()
        read = self._context.data.prompt_format.response_text
        return [[read(tokens) for tokens in g.tokens] for g in generated]


def make_sample_table(
    context: Context, model: Any, prompts: Prompts | None
) -> Callable[[Any, int], None]:
    """Builds (params, step) -> None: prints and keeps `samples/STEP.json`.

    Args:
      context: The stage.
      model: The language model.
      prompts: What is answered; without, nothing is sampled, shown or kept.
    """
    if prompts is None:
        return lambda params, step: None
    config = SamplingConfig(context.data_config.max_response)
    sampler = stage_sampler(context, model, config)

    def show(params: Any, step: int) -> None:
        key = jax.random.fold_in(context.key, step)
        texts = prompts.respond(sampler, params, key, batch_size=len(prompts))
        rows = [
            {"prompt": r["prompt"], "response": t[0]}
            for r, t in zip(prompts.records, texts, strict=True)
        ]
        write_json(context.workdir / "samples" / f"{step:07d}.json", rows)
        if is_first():
            shown = [(_short(r["prompt"]), _short(r["response"])) for r in rows[:3]]
            print_table(shown, ["prompt", f"response at step {step}"])

    return show


def _short(text: str, limit: int = 60) -> str:
    text = " / ".join(text.splitlines())
    return text if len(text) <= limit else text[: limit - 1] + "…"


class ScoreTexts:
    """Reward-model scores of responses as text, one per record.

    Args:
      context: The stage.
      reward: The loaded reward model.
      batch_size: Rows at a time; rounded up to what the mesh divides.
    """

    def __init__(self, context: Context, reward: Loaded, *, batch_size: int):
        self._context = context
        self._params = reward.params
        self._source = reward.source
        self._run = make_response_scorer(reward.model)
        self._batch_size = batch_size
        self._encode = functools.partial(
            encode_comparison,
            prompt_format=context.data.prompt_format,
            max_prompt=context.data_config.max_prompt,
            max_response=context.data_config.max_response,
            max_responses=1,
        )

    def __call__(
        self, records: Sequence[dict[str, Any]], responses: Sequence[str]
    ) -> np.ndarray:
        """float32[len(records)].

        Raises:
          UserError: a score is not finite; the message names the reward model.
        """
        rows = [
            {**record, "responses": [text], "ranks": [1]}
            for record, text in zip(records, responses, strict=True)
        ]
        out = []
        mesh = self._context.mesh
        for batch in mesh_batches(
            rows, self._encode, batch_size=self._batch_size, mesh=mesh, whole=True
        ):
            on_device = put_whole_batch(batch, mesh)
            scores = fetch(self._run(self._params, *on_device[:4]))
            out.append(np.asarray(scores)[np.asarray(batch.present)])
        scores = np.concatenate(out)
        with about(self._source):
            check_finite(scores, "scores of answers")
        return scores
