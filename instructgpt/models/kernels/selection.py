"""The fast version of each operation, chosen by backend, dtype and shape.

Products, norms, dropout and the head have one fast version each.
Attention has several versions:

- a text attends to itself by cuDNN's kernel or JAX's splash kernel where
  `config.model.fused_attention` is on and the platform has one for the shapes, else in
  blocks of queries;
- a decoding step attends to its cache, with that switch on a GPU, by a kernel that
  reads each key once;
- anything else attends in one block, whose backward pass recomputes the scores.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
H query heads, C channels a head.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int
from instructgpt.models.kernels import blocks, cached, cudnn, splash
from instructgpt.models.kernels.dropout import dropout
from instructgpt.models.kernels.head import logits, token_log_probs, weighted_nll
from instructgpt.models.kernels.interface import platform
from instructgpt.models.kernels.linear import linear, project_heads
from instructgpt.models.kernels.norm import normalize
from instructgpt.models.kernels.reference import attention_mask
from instructgpt.models.remat import KEPT
from instructgpt.models.structures import KVSegment, TokenInfo

__all__ = [
    "attention",
    "dropout",
    "linear",
    "logits",
    "normalize",
    "project_heads",
    "token_log_probs",
    "weighted_nll",
]


def attention(
    query: Float[Array, "B K H T C"],
    segments: Sequence[KVSegment],
    info: TokenInfo,
    *,
    first_column: int = 0,
    band: int = 0,
    banded: Bool[Array, ""] | None = None,
    fused: bool = False,
) -> Float[Array, "B K H T C"]:
    """Fast version of `reference.attention`; `fused` allows the platform's kernels."""
    if len(segments) == 1 and info.cache_column is None:
        (own,) = segments  # not a cache, so it is the text itself
        whole = query.shape[3] == own.keys.shape[-2]
        mask = attention_mask(info, own, band=band, banded=banded)
        if fused and whole:
            return _fused(query, own, info, mask, band=band, banded=banded)
        return blocks.attend_text(query, own.keys, own.values, mask, first_column)
    if fused and cached.fits(query, segments, band):
        return cached.attend_cached(query, segments)
    masked = [
        (s.keys, s.values, attention_mask(info, s, band=band, banded=banded))
        for s in segments
    ]
    return blocks.attend(query, masked)


def _fused(
    query: Float[Array, "B K H T C"],
    own: KVSegment,
    info: TokenInfo,
    mask: Bool[Array, "B K T T"],
    *,
    band: int,
    banded: Bool[Array, ""] | None,
) -> Float[Array, "B K H T C"]:
    """Attention of a text to itself by the platform's kernel, if it has one."""
    if platform() == "tpu" and splash.fits(query.shape[3]):
        return splash.attend_splash(
            query,
            own.keys,
            own.values,
            _numbers(info),
            banded if band else None,
            band=band,
            keep_as=KEPT,
        )
    causal = info.valid is None and info.segment_ids is None and not band
    if cudnn.fits(query, masked=not causal):
        seen = None if causal else mask
        return cudnn.attend_cudnn(query, own.keys, own.values, seen)
    return blocks.attend_text(query, own.keys, own.values, mask)


def _numbers(info: TokenInfo) -> Int[Array, "B K T"] | None:
    """The number of each token's text, 0 on padding; None if all are equal."""
    if info.segment_ids is None:
        return None if info.valid is None else info.valid.astype(jnp.int32)
    numbers = info.segment_ids + 1
    return numbers if info.valid is None else jnp.where(info.valid, numbers, 0)
