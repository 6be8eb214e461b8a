"""The rankings on which a reward model is trained and evaluated."""

import dataclasses
import functools
from typing import Any, Literal

from instructgpt.data.rows import Rows
from instructgpt.data.sources import Records
from instructgpt.data.transforms import count_cut, encode_comparison
from instructgpt.errors import UserError
from instructgpt.evals.ranking_accuracy import (
    Rankings,
    count_untied,
)
from instructgpt.paths import resolve
from instructgpt.ranges import NonNegativeFloat, RankedInt
from instructgpt.stages import common
from instructgpt.stages.inputs import has_valid, short_rows
from instructgpt.stages.label import has_report, open_comparisons, ranked_splits


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Source of the rankings, and details of the loss."""

    max_responses: RankedInt  # largest number of answers of a prompt, K
    # A label stage's workdir. If it is "" or that stage ranked nothing, the data's own
    # comparisons.SPLIT.jsonl are used, with the test split for held-out labelers.
    comparisons: str = ""
    # The scalar head starts at std head_scale/sqrt(D + 1).
    head_scale: NonNegativeFloat = 1.0
    # A prompt's loss is divided by its untied pairs, or by all C(K, 2) (Eq. 1).
    divisor: Literal["untied", "all"] = "untied"


def reads_own(context: common.Context, reward: RewardConfig) -> bool:
    """Whether the data's own rankings are used, because no label stage made others."""
    if not reward.comparisons:
        return True
    made = has_report(resolve(reward.comparisons, context.workdir))
    return not made and context.data.has("comparisons", "train")


def _open_splits(
    context: common.Context, reward: RewardConfig, *, own: bool
) -> dict[str, Records]:
    """Opens the splits by name: train, and valid and heldout if they exist."""
    if not own:
        directory = resolve(reward.comparisons, context.workdir)
        return {s: open_comparisons(directory, s) for s in ranked_splits(directory)}
    sources = {"train": context.data.source("comparisons", "train")}
    if has_valid(context, "comparisons", "accuracy on valid pairs"):
        sources["valid"] = context.data.source("comparisons", "valid")
    if context.data.has("comparisons", "test"):
        sources["heldout"] = context.data.source("comparisons", "test")
    return sources


def encoded_rankings(
    context: common.Context,
    reward: RewardConfig,
    train_config: common.TrainConfig,
    *,
    own: bool,
) -> tuple[Rows, dict[str, Rankings]]:
    """Encodes the training rankings, and the held-out splits that have untied pairs.

    Raises:
      UserError: no training ranking has an untied pair.
    """
    encode = comparison_encoder(context, reward.max_responses)
    sources = _open_splits(context, reward, own=own)
    splits = {
        name: short_rows(context, source, encode, f"{name} rankings")
        for name, source in sources.items()
    }
    rows = splits.pop("train")
    _tell_cut(context, "train", rows)
    if not count_untied(rows):
        raise UserError(
            f"{sources['train'].label}: in none of {len(rows)} rankings is one answer "
            "ranked above another that differs from it in its first "
            f"config.data.max_response={context.data_config.max_response} tokens; give "
            "rankings with such pairs, or raise the limit"
        )
    held_out = {}
    for name, split in splits.items():
        _tell_cut(context, name, split)
        if count_untied(split):
            held_out[name] = Rankings(
                split, batch_size=train_config.batch_size, mesh=context.mesh
            )
        else:
            common.announce(
                f"{context.config.name}: none of {len(split)} {name} rankings has an "
                f"untied pair, so there is no accuracy on {name} pairs"
            )
    return rows, held_out


def _tell_cut(context: common.Context, name: str, rows: Rows) -> None:
    """Prints how many answers of a split are cut to the limit of a response."""
    limit, end_id = context.data_config.max_response, context.data.prompt_format.end_id
    cut = sum(count_cut(rows[i], end_id) for i in range(len(rows)))
    if cut:
        count = sum(int(rows[i].present.sum()) for i in range(len(rows)))
        common.announce(
            f"{context.config.name}: {cut} of {count} {name} answers have more than "
            f"{limit} tokens (config.data.max_response) and are cut there; raise the "
            "limit to compare them whole"
        )


def comparison_encoder(context: common.Context, max_responses: int) -> Any:
    """Builds the encoder of a record to a ComparisonBatch row of the stage."""
    return functools.partial(
        encode_comparison,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
        max_response=context.data_config.max_response,
        max_responses=max_responses,
    )
