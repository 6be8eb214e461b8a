"""Rotary positions in a config.json, in both spellings that are about.

`rope_theta`, `rope_scaling` and `rotary_pct` stand beside the other keys, or, since
transformers 5, `rope_theta`, `rope_type` and the rest in `rope_parameters`. The older
spelling is written, as every version reads it.
"""

from collections.abc import Mapping
from typing import Any

from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig

_TYPES = {"default": "none", "linear": "linear", "llama3": "llama3"}


def read_rotary(
    public: Mapping[str, Any], *, head_dim: int, where: str
) -> dict[str, Any]:
    """Fields of ModelConfig.

    Args:
      public: The content of a config.json.
      head_dim: Channels a head.
      where: Named at the start of error messages.

    Raises:
      UserError: a kind of scaling that is not supported.
    """
    given = public.get("rope_parameters") or public.get("rope_scaling") or {}
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in _TYPES:
        raise UserError(
            f"{where}: rotary scaling {kind!r} is not supported; known: "
            f"{', '.join(_TYPES)}"
        )
    base = given.get("rope_theta") or public.get("rope_theta")
    base = base or public.get("rotary_emb_base") or 10_000.0
    share = given.get("partial_rotary_factor") or public.get("rotary_pct") or 1.0
    fields = {
        "rotary_base": float(base),
        "rotary_dim": int(head_dim * share),
        "rotary_scaling": _TYPES[kind],
    }
    if kind == "default":
        return fields
    fields["rotary_factor"] = float(given["factor"])
    if kind == "llama3":
        fields |= {
            "rotary_low_freq": float(given["low_freq_factor"]),
            "rotary_high_freq": float(given["high_freq_factor"]),
            "rotary_original_context": given["original_max_position_embeddings"],
        }
    return fields


def write_rotary(config: ModelConfig, *, partial: bool) -> dict[str, Any]:
    """Keys of a config.json.

    Args:
      config: The model's.
      partial: Whether the family has a key for the share of channels that turn.
    """
    scaling: dict[str, Any] | None = {
        "rope_type": config.rotary_scaling,
        "factor": config.rotary_factor,
    }
    if config.rotary_scaling == "none":
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
