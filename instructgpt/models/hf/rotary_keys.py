"""Rotary positions in a config.json, in both spellings that are in use.

The older one has `rope_theta`, `rope_scaling` and `rotary_pct` beside the other keys;
since transformers 5 `rope_parameters` holds `rope_theta`, `rope_type` and the rest.
Export writes the older spelling, which every version reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.models.hf.values import positive, whole
from instructgpt.reading import describe

_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}
_BLOCKS = ("rope_scaling", "rope_parameters")
# Keys of a block that do not depend on its type.
_SHARED = ("rope_type", "type", "rope_theta", "partial_rotary_factor")
_LLAMA3 = ("low_freq_factor", "high_freq_factor")
_CONTEXT = "original_max_position_embeddings"
_KEYS: dict[str, tuple[str, ...]] = {
    "default": (_CONTEXT,),
    "linear": ("factor", _CONTEXT),
    "llama3": ("factor", *_LLAMA3, _CONTEXT),
}


def read_rotary(
    public: Mapping[str, Any], *, head_dim: int, where: str, partial: bool = False
) -> dict[str, Any]:
    """Reads the rotary fields of ModelConfig.

    Args:
      public: The content of a config.json.
      head_dim: Channels a head.
      where: Named at the start of error messages.
      partial: Whether the family may rotate only a share of the channels.

    Raises:
      UserError: the kind of scaling is not supported, or a key of its block is missing,
        has the wrong type, or does not belong to that kind.
    """
    block, given = _block(public, where)
    kind = _kind(given, block, where)
    base_keys = ("rotary_emb_base", "rope_theta") if partial else ("rope_theta",)
    base = _first(given, ("rope_theta",), block) or _first(public, base_keys, where)
    share_keys = ("rotary_pct", "partial_rotary_factor")
    share = _first(given, ("partial_rotary_factor",), block)
    share = share or _first(public, share_keys, where) or (0.25 if partial else 1.0)
    if share > 1 or (share < 1 and not partial):
        wanted = "more than 0 and at most 1" if partial else "1 in this family"
        raise UserError(
            f"{where}: partial_rotary_factor is {share}; it must be {wanted}"
        )
    fields: dict[str, Any] = {
        "rotary_base": base or 10_000.0,
        "rotary_dim": int(head_dim * share + 1e-6),
        "rotary_scaling": _TYPES[kind],
    }
    if fields["rotary_dim"] < 2:
        raise UserError(
            f"{where}: of {head_dim} channels a head a share of {share} turns, which "
            "is not one pair; correct head_dim or the share"
        )
    if kind != "default":
        fields |= _scaling(kind, given, block)
    if public.get("rotary_table") is not None:
        fields |= _from_table(public["rotary_table"], fields)
    return fields


def _scaling(kind: str, given: Mapping[str, Any], block: str) -> dict[str, Any]:
    """The scaling fields of ModelConfig, from the keys of the block."""
    for key in _KEYS[kind]:
        if key not in given and not (kind == "linear" and key == _CONTEXT):
            raise UserError(
                f"{block}.{key} is missing or null, which rotary scaling {kind!r} "
                "needs; correct the block"
            )
    fields = {"rotary_factor": positive(given["factor"], f"{block}.factor")}
    if kind == "llama3":
        low, high = (positive(given[k], f"{block}.{k}") for k in _LLAMA3)
        if low >= high:
            raise UserError(
                f"{block}: low_freq_factor={low} must be below high_freq_factor={high}"
            )
        fields |= {
            "rotary_low_freq": low,
            "rotary_high_freq": high,
            "rotary_original_context": whole(
                given.get(_CONTEXT), f"{block}.{_CONTEXT}"
            ),
        }
    return fields


def _block(public: Mapping[str, Any], where: str) -> tuple[str, dict[str, Any]]:
    """The name of the scaling block, and its keys that are not null."""
    for name in _BLOCKS:
        value = public.get(name)
        if value is None or value == {}:
            continue
        if not isinstance(value, dict):
            raise UserError(
                f"{where}: {name} is {describe(value)}; it must be null or an object "
                'such as {"rope_type": "linear", "factor": 4.0}'
            )
        given = {key: item for key, item in value.items() if item is not None}
        return f"{where}: {name}", given
    return where, {}


def _kind(given: Mapping[str, Any], block: str, where: str) -> str:
    """The type of scaling, after checking that every key of the block belongs to it."""
    names = [given[key] for key in ("rope_type", "type") if key in given]
    kind = names[0] if names else "default"
    if any(name != kind for name in names):
        raise UserError(
            f"{block}: rope_type={names[0]!r} and type={names[1]!r} differ; remove one"
        )
    if not isinstance(kind, str) or kind not in _TYPES:
        raise UserError(
            f"{where}: rotary scaling {kind!r} is not supported; known: "
            f"{', '.join(_TYPES)}"
        )
    for key in given:
        if key not in (*_SHARED, *_KEYS[kind]):
            missing = "" if names else ", and rope_type is missing"
            raise UserError(
                f"{block}.{key} is {describe(given[key])}, which rotary scaling "
                f"{kind!r} does not have{missing}; correct the block"
            )
    return kind


def _first(values: Mapping[str, Any], keys: tuple[str, ...], where: str) -> float:
    """The positive value of the first key that is present and not null, else 0."""
    for key in keys:
        if values.get(key) is not None:
            dot = "." if where.endswith(_BLOCKS) else ": "
            return positive(values[key], f"{where}{dot}{key}")
    return 0.0


def _from_table(table: Sequence[float], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The scaling fields that give a table of divisors of the planes' rates.

    GGUF files hold Llama 3.1's table instead of the four numbers that define it. Where
    the table is that one, the four numbers are returned, so that export can write them.
    """
    divisors = np.asarray(table) * fields.get("rotary_factor", 1.0)
    exponents = np.arange(0, fields["rotary_dim"], 2) / fields["rotary_dim"]
    rates = fields["rotary_base"] ** -exponents
    if np.all(divisors == divisors[0]):
        kind = "none" if divisors[0] == 1 else "linear"
        return {"rotary_scaling": kind, "rotary_factor": float(divisors[0])}
    low, high, context = 1.0, 4.0, 8192
    kept = np.clip((context * rates / (2 * np.pi) - low) / (high - low), 0.0, 1.0)
    # The slowest plane gives the most exact value, which is rounded to a whole number.
    slow = 1 / divisors[-1] - kept[-1]
    factor = float(round((1 - kept[-1]) / slow)) if slow > 0 else 0.0
    if factor > 0 and np.allclose(
        divisors, 1 / ((1 - kept) / factor + kept), rtol=1e-5, atol=0
    ):
        return {
            "rotary_scaling": "llama3",
            "rotary_factor": factor,
            "rotary_low_freq": low,
            "rotary_high_freq": high,
            "rotary_original_context": context,
        }
    return {
        "rotary_scaling": "table",
        "rotary_factor": 1.0,
        "rotary_table": tuple(map(float, divisors)),
    }


def write_rotary(config: ModelConfig, *, partial: bool) -> dict[str, Any]:
    """The rotary keys of a config.json.

    Args:
      config: The model's config.
      partial: Whether the family has a key for the share of rotated channels.
    """
    scaling: dict[str, Any] | None = {
        "rope_type": config.rotary_scaling,
        "factor": config.rotary_factor,
    }
    if config.rotary_scaling in ("none", "table"):
        scaling = None
    elif config.rotary_scaling == "llama3":
        scaling = {
            **(scaling or {}),
            "low_freq_factor": config.rotary_low_freq,
            "high_freq_factor": config.rotary_high_freq,
            "original_max_position_embeddings": config.rotary_original_context,
        }
    base = "rotary_emb_base" if partial else "rope_theta"
    keys = {base: config.rotary_base, "rope_scaling": scaling}
    if partial:
        keys["rotary_pct"] = config.rotary_dim / config.head_dim
    return keys
