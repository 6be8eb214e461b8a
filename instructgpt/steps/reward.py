"""The reward-model step: K-way pairwise ranking loss (paper §3.5, Eq. 1, C.2)."""

from typing import Literal

import jax

from instructgpt.arrays import Array, Key
from instructgpt.batches import ComparisonBatch, PackedComparisonBatch
from instructgpt.losses import Weighted, pairwise_ranking
from instructgpt.models.comparisons import comparison_scores
from instructgpt.models.transformer import ScalarModel
from instructgpt.steps.update import LossFn, Metrics, Params


def make_reward_loss(
    model: ScalarModel, *, divisor: Literal["untied", "all"] = "untied"
) -> LossFn:
    """Builds the ranking loss, in which a prompt's pairs are one batch element.

    Args:
      model: The reward model.
      divisor: See `pairwise_ranking`. Dropout is off.
    """

    def loss_fn(
        params: Params,
        batch: ComparisonBatch | PackedComparisonBatch,
        key: Key[Array, ""],
    ) -> tuple[Weighted, Metrics]:
        del key
        scores = comparison_scores(model, params, batch)
        labels = jax.tree.map(lambda x: x.reshape(scores.shape), batch.labels)
        out = pairwise_ranking(scores, **labels._asdict(), divisor=divisor)
        return out.loss, {"accuracy": out.accuracy, "margin": out.margin}

    return loss_fn
