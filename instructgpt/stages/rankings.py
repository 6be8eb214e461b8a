"""The rankings that a reward model learns from and is measured on."""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import numpy as np

from instructgpt.data.rows import Rows
from instructgpt.data.sources import Records
from instructgpt.data.transforms import count_cut, encode_comparison
from instructgpt.errors import UserError
from instructgpt.evals.preferences import (
    Rankings,
    count_untied,
)
from instructgpt.paths import resolve
from instructgpt.ranges import NonNegativeFloat, RankedInt
from instructgpt.stages import common
from instructgpt.stages.inputs import has_valid, keep_short
from instructgpt.stages.label import has_report, open_comparisons

_HELD_OUT = ("valid", "heldout")  # "heldout" is the test split of one's own data


@dataclasses.dataclass(frozen=True)
class RewardConfig:
    """Where the rankings are and how their loss is divided."""

    max_responses: RankedInt  # K: slots for the answers of a prompt
    # A label stage's workdir. If "", or if that stage ranked nothing, the data's own
    # comparisons.SPLIT.jsonl, whose test split takes the place of held-out labelers.
    comparisons: str = ""
    # The scalar head starts at std head_scale/sqrt(D + 1).
    head_scale: NonNegativeFloat = 1.0
    # A prompt's loss is divided by its untied pairs, or by all C(K, 2) (Eq. 1).
    divisor: Literal["untied", "all"] = "untied"


class OpenedSplit(NamedTuple):
    """Records, and the numbers of those that fit."""

    source: Records
    keep: np.ndarray


def reads_own(context: common.Context, reward: RewardConfig) -> bool:
    """Whether the rankings are the data's own, as no label stage has made others."""
    if not reward.comparisons:
        return True
    made = has_report(resolve(reward.comparisons, context.workdir))
    return not made and context.data.has("comparisons", "train")


def _open_splits(
    context: common.Context, reward: RewardConfig, *, own: bool
) -> dict[str, OpenedSplit]:
    """Splits by name: train, and of valid and heldout those that there are."""
    if own:
        sources = {"train": context.data.source("comparisons", "train")}
        if has_valid(context, "comparisons", "accuracy on valid pairs"):
            sources["valid"] = context.data.source("comparisons", "valid")
        if context.data.has("comparisons", "test"):
            sources["heldout"] = context.data.source("comparisons", "test")
    else:
        directory = resolve(reward.comparisons, context.workdir)
        sources = {s: open_comparisons(directory, s) for s in ("train", *_HELD_OUT)}
    return {
        name: OpenedSplit(source, keep_short(context, source, f"{name} rankings"))
        for name, source in sources.items()
    }


def encoded_rankings(
    context: common.Context,
    reward: RewardConfig,
    train_config: common.TrainConfig,
    *,
    own: bool,
) -> tuple[Rows, dict[str, Rankings]]:
    """The encoded rankings to train on, and the held-out splits that have a pair.

    Raises:
      UserError: there is nothing to train on.
    """
    encode = comparison_encoder(context, reward.max_responses)
    train, *splits = _open_splits(context, reward, own=own).items()
    rows = Rows(train[1].source, encode, train[1].keep)
    _tell_cut(context, "train", rows)
    if not count_untied(rows):
        raise UserError(
            f"{train[1].source.label}: in none of {len(rows)} rankings is one answer "
            "ranked above another that differs from it in its first "
            f"config.data.max_response={context.data_config.max_response} tokens; give "
            "rankings with such pairs, or raise the limit"
        )
    held_out = {}
    for name, split in splits:
        found = Rankings(
            split.source,
            encode,
            batch_size=train_config.batch_size,
            mesh=context.mesh,
            keep=split.keep,
        )
        _tell_cut(context, name, found.rows)
        if count_untied(found.rows):
            held_out[name] = found
        else:
            common.announce(
                f"reward: none of {len(found.ids)} {name} rankings has an untied pair, "
                f"so there is no accuracy on {name} pairs"
            )
    return rows, held_out


def _tell_cut(context: common.Context, name: str, rows: Rows) -> None:
    """Prints how many answers of a split are longer than a response may be."""
    limit, end_id = context.data_config.max_response, context.data.prompt_format.end_id
    cut = sum(count_cut(rows[i], end_id) for i in range(len(rows)))
    if cut:
        count = sum(int(rows[i].present.sum()) for i in range(len(rows)))
        common.announce(
            f"reward: {cut} of {count} {name} answers have more than {limit} tokens "
            "(config.data.max_response) and are cut there; raise the limit to compare "
            "them whole"
        )


def comparison_encoder(context: common.Context, max_responses: int) -> Any:
    """Record -> ComparisonBatch row with this stage's lengths."""
    return functools.partial(
        encode_comparison,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
        max_response=context.data_config.max_response,
        max_responses=max_responses,
    )
