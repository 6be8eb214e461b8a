"""The common base of language and reward models that work on text.

It holds the parameters and the text format.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
from jax.sharding import Mesh

from instructgpt.arrays import Params
from instructgpt.batching import power_of_two
from instructgpt.checkpoints import Verify
from instructgpt.errors import UserError, about
from instructgpt.sharding import round_up
from instructgpt.trained import (
    Loaded,
    TextFormat,
    model_config_of,
    opened,
    read_mesh,
    read_text_format,
)

Record = Mapping[str, Any]
_MOST = 64  # largest default number of rows in a batch


@dataclasses.dataclass(frozen=True, eq=False)
class TextModel:
    """A model's parameters on a mesh, with its text format."""

    model: Any
    params: Params
    text: TextFormat
    mesh: Mesh
    source: str = ""  # the checkpoint, for messages; "" for parameters in training
    weights: str = ""  # checksum of the parameters, if they are from a checkpoint

    kind: ClassVar[str] = "language"

    @classmethod
    def from_loaded(cls, loaded: Loaded, text: TextFormat, mesh: Mesh) -> Self:
        """Makes the text model of a model that a stage has loaded."""
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
        """Opens the model of a workdir, which is a finished stage or an import.

        Args:
          workdir: A path, relative to the current folder or absolute.
          part: "params", or "ema" for the average of a policy; "": the average where
            there is one. A reward model has only "params".
          step: Step of the checkpoint; None is the newest.
          mesh: The mesh to run on; None: the stage's, or all devices if they differ.
          tokenizer: A tokenizer's file or folder; "": the one of the workdir's config.
          template: Name of a template; "": the one of the workdir's config.
          max_prompt: Tokens of a prompt with its dialogue; 0: the limit in the
            workdir's config, -1: all that the context allows.
          max_response: Tokens of a response; 0: the limit in the workdir's config.
          verify: What is compared with checksums, see Checkpoints.

        Raises:
          UserError: there is no model of this kind, it is damaged, or it does not fit
            the tokenizer, template or lengths.
        """
        path = Path(os.path.abspath(os.path.expanduser(workdir)))
        with opened(path, step=step, verify=verify) as found:
            if found.meta["kind"] != cls.kind:
                raise UserError(
                    f"{path} holds a {found.meta['kind']} model; name the workdir of "
                    f"a {cls.kind} one"
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
    def running(self) -> Iterator[None]:
        """Runs a block on the model's mesh; errors name the checkpoint."""
        named = about(self.source) if self.source else contextlib.nullcontext()
        with jax.set_mesh(self.mesh), named:
            yield

    def prompt_length(self, record: Record, *, raw: bool = False) -> int:
        """Tokens of a prompt with its history and, unless raw, its template."""
        return len(self.text.prompt_format.prompt_ids(dict(record), raw=raw))

    def check_prompts(self, records: Sequence[Record], *, raw: bool = False) -> None:
        """Raises UserError if a prompt is too long; called before any long work."""
        limit = self.text.max_prompt
        for record in records:
            length = self.prompt_length(record, raw=raw)
            if length > limit:
                raise UserError(
                    f"record {record['id']!r}: its prompt, with what comes before it, "
                    f"has {length} tokens, and the limit is {limit}; shorten it, or "
                    "raise max_prompt"
                )

    def rows_at_a_time(self, wanted: int | None, number: int) -> int:
        """Number of rows of a batch; it takes few values, as each is compiled.

        Raises:
          UserError: less than one row is wanted.
        """
        if wanted is not None and wanted < 1:
            raise UserError(f"batch_size={wanted}: give 1 or more, or None")
        return round_up(wanted or min(_MOST, power_of_two(number)), self.mesh)
