"""Every operation in a few lines of plain JAX: the definition of the fast versions.

With `config.model.kernels="reference"` a model uses only these.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
S key tokens, H query heads, G heads of keys and values, Q = H / G query heads that
share one, C channels a head, N tokens of the head, D width, V vocabulary.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Key
from instructgpt.models.kernels.interface import HeadOptions
from instructgpt.models.structures import (
    KVSegment,
    TokenInfo,
    TokenLogProbs,
    Weights,
    unsqueezed_to,
)
from instructgpt.sharding import constrain

# Keys and values [B, (K,) G, S, C] of a segment, and the mask of those that each token
# sees. S is not named in the types because it differs from segment to segment.
MaskedSegment = tuple[
    Float[Array, "*_ G _ C"],
    Float[Array, "*_ G _ C"],
    Bool[Array, "B K T _"],
]
NEVER = -1e30  # the score of what cannot be seen or predicted; finite, so never a NaN


def linear(
    equation: str, x: Float[Array, "..."], weights: Weights, *, dtype: str
) -> Float[Array, "..."]:
    """A linear map, y = x . kernel + bias.

    Args:
      equation: An einsum that contracts the last axes of x with the kernel's first.
      x: Inputs in the compute dtype.
      weights: Kernel and bias; the bias has the kernel's last axes.
      dtype: The dtype that x and the kernel are rounded to before multiplication.

    Returns:
      y in the compute dtype, which the sums have too.
    """
    kernel = weights.kernel.astype(dtype)
    y = jnp.einsum(equation, x.astype(dtype), kernel, preferred_element_type=x.dtype)
    if weights.bias is None:
        return y
    return y + unsqueezed_to(weights.bias.astype(y.dtype), y.ndim)


def project_heads(
    x: Float[Array, "B K T D"], weights: Sequence[Weights], *, dtype: str
) -> tuple[Float[Array, "B K T _ C"], ...]:
    """Queries, keys and values of one input: `linear` with each of several weights.

    Args:
      x: Normalised inputs, in the compute dtype.
      weights: Kernels [D, H or G, C] and biases [H or G, C].
      dtype: See `linear`.
    """
    return tuple(linear("BKTD,DHC->BKTHC", x, each, dtype=dtype) for each in weights)


def normalize(
    x: Float[Array, "*rows D"], *, center: bool, eps: float
) -> Float[Array, "*rows D"]:
    """Scales rows to mean square 1, after shifting them to mean 0 if `center`.

    Args:
      x: float32 rows.
      center: Whether the mean is subtracted first: True for LayerNorm.
      eps: Added to the variance.
    """
    if center:
        x = x - x.mean(axis=-1, keepdims=True)
    variance = jnp.square(x).mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(variance + eps)


def dropout(
    x: Float[Array, "*rows D"], key: Key[Array, ""], *, rate: float
) -> Float[Array, "*rows D"]:
    """Zeroes values with probability `rate` and divides the others by 1 - rate."""
    if rate == 1.0:
        return jnp.zeros_like(x)
    stays = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    return jnp.where(stays, x / (1.0 - rate), 0.0)


def attention_mask(
    info: TokenInfo,
    segment: KVSegment,
    *,
    band: int = 0,
    banded: Bool[Array, ""] | None = None,
) -> Bool[Array, "B K T S"]:
    """Mask of the keys of a segment that each token sees.

    A token sees real tokens at positions up to its own, within its own text where a
    row packs several, and at most `band` of them in a banded layer.

    Args:
      info: Positions, texts and masks of the T query tokens.
      segment: The S keys.
      band: Tokens that a query of a banded layer sees, itself included; 0: no layer is
        banded.
      banded: Whether this layer is banded.
    """

    def per_row(x: Array) -> Array:
        return x[:, None] if x.ndim == 2 else x

    keys = per_row(segment.positions)[..., None, :]
    distance = info.positions[..., :, None] - keys
    mask = distance >= 0
    if segment.valid is not None:
        mask &= per_row(segment.valid)[..., None, :]
    if band and banded is not None:
        mask &= ~banded | (distance < band)
    if segment.segment_ids is not None and info.segment_ids is not None:
        own = segment.segment_ids[..., None, :]
        mask &= info.segment_ids[..., :, None] == own
    return constrain(mask, "batch", None, None, None)


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
    """Softmax attention over all segments' keys together.

    Scores and softmax are float32; the product with the values is in the query's dtype.
    Query head h reads the keys and values of head h // (H / G). All segments share one
    softmax, so splitting a text over segments changes nothing.

    Args:
      query: Queries, already rotated if positions are rotary.
      segments: Context first, keys and values [B, (K,) G, S, C]; a single segment is
        the tokens' own text.
      info: Positions, texts and masks of the T tokens.
      first_column: Column of the first of the T tokens among the keys of its own text.
      band: See `attention_mask`.
      banded: See `attention_mask`.
      fused: Whether the platform's fused kernel may be used.

    Returns:
      Outputs in the query's dtype. A token that sees nothing, which is padding, gets a
      mean of the values.
    """
    del first_column, fused  # masks are made from positions, not columns
    masks = [attention_mask(info, s, band=band, banded=banded) for s in segments]
    return masked_attention(
        query, [(s.keys, s.values, m) for s, m in zip(segments, masks, strict=True)]
    )


def masked_attention(
    query: Float[Array, "B K H T C"],
    segments: Sequence[MaskedSegment],
) -> Float[Array, "B K H T C"]:
    """Softmax attention to keys and values [B, (K,) G, S, C] under given masks."""
    batch, rows, heads, length, channels = query.shape
    groups = segments[0][0].shape[-3]
    query = query.reshape(batch, rows, groups, heads // groups, length, channels)
    scores, values = [], []
    for key, value, mask in segments:
        shared = key.ndim == 4
        letters = "BGSC" if shared else "BKGSC"
        score = jnp.einsum(
            f"BKGQTC,{letters}->BKGQTS", query, key, preferred_element_type=jnp.float32
        )
        seen = mask[:, :, None, None]
        scores.append(jnp.where(seen, score * channels**-0.5, NEVER))
        row_values = value[:, None] if shared else value
        values.append(jnp.broadcast_to(row_values, (batch, rows, *value.shape[-3:])))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1)).astype(query.dtype)
    out = jnp.einsum("BKGQTS,BKGSC->BKGQTC", weights, jnp.concatenate(values, axis=3))
    return out.reshape(batch, rows, heads, length, channels)


def logits(
    head: HeadOptions, hidden: Float[Array, "*N D"], table: Float[Array, "V D"]
) -> Float[Array, "*N V"]:
    """Float32 logits divided by the temperature; -1e30 from vocab_size on."""
    out = jnp.einsum(
        "...D,VD->...V",
        hidden.astype(head.dtype),
        table.astype(head.dtype),
        preferred_element_type=jnp.float32,
    )
    known = jnp.arange(table.shape[0]) < head.vocab_size
    return jnp.where(unsqueezed_to(known, out.ndim), out / head.temperature, NEVER)


def token_log_probs(
    head: HeadOptions,
    hidden: Float[Array, "N D"],
    table: Float[Array, "V D"],
    targets: Int[Array, " N"],
) -> TokenLogProbs:
    """Log-probs of given tokens, and the entropies of their distributions.

    Args:
      head: The head's settings.
      hidden: States that predict the targets, in the compute dtype.
      table: The unembedding.
      targets: Token ids.
    """
    log_probs = jax.nn.log_softmax(logits(head, hidden, table))
    taken = jnp.take_along_axis(log_probs, targets[:, None], axis=-1)[:, 0]
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1)
    return TokenLogProbs(taken, jax.lax.stop_gradient(entropy))


def weighted_nll(
    head: HeadOptions,
    hidden: Float[Array, "N D"],
    table: Float[Array, "V D"],
    targets: Int[Array, " N"],
    weights: Float[Array, " N"],
) -> Float[Array, ""]:
    """Sum over tokens of weight * -log p(target), in nats.

    Args:
      head: The head's settings.
      hidden: States that predict the targets, in the compute dtype.
      table: The unembedding.
      targets: Token ids.
      weights: The weight of each target; has no gradient.
    """
    log_probs = token_log_probs(head, hidden, table, targets).log_probs
    # Padding may hold an infinity, and inf * 0 is a NaN.
    weights = jax.lax.stop_gradient(weights)
    return -jnp.where(weights != 0, log_probs * weights, 0.0).sum()
