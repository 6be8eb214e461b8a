"""What a stage reads of its data, and one line for what it leaves out."""

from collections.abc import Iterable

import numpy as np

from instructgpt.data.transforms import Record, filter_long
from instructgpt.stages.common import Context, announce


def keep_short(
    context: Context,
    source: Iterable[Record],
    what: str,
    *,
    responses: bool = False,
) -> np.ndarray:
    """Which records have prompts that fit `config.data.max_prompt`.

    One line says how many do not, of how many, and what would keep them.

    Args:
      context: The stage.
      source: Prompts, demonstrations or rankings.
      what: They are called: "train prompts".
      responses: Whether their responses must fit `config.data.max_response` as well,
        as those of demonstrations.

    Returns:
      int64[kept], numbers of the records, ascending.

    Raises:
      UserError: none fits.
    """
    limit = context.data_config.max_prompt
    most = context.data_config.max_response if responses else None
    kept = filter_long(
        source,
        context.data.prompt_format,
        max_prompt=limit,
        max_response=most,
        what=what,
    )
    if kept.dropped:
        whose = "" if what.endswith("prompts") else "prompts of "
        too_long = f"{whose}more than {limit} tokens (config.data.max_prompt)"
        if responses:
            too_long += f" or responses of more than {most} (config.data.max_response)"
        announce(
            f"{context.config.name}: {kept.dropped} of "
            f"{kept.dropped + len(kept.indices)} {what} have {too_long} and are left "
            "out; raise the limit to keep them"
        )
    return kept.indices


def has_valid(context: Context, kind: str, what: str) -> bool:
    """Whether there is a valid split of a kind; else a line says what is left out.

    Args:
      context: The stage.
      kind: documents, demonstrations or prompts.
      what: The stage leaves out: "samples".
    """
    if context.data.has(kind, "valid"):
        return True
    announce(
        f"{context.config.name}: the data have no valid {kind}, so there is no {what}; "
        f"add {kind}.valid.jsonl to have it"
    )
    return False
