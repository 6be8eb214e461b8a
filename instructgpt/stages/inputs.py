"""Selects the records of a stage that fit its limits, and checks them with a model.

Each function prints one line about what it leaves out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from jax.sharding import Mesh

from instructgpt.data.documents import TokenWindows
from instructgpt.data.rows import Encode, Rows
from instructgpt.data.transforms import Record, encode_prompt
from instructgpt.distributed import first_then_others
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig, for_devices
from instructgpt.sharding import put_batch
from instructgpt.stages.blocks import build
from instructgpt.stages.opening import Context, announce
from instructgpt.tokenizer import check_tokenizer

_announce_once = functools.cache(announce)  # prints a line only once per process


def short_rows(
    context: Context,
    source: Sequence[Record],
    encode: Encode,
    what: str,
    *,
    responses: bool = False,
) -> Rows:
    """Encodes the records that fit `config.data.max_prompt`, each once.

    It prints how many do not fit, of how many, and which limits would keep them.

    Args:
      context: The opened stage.
      source: Prompts, demonstrations or rankings.
      encode: Turns a record into a row, with the limits of `config.data`.
      what: Plural name of the records in messages, such as "train prompts".
      responses: Whether the responses must fit `config.data.max_response` as well, as
        those of demonstrations.

    Raises:
      UserError: no record fits.
    """
    limit = context.data_config.max_prompt
    most = context.data_config.max_response
    limits = f"config.data.max_prompt={limit}"
    if responses:
        limits += f" and config.data.max_response={most}"
    none = f"none of {len(source)} {what} fits {limits}, in tokens"
    rows = Rows.that_fit(source, encode, otherwise=none)
    dropped = len(source) - len(rows)
    if dropped:
        whose = "" if what.endswith("prompts") else "prompts of "
        too_long = f"{whose}more than {limit} tokens (config.data.max_prompt)"
        if responses:
            too_long += f" or responses of more than {most} (config.data.max_response)"
        announce(
            f"{context.config.name}: {dropped} of {len(source)} {what} have {too_long} "
            "and are left out; raise the limit to keep them"
        )
    return rows


def prompt_rows(context: Context, source: Sequence[Record], what: str) -> Rows:
    """The rows of `short_rows` for records of which only the prompt is used."""
    encode = functools.partial(
        encode_prompt,
        prompt_format=context.data.prompt_format,
        max_prompt=context.data_config.max_prompt,
    )
    return short_rows(context, source, encode, what)


def has_valid(context: Context, kind: str, what: str) -> bool:
    """Whether the data have a valid split of a kind; else prints what is left out.

    Args:
      context: The opened stage.
      kind: Kind of records, a key of FIELDS.
      what: What the stage leaves out without that split, such as "samples".
    """
    if context.data.has(kind, "valid"):
        return True
    announce(
        f"{context.config.name}: the data have no valid {kind}, so there is no {what}; "
        f"add {kind}.valid.jsonl to have it"
    )
    return False


def check_model(context: Context, config: ModelConfig, *, extra: int = 0) -> None:
    """Raises UserError if the data cannot be fed to a model of this config.

    Args:
      context: The opened stage.
      config: The model's config.
      extra: Number of tokens before every prompt (a few-shot prefix).
    """
    check_tokenizer(
        context.data.tokenizer,
        vocab_size=config.vocab_size,
        padded_vocab_size=config.padded_vocab_size,
    )
    data = context.data_config
    longest = data.max_prompt + data.max_response + extra
    if longest > config.context_length:
        raise UserError(
            f"config.data: max_prompt={data.max_prompt} + max_response="
            f"{data.max_response}{f' + prefix of {extra}' if extra else ''} = "
            f"{longest} tokens do not fit config.model.context_length="
            f"{config.context_length}; shorten them or use a longer context"
        )


def text_windows(
    context: Context, split: str, config: ModelConfig, length: int, *, key: str
) -> TokenWindows:
    """The pretraining text of a split, in rows of `length` tokens.

    Args:
      context: The opened stage.
      split: train, valid or test.
      config: The model's config.
      length: Tokens of a row; 0 is the model's context length.
      key: The config key that `length` comes from, for the error.

    Raises:
      UserError: the rows are longer than the context, or nothing can be predicted.
    """
    row = _row_length(config, length, key)
    tokens = first_then_others(lambda: context.data.tokens(split))
    return TokenWindows(tokens, row)


def enough_windows(
    context: Context, windows: TokenWindows, least: int
) -> TokenWindows | Rows:
    """The windows of a short text, each several times, so that they fill a batch.

    Args:
      context: The opened stage.
      windows: The windows of the train documents.
      least: Number of windows of a batch.
    """
    found = len(windows)
    if found >= least:
        return windows
    announce(
        f"{context.config.name}: the train documents fill {found} windows of "
        f"pretraining text, and an iteration takes {least}: a window stands in it "
        "several times"
    )
    return Rows(windows, None, [number % found for number in range(least)])


def _row_length(config: ModelConfig, length: int, key: str) -> int:
    """The tokens of a row, after a check of the length that a config gives."""
    if length == 1:
        raise UserError(f"{key}=1: one token predicts nothing; give 0, or 2 or more")
    if length > config.context_length:
        raise UserError(
            f"{key}={length} is longer than the model's "
            f"context_length={config.context_length}; lower it"
        )
    return length or config.context_length


def valid_windows(
    context: Context, config: ModelConfig, length: int, *, key: str, what: str
) -> TokenWindows | None:
    """`text_windows` of the validation split; None if it has less than one row.

    It prints that `what`, such as "valid_loss", is left out then.
    """
    if not has_valid(context, "documents", what):
        return None
    row = _row_length(config, length, key)
    tokens = first_then_others(lambda: context.data.tokens("valid"))
    if len(tokens) < row:
        announce(
            f"{context.config.name}: the valid documents have {len(tokens)} tokens, "
            f"fewer than a row of {row} ({key}), so there is no {what}"
        )
        return None
    return TokenWindows(tokens, row)


def model_config(values: Any, mesh: Mesh) -> ModelConfig:
    """A model's config in dtypes that the mesh's devices have."""
    config = build(ModelConfig, values, where="config.model")
    tpu = mesh.devices.flat[0].platform == "tpu"
    return for_devices(config, tpu=tpu, log=_announce_once)


def to_device(mesh: Mesh) -> Callable[[Any], Any]:
    """Builds the function that moves a process's batch to its devices."""
    return lambda batch: put_batch(batch, mesh)


def count_valid(batch: Any) -> int:
    """Number of real tokens of a TokenBatch on the host."""
    return int(batch.valid.sum())
