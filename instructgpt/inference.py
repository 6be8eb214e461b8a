"""A checkpoint as text in and text, log-probs or scores out.

    model = LanguageModel.open("runs/mini/ppo_ptx", part="ema")
    answers = model.generate(["Where does Dela live?"], num_samples=2)
    scores = RewardModel.open("runs/mini/reward").score(prompts, answers)

Templates, stop tokens, padding, batches and the mesh are inside; callers hold text. A
prompt is a text, or a record with `prompt` and, for a dialogue, `history`: the prompts
and responses before it in turn. Models that differ in nothing but their parameters
share what is compiled. Each call compiles once for each temperature and batch size.

Letters: B batch, P prompt, R response or continuation, K samples per prompt.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jax.sharding import Mesh

from instructgpt.batching import mesh_batches
from instructgpt.checkpoints import Verify
from instructgpt.data.records import as_records
from instructgpt.data.transforms import encode_comparison, encode_prompt
from instructgpt.distributed import fetch, is_first
from instructgpt.errors import UserError, about
from instructgpt.finite import check_finite
from instructgpt.kept import KeptRows
from instructgpt.likelihood import LogLikelihood, encode_pair, likelihoods
from instructgpt.metrics import Progress
from instructgpt.rollouts import generate
from instructgpt.sampling import SamplingConfig
from instructgpt.sharding import put_whole_batch, round_up
from instructgpt.text_programs import shared_likelihood, shared_scorer, text_sampler
from instructgpt.trained import (
    Loaded,
    TextFormat,
    model_config_of,
    opened,
    read_mesh,
    read_text_format,
)

Array = jax.Array
Params = Any
Record = Mapping[str, Any]
_MOST = 64  # rows of a batch, unless it is given


@dataclasses.dataclass(frozen=True, eq=False)
class _Model:
    """Parameters on a mesh, and how text is put to them."""

    model: Any
    params: Params
    text: TextFormat
    mesh: Mesh
    source: str = ""  # a checkpoint, for messages; "" of parameters in training
    weights: str = ""  # what stands for the parameters, if they lie in a checkpoint

    _kind: ClassVar[str] = "language"

    @classmethod
    def from_loaded(cls, loaded: Loaded, text: TextFormat, mesh: Mesh) -> Self:
        """A model that a stage has loaded."""
        return cls(
            loaded.model, loaded.params, text, mesh, loaded.source, loaded.weights
        )

    @classmethod
    def open(
        cls,
        workdir: str | os.PathLike[str],
        *,
        part: str = "params",
        step: int | None = None,
        mesh: Mesh | None = None,
        tokenizer: str = "",
        template: str = "",
        max_prompt: int = 0,
        max_response: int = 0,
        verify: Verify = "files",
    ) -> Self:
        """The model of a workdir: of a stage that has finished, or imported.

        Args:
          workdir: Relative to the current folder, or absolute.
          part: "params", or "ema" for the average of a policy; "": the average where
            there is one. A reward model has but one.
          step: Which checkpoint; None is the newest.
          mesh: Where it runs; None: the stage's, or all devices if these are others.
          tokenizer: A file or folder in place of the one in the workdir's config.
          template: In place of the one in the workdir's config.
          max_prompt: Tokens of a prompt, with its dialogue; 0: as in the workdir's
            config, -1: all that the context has room for.
          max_response: Tokens of a response; 0: as in the workdir's config.
          verify: What of the checkpoint is compared with its checksums.

        Raises:
          UserError: there is no model of this kind, it is damaged, or what it is to be
            used with does not fit it.
        """
        path = Path(os.path.abspath(os.path.expanduser(workdir)))
        with opened(path, step=step, verify=verify) as found:
            if found.meta["kind"] != cls._kind:
                raise UserError(
                    f"{path} holds a {found.meta['kind']} model; name the workdir of "
                    f"a {cls._kind} one"
                )
            text = read_text_format(
                found,
                tokenizer=tokenizer,
                template=template,
                max_prompt=max_prompt,
                max_response=max_response,
            )
            mesh = mesh or read_mesh(path)
            with jax.set_mesh(mesh):
                config = model_config_of(found, mesh)
                loaded = found.restore(config, part=found.part(part), mesh=mesh)
        return cls.from_loaded(loaded, text, mesh)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        """On the model's mesh; errors name its checkpoint."""
        named = about(self.source) if self.source else contextlib.nullcontext()
        with jax.set_mesh(self.mesh), named:
            yield

    def prompt_length(self, record: Record, *, raw: bool = False) -> int:
        """Tokens of a prompt with its template and history; raw: without a template."""
        return len(self.text.prompt_format.prompt_ids(dict(record), raw=raw))

    def _check_prompts(self, records: Sequence[Record], *, raw: bool = False) -> None:
        """Raises UserError if a prompt is too long, before any long work."""
        limit = self.text.max_prompt
        for record in records:
            length = self.prompt_length(record, raw=raw)
            if length > limit:
                raise UserError(
                    f"record {record['id']!r}: its prompt, with what comes before it, "
                    f"has {length} tokens, and the limit is {limit}; shorten it, or "
                    "raise max_prompt"
                )

    def _rows(self, wanted: int | None, number: int) -> int:
        """Rows of a batch; few sizes, as each is compiled."""
        return round_up(wanted or min(_MOST, _power_of_two(number)), self.mesh)


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageModel(_Model):
    """A language model that answers text, and says how probable text is.

    Build it by `open`, from a checkpoint, or by its constructor, from live parameters.
    """

    # Puts solved examples before a prompt, which then has no template; see `few_shot`.
    wrap: Callable[[str], str] | None = None

    def few_shot(self, wrap: Callable[[str], str]) -> "LanguageModel":
        """The same model, given solved examples before each prompt.

        Prompts then have no template, and a newline ends a response.

        Args:
          wrap: Puts the examples before a prompt.

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
        """Answers: K texts for each prompt, in the order of the prompts.

        A prompt's answers depend on its place among the prompts and on the key, and not
        on the batch or the mesh, but where rounding decides a tie.

        Args:
          prompts: Texts or records.
          num_samples: K.
          temperature: Divides the logits; 0 takes the most probable token.
          top_p: Draws from the smallest set of tokens with this probability.
          max_response: Tokens of a response; 0: the model's limit.
          key: For the draws, or its seed.
          batch_size: Prompts at a time; None: 64 or less. The mesh rounds it up.
          name: Of a line that says how far it is; "": none.
          keep: A folder in which answers are kept as they come, so that a call that was
            killed goes on from there, with the same bits. Only for a model from a
            checkpoint. The caller deletes it.

        Raises:
          UserError: a prompt is too long, a number is out of its range, or the model
            gives what is not finite; the message names its checkpoint.
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
        self._check_prompts(asked, raw=self._raw)
        size = self._rows(batch_size, len(records))
        key = jax.random.key(key) if isinstance(key, int) else key
        kept = self._kept(keep, asked, sampling, key, size)
        done: list[list[str]] = [] if kept is None else kept.rows
        progress = Progress(
            name, len(asked), start=len(done), enabled=is_first() and bool(name)
        )
        with self._running():
            for texts in self._answers(asked, sampling, key, size, start=len(done)):
                if kept is None:
                    done += texts
                else:
                    kept.add(texts)
                progress.update(len(done), {})
        if name:
            progress.close()
        return done

    def _answers(
        self,
        asked: Sequence[Record],
        sampling: SamplingConfig,
        key: Array,
        batch_size: int,
        *,
        start: int,
    ) -> Iterator[list[list[str]]]:
        """The texts of each batch, from row `start` on."""
        form = self.text.prompt_format
        if start >= len(asked):
            return
        encode = functools.partial(
            encode_prompt,
            prompt_format=form,
            max_prompt=self.text.max_prompt,
            raw=self._raw,
        )
        batches = mesh_batches(
            asked,
            encode,
            batch_size=batch_size,
            mesh=self.mesh,
            keep=range(start, len(asked)),  # whose numbers they keep, and so their keys
            whole=True,
        )
        sampler = text_sampler(self.model.config, form, sampling, newline=self._raw)
        for part in generate(sampler, self.params, batches, key, mesh=self.mesh):
            yield [[form.response_text(tokens) for tokens in g.tokens] for g in part]

    @property
    def _raw(self) -> bool:
        """Whether prompts go without the template."""
        return self.wrap is not None

    def _asked(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records as the model reads them."""
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

    def _kept(
        self,
        folder: Path | None,
        asked: Sequence[Record],
        sampling: SamplingConfig,
        key: Array,
        batch_size: int,
    ) -> KeptRows | None:
        """What an earlier call has left of the same answers."""
        if folder is None:
            return None
        if not self.weights:
            raise ValueError("keep= is for models from a checkpoint")
        form = self.text.prompt_format
        return KeptRows(
            folder,
            [
                self.weights,
                form.tokenizer.fingerprint,
                form.template,
                [self.text.max_prompt, batch_size, self._raw],
                dataclasses.asdict(sampling),
                np.asarray(jax.random.key_data(key)).tolist(),
                [[r["prompt"], list(r.get("history", ()))] for r in asked],
            ],
        )

    def log_likelihood(
        self,
        pairs: Sequence[tuple[str | Record, str]],
        *,
        raw: bool = False,
        ended: bool = False,
        batch_size: int | None = None,
    ) -> list[LogLikelihood]:
        """log p(continuation | prompt) of each pair.

        Args:
          pairs: Prompts, texts or records, and the continuation of each.
          raw: Whether the two are one text, without a template. They are then encoded
            together, white space between them belongs to the continuation, and a
            prompt that is too long loses its beginning.
          ended: Whether the end of text after the continuation counts too.
          batch_size: Pairs at a time; None: 64 or less. The mesh rounds it up.

        Raises:
          UserError: a pair does not fit the context, or the model gives what is not
            finite.
        """
        prompts = as_records([prompt for prompt, _ in pairs])
        limit = self.model.config.context_length
        encode = functools.partial(
            encode_pair, self.text.prompt_format, raw=raw, ended=ended, limit=limit
        )
        encoded = [
            encode(prompt, text)
            for prompt, (_, text) in zip(prompts, pairs, strict=True)
        ]
        run = functools.partial(shared_likelihood(self.model.config), self.params)
        with self._running():
            return likelihoods(
                run,
                encoded,
                pad_id=self.text.prompt_format.pad_id,
                batch_size=self._rows(batch_size, len(pairs)),
                mesh=self.mesh,
            )


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel(_Model):
    """A reward model that scores text. Build it by `open` or by its constructor."""

    _kind = "scalar"

    def score(
        self,
        records: Sequence[str | Record],
        responses: Sequence[str],
        *,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """How good each response to its prompt is: float32[N].

        A response that is too long is cut, as a sample that met the limit.

        Args:
          records: [N] prompts, texts or records.
          responses: [N] texts.
          batch_size: Rows at a time; None: 64 or less. The mesh rounds it up.

        Raises:
          UserError: a prompt is too long, or a score is not finite; the message names
            the reward model.
        """
        rows = [
            {**record, "responses": [text], "ranks": [1]}
            for record, text in zip(as_records(records), responses, strict=True)
        ]
        if not rows:
            return np.zeros(0, np.float32)
        self._check_prompts(rows)
        encode = functools.partial(
            encode_comparison,
            prompt_format=self.text.prompt_format,
            max_prompt=self.text.max_prompt,
            max_response=self.text.max_response,
            max_responses=1,
        )
        size = self._rows(batch_size, len(rows))
        run, out = shared_scorer(self.model.config), []
        with self._running():
            for batch in mesh_batches(
                rows, encode, batch_size=size, mesh=self.mesh, whole=True
            ):
                on_device = put_whole_batch(batch, self.mesh)
                scores = fetch(run(self.params, *on_device[:4]))
                out.append(np.asarray(scores)[np.asarray(batch.present)])
            scores = np.concatenate(out)
            check_finite(scores, "scores of answers")
        return scores


def _power_of_two(number: int) -> int:
    """The least power of two that is not smaller; 1 of 0."""
    return 1 << max(number - 1, 0).bit_length()
