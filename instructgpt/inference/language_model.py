"""A language model that is used by texts, not tokens.

Letters: K samples per prompt.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from instructgpt.batching import mesh_batches
from instructgpt.data.records import as_records
from instructgpt.data.rows import Rows
from instructgpt.data.transforms import encode_prompt
from instructgpt.distributed import is_first
from instructgpt.errors import UserError, shown
from instructgpt.generation import generate
from instructgpt.inference.completion import (
    before_stop,
    check_texts,
    end_of,
    plan_completions,
)
from instructgpt.inference.kept import KeptRows
from instructgpt.inference.likelihood import (
    LogLikelihood,
    Pair,
    encode_pair,
    groups_from,
    in_groups,
    likelihoods,
)
from instructgpt.inference.programs import (
    shared_likelihood,
    text_sampler,
)
from instructgpt.inference.text_model import Record, TextModel
from instructgpt.manifest import value_checksum
from instructgpt.progress import Progress
from instructgpt.sampling import SamplingConfig

Array = jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel(TextModel):
    """A language model that samples responses to text, and scores text by probability.

    Make one by `open` from a checkpoint, or by the constructor from live parameters.
    """

    # Adds solved examples before a prompt, which then has no template; see `few_shot`.
    wrap: Callable[[str], str] | None = None

    def few_shot(self, wrap: Callable[[str], str]) -> "LanguageModel":
        """A copy of the model that reads solved examples before each prompt.

        Prompts then have no template and no history, and a newline ends a response.

        Args:
          wrap: Returns a prompt with the examples before it.

        Raises:
          UserError: the examples do not fit the context.
        """
        prefix = len(self.text.prompt_format.prompt_ids({"prompt": wrap("")}, raw=True))
        text = dataclasses.replace(self.text, max_prompt=self.text.max_prompt + prefix)
        longest = text.max_prompt + text.max_response
        limit = self.model.config.context_length
        if longest > limit:
            raise UserError(
                f"{self.source}: examples of {prefix} tokens before a prompt of "
                f"{self.text.max_prompt} and a response of {text.max_response} do not "
                f"fit the model's context of {limit}; shorten them"
            )
        return dataclasses.replace(self, text=text, wrap=wrap)

    def generate(
        self,
        prompts: Sequence[str | Record],
        *,
        num_samples: int = 1,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_response: int = 0,
        key: Array | int = 0,
        batch_size: int | None = None,
        name: str = "",
        keep: Path | None = None,
    ) -> list[list[str]]:
        """Samples K texts for each prompt, in the order of the prompts.

        A prompt's answers depend on its place among the prompts and on the key. They do
        not depend on the batch or the mesh, unless rounding decides a tie.

        Args:
          prompts: Texts or records.
          num_samples: Number of samples per prompt, K.
          temperature: Divides the logits; 0 takes the most probable token.
          top_p: Probability of the smallest set of tokens that is drawn from.
          max_response: Tokens of a response; 0: the model's limit.
          key: Random key of the sampling, or its seed.
          batch_size: Prompts in a batch, rounded up for the mesh; None: 64 or less.
          name: Name at the start of a progress line; "": no line.
          keep: A folder that stores answers as they come, so that a call resumes after
            a kill with the same bits. Only for a model from a checkpoint. The caller
            deletes it.

        Raises:
          UserError: a prompt is too long, a number is out of its range, or the model's
            output is not finite; the message names the checkpoint.
        """
        records = as_records(prompts)
        if not records:
            return []
        sampling = SamplingConfig(
            self._response_limit(max_response),
            temperature=temperature,
            top_p=top_p,
            num_samples=num_samples,
        )
        asked = self._asked(records)
        self.check_prompts(asked, raw=self._raw)
        size = self.rows_at_a_time(batch_size, len(records))
        key = jax.random.key(int(key)) if isinstance(key, int | np.integer) else key
        kept = self._kept(
            keep,
            [
                [self.text.max_prompt, size, self._raw],
                dataclasses.asdict(sampling),
                np.asarray(jax.random.key_data(key)).tolist(),
                [[r["prompt"], list(r.get("history", ()))] for r in asked],
            ],
        )

        def run(start: int) -> Iterator[list[list[str]]]:
            return self._answers(asked, sampling, key, size, start=start)

        return self._finish(run, kept, len(asked), name)

    def _answers(
        self,
        asked: Sequence[Record],
        sampling: SamplingConfig,
        key: Array,
        batch_size: int,
        *,
        start: int,
    ) -> Iterator[list[list[str]]]:
        """Yields the texts of each batch, from row `start` on."""
        form = self.text.prompt_format
        encode = functools.partial(
            encode_prompt,
            prompt_format=form,
            max_prompt=self.text.max_prompt,
            raw=self._raw,
        )
        # The rows left keep their numbers, and with them their random keys.
        rows = Rows(asked, encode, range(start, len(asked)))
        batches = mesh_batches(
            rows, None, batch_size=batch_size, mesh=self.mesh, whole=True
        )
        sampler = text_sampler(self.model.config, form, sampling, newline=self._raw)
        for part in generate(sampler, self.params, batches, key, mesh=self.mesh):
            yield [[form.response_text(tokens) for tokens in g.tokens] for g in part]

    @property
    def _raw(self) -> bool:
        """Whether prompts are used without the template."""
        return self.wrap is not None

    def _asked(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records in the form that the model reads."""
        if self.wrap is None:
            return records
        return [{**r, "prompt": self.wrap(r["prompt"])} for r in records]

    def _response_limit(self, wanted: int) -> int:
        limit = wanted or self.text.max_response
        context = self.model.config.context_length
        if self.text.max_prompt + limit > context:
            raise UserError(
                f"a prompt of {self.text.max_prompt} and a response of {limit} tokens "
                f"do not fit the model's context of {context}; lower max_response"
            )
        return limit

    def complete(
        self,
        texts: Sequence[str],
        *,
        stops: Sequence[str] = ("\n",),
        max_response: int = 0,
        temperature: float = 0.0,
        top_p: float = 1.0,
        key: Array | int = 0,
        batch_size: int | None = None,
        width: int = 0,
        name: str = "",
        keep: Path | None = None,
    ) -> list[str]:
        """Continues raw texts, without a template, in the order of the texts.

        The paper's automatic evaluations read models in this way, greedily and up to
        the first newline (App. D). A text that is too long loses its beginning.

        Args:
          texts: The texts to continue.
          stops: Texts that end a completion and are left out, as is what follows.
          max_response: Tokens of a completion; 0: the model's limit of a response.
          temperature: Divides the logits; 0 takes the most probable token.
          top_p: Probability of the smallest set of tokens that is drawn from.
          key: Random key of the sampling, or its seed.
          batch_size: Texts in a batch, fewer where they are long; rounded up for the
            mesh; None: 64 or less.
          width: Tokens that texts are padded to at least, so that calls with texts of
            other lengths share a program.
          name: Name at the start of a progress line; "": no line.
          keep: See `generate`.

        Raises:
          UserError: a number is out of its range, or the model's output is not finite.
        """
        check_texts(texts)
        limit = max_response or self.text.max_response
        room = self.model.config.context_length - limit
        if room < 1:
            raise UserError(
                f"max_response={limit}: completions leave no room for a prompt in the "
                f"model's context of {self.model.config.context_length} tokens"
            )
        sampling = SamplingConfig(limit, temperature=temperature, top_p=top_p)
        form = self.text.prompt_format
        prompts = [end_of(form, text, room) for text in texts]
        size = self.rows_at_a_time(batch_size, len(texts))
        key = jax.random.key(int(key)) if isinstance(key, int | np.integer) else key
        sampler = text_sampler(self.model.config, form, sampling, stops=tuple(stops))
        plan = plan_completions(prompts, room, limit, width=width)
        kept = self._kept(
            keep,
            [
                [size, list(stops), width],
                dataclasses.asdict(sampling),
                np.asarray(jax.random.key_data(key)).tolist(),
                [value_checksum(ids.tolist()) for ids in prompts],
            ],
        )

        def run(start: int) -> Iterator[list[str]]:
            for part in plan.batches(start, size, pad_id=form.pad_id, mesh=self.mesh):
                for found in generate(sampler, self.params, part, key, mesh=self.mesh):
                    drawn = [form.tokenizer.decode(g.tokens[0]) for g in found]
                    yield [before_stop(text, stops) for text in drawn]

        return plan.in_order(self._finish(run, kept, len(texts), name))

    def log_likelihood(
        self,
        pairs: Sequence[tuple[str | Record, str]],
        *,
        raw: bool = False,
        ended: bool = False,
        batch_size: int | None = None,
        width: int = 0,
        name: str = "",
        keep: Path | None = None,
    ) -> list[LogLikelihood]:
        """log p(continuation | prompt) of each pair.

        Pairs with the same prompt share its computation.

        Args:
          pairs: Pairs of a prompt, which is a text or a record, and its continuation.
          raw: Whether the two are one text, without a template, as they always are for
            a few-shot model, whose examples come before the prompt. They are then
            encoded together, white space between them belongs to the continuation, and
            a prompt that is too long loses its beginning.
          ended: Whether the end of text after the continuation is included.
          batch_size: Prompts in a batch, fewer where texts are long; rounded up for
            the mesh; None: 64 or less.
          width: Tokens that prompts are padded to at least, see `complete`.
          name: Name at the start of a progress line; "": no line.
          keep: See `generate`.

        Raises:
          UserError: a pair does not fit the context, or the model's output is not
            finite.
        """
        for number, pair in enumerate(pairs):
            if isinstance(pair, str) or len(pair) != 2 or not isinstance(pair[1], str):
                raise UserError(
                    f"pair {number}: give (prompt, continuation), with a text as the "
                    f"continuation, not {shown(pair)}"
                )
        prompts = self._asked(as_records([prompt for prompt, _ in pairs]))
        limit = self.model.config.context_length
        encode = functools.partial(
            encode_pair,
            self.text.prompt_format,
            raw=raw or self._raw,
            ended=ended,
            limit=limit,
        )
        encoded = [
            encode(prompt, text)
            for prompt, (_, text) in zip(prompts, pairs, strict=True)
        ]
        return self.token_log_likelihood(
            encoded, batch_size=batch_size, width=width, name=name, keep=keep
        )

    def token_log_likelihood(
        self,
        encoded: Sequence[Pair],
        *,
        batch_size: int | None = None,
        width: int = 0,
        name: str = "",
        keep: Path | None = None,
    ) -> list[LogLikelihood]:
        """`log_likelihood` of pairs of token ids: a prompt's and a continuation's."""
        groups = in_groups(encoded, width=width)
        size = self.rows_at_a_time(batch_size, len(encoded))
        kept = self._kept(keep, [size, width, [list(pair) for pair in encoded]])

        def run(start: int) -> Iterator[list[LogLikelihood]]:
            yield from likelihoods(
                functools.partial(shared_likelihood(self.model.config), self.params),
                groups_from(groups, start),
                pad_id=self.text.prompt_format.pad_id,
                batch_size=size,
                mesh=self.mesh,
            )

        found = self._finish(run, kept, len(encoded), name)
        numbers = [number for group in groups for number in group.numbers]
        by_number = dict(zip(numbers, found, strict=True))
        return [LogLikelihood(*by_number[number]) for number in range(len(encoded))]

    def _kept(self, folder: Path | None, made_from: Any) -> KeptRows | None:
        """The rows that a killed call with the same arguments has stored."""
        if folder is None:
            return None
        if not self.weights:
            raise ValueError("keep= is for models from a checkpoint")
        form = self.text.prompt_format
        model = [self.weights, dataclasses.asdict(self.model.config)]
        text = [form.tokenizer.fingerprint, form.template]
        return KeptRows(folder, [model, text, made_from])

    def _finish(
        self,
        run: Callable[[int], Iterator[list[Any]]],
        kept: KeptRows | None,
        total: int,
        name: str,
    ) -> list[Any]:
        """All rows: those that are kept, and those that `run` yields from there on.

        Args:
          run: Yields parts of the rows, from the given number on.
          kept: Stores the rows.
          total: Number of rows.
          name: Name at the start of a progress line; "": no line.
        """
        done: list[Any] = [] if kept is None else kept.rows
        progress = Progress(
            name, total, start=len(done), enabled=is_first() and bool(name)
        )
        with self.running():
            for rows in run(len(done)) if len(done) < total else ():
                if kept is None:
                    done += rows
                else:
                    kept.add(rows)
                progress.update(len(done), {})
        if name:
            progress.close()
        return done
