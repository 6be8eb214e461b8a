"""The language-model step: pretraining, SFT and the RL-init mix (paper §3.5, C.1).

They differ only in their data: which rows come in, and which tokens are targets.
"""

import jax
import jax.numpy as jnp

from instructgpt.batches import TokenBatch
from instructgpt.losses import Weighted
from instructgpt.models.scoring import target_nll
from instructgpt.models.transformer import Transformer
from instructgpt.steps.update import LossFn, Metrics, Params


def make_sft_loss(
    model: Transformer,
    *,
    first_target: int = 1,
    packed: bool = False,
    leading_padding: bool = True,
    train: bool = True,
) -> LossFn:
    """Mean negative log-likelihood in nats over the batch's target tokens.

    Args:
      model: The language model; its config sets residual dropout.
      first_target: First column that can be a target. Rows with left-padded prompts
        of P tokens and a loss on responses only have P here, so that logits exist
        for response positions alone.
      packed: Whether a row may hold several texts, each of which sees only itself.
      leading_padding: Whether a row may begin with padding, as with left-padded
        prompts; without, fused attention is faster.
      train: Whether dropout is on.
    """
    dropout = train and model.config.residual_dropout > 0

    def loss_fn(
        params: Params, batch: TokenBatch, key: jax.Array
    ) -> tuple[Weighted, Metrics]:
        total = target_nll(
            model,
            params,
            batch.tokens,
            batch.valid,
            batch.loss_mask,
            texts=batch.texts if packed else None,
            first=first_target,
            leading_padding=leading_padding,
            dropout_key=key if dropout else None,
        )
        counted = batch.loss_mask[:, first_target:].astype(jnp.float32).sum()
        return Weighted(total, counted), {}

    return loss_fn
