"""Sums with their weights, and the pairwise ranking loss, without a model.

Letters: B batch, T tokens, K responses per prompt. Sums are divided by weights once,
after both are added up over microbatches and processes, so that padding and splitting
cannot bias a mean.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Shaped


class Weighted(NamedTuple):
    """A sum and the weight that turns it into a mean."""

    sum: Float[Array, ""]
    weight: Float[Array, ""]

    def mean(self) -> Float[Array, ""]:
        """The mean sum / weight, or 0 if the weight is 0."""
        return self.sum / jnp.where(self.weight > 0, self.weight, 1.0)


def masked_sum(values: Shaped[Array, "*axes"], mask: Bool[Array, "*axes"]) -> Weighted:
    """Sum of the values where the mask is True, weighted by their number."""
    # `where` is needed: padding may hold an infinity, and inf * 0 is a NaN.
    kept = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return Weighted(kept.sum(), mask.astype(jnp.float32).sum())


class RankingLoss(NamedTuple):
    """The pairwise ranking loss, with metrics to log."""

    loss: Weighted  # mean over prompts
    accuracy: Weighted  # share of untied pairs in which the better one scores higher
    margin: Weighted  # mean over untied pairs of r(better) - r(worse)


def untied_pairs(
    ranks: Int[Any, "B K"],
    present: Bool[Any, "B K"],
    wording: Int[Any, "B K"] | None = None,
) -> Bool[Any, "B K K"]:
    """Marks the pairs of a prompt's responses in which one is better than the other.

    Pairs of equal ranks are left out, and so are responses with the same tokens.

    Args:
      ranks: Rank of each response, 1 is best. All arguments are NumPy or JAX arrays.
      present: False for an empty slot.
      wording: Equal numbers for responses with the same tokens; None: all differ.

    Returns:
      True at [prompt, winner, loser].
    """
    both = present[:, :, None] & present[:, None, :]
    better = both & (ranks[:, :, None] < ranks[:, None, :])
    if wording is None:
        return better
    return better & (wording[:, :, None] != wording[:, None, :])


def pairwise_ranking(
    scores: Float[Array, "B K"],
    *,
    ranks: Int[Array, "B K"],
    present: Bool[Array, "B K"],
    wording: Int[Array, "B K"] | None = None,
    divisor: Literal["untied", "all"] = "untied",
) -> RankingLoss:
    """K-way ranking loss: -log sigmoid(r(x, y_w) - r(x, y_l)) (paper Eq. 1).

    All pairs of a prompt are one batch element: their mean is the prompt's loss, and
    the loss is the mean over prompts. Ties and pairs of the same wording are dropped; a
    prompt without any other pair has weight 0.

    Args:
      scores: The reward model's scores.
      ranks: Rank of each response, 1 is best; equal ranks are a tie.
      present: False for an empty slot.
      wording: See `untied_pairs`.
      divisor: A prompt's sum is divided by its number of untied pairs, or of all
        C(K, 2) pairs as Eq. 1 is written.
    """
    better = untied_pairs(ranks, present, wording)
    margins = scores[:, :, None] - scores[:, None, :]
    losses = -jax.nn.log_sigmoid(margins)
    untied = better.sum(axis=(1, 2)).astype(jnp.float32)
    k = present.sum(axis=1).astype(jnp.float32)
    pairs = untied if divisor == "untied" else k * (k - 1) / 2
    per_prompt = jnp.where(better, losses, 0.0).sum(axis=(1, 2))
    per_prompt = per_prompt / jnp.maximum(pairs, 1.0)
    # Equal scores count one half, so that a constant model has accuracy 0.5.
    right = (margins > 0) + 0.5 * (margins == 0)
    return RankingLoss(
        loss=masked_sum(per_prompt, untied > 0),
        accuracy=masked_sum(right, better),
        margin=masked_sum(margins, better),
    )
