"""A reward model that scores text."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from instructgpt.batching import mesh_batches
from instructgpt.data.records import as_records
from instructgpt.data.transforms import encode_comparison
from instructgpt.distributed import fetch
from instructgpt.errors import UserError, shown
from instructgpt.finite import check_finite
from instructgpt.inference.programs import (
    shared_scorer,
)
from instructgpt.inference.text_model import Record, TextModel
from instructgpt.sharding import put_whole_batch


@dataclasses.dataclass(frozen=True, eq=False)
class RewardModel(TextModel):
    """A reward model that scores text; made by `open` or by the constructor."""

    kind = "scalar"

    def score(
        self,
        records: Sequence[str | Record],
        responses: Sequence[str],
        *,
        batch_size: int | None = None,
    ) -> np.ndarray:
        """Scores of N responses to their prompts, float32[N].

        A response that is too long is cut, like a sample that reaches the limit.

        Args:
          records: N prompts, texts or records.
          responses: N texts.
          batch_size: Rows in a batch, rounded up for the mesh; None: 64 or less.

        Raises:
          UserError: there is not one text for each prompt, a prompt is too long, or a
            score is not finite; the message names the reward model.
        """
        _check_responses(records, responses)
        rows = [
            {**record, "responses": [text], "ranks": [1]}
            for record, text in zip(as_records(records), responses, strict=True)
        ]
        if not rows:
            return np.zeros(0, np.float32)
        self.check_prompts(rows)
        encode = functools.partial(
            encode_comparison,
            prompt_format=self.text.prompt_format,
            max_prompt=self.text.max_prompt,
            max_response=self.text.max_response,
            max_responses=1,
        )
        size = self.rows_at_a_time(batch_size, len(rows))
        run, out = shared_scorer(self.model.config), []
        with self.running():
            for batch in mesh_batches(
                rows, encode, batch_size=size, mesh=self.mesh, whole=True
            ):
                on_device = put_whole_batch(batch, self.mesh)
                scores = fetch(run(self.params, *on_device[:4]))
                out.append(np.asarray(scores)[np.asarray(batch.present)])
            scores = np.concatenate(out)
            check_finite(scores, "scores of answers")
        return scores


def _check_responses(records: Sequence[Any], responses: Sequence[str]) -> None:
    """Raises UserError unless there is one text for each record."""
    if isinstance(responses, str):
        raise UserError("give a list of responses, such as [text], not a single text")
    if len(records) != len(responses):
        raise UserError(
            f"{len(records)} prompts and {len(responses)} responses; give one response "
            "for each prompt, and repeat a prompt that has several"
        )
    for number, text in enumerate(responses):
        if not isinstance(text, str):
            raise UserError(f"response {number}: give a text, not {shown(text)}")
