"""The language-model step: pretraining, SFT and the RL-init mix (paper §3.5, C.1).

The three differ only in their data: the rows, and the tokens that are targets.
"""

import jax.numpy as jnp

from instructgpt.arrays import Array, Key
from instructgpt.batches import TokenBatch
from instructgpt.losses import Weighted
from instructgpt.models.scoring import target_nll
from instructgpt.models.transformer import Transformer
from instructgpt.steps.update import LossFn, Metrics, Params


def weigh_pretraining(batch: TokenBatch, rows: int, share: float) -> TokenBatch:
    """Gives the pretraining rows of a mixed batch a share of its loss (paper C.3, E.8).

    The loss of the batch is then (1 - share) times the demonstrations' mean per target
    token plus share times the text's mean per target token. It does not depend on their
    numbers of targets: a demonstration's answer is short, a row of text is all targets.

    Args:
      batch: B rows, demonstrations first.
      rows: Number of pretraining rows, which come last; 1 to B - 1.
      share: Share of the loss that is the pretraining text's, between 0 and 1.

    Returns:
      The batch with a float32[B, T] `loss_mask`, whose mean over targets is 1.
    """
    mask = batch.loss_mask.astype(jnp.float32)
    is_text = (jnp.arange(len(mask)) >= len(mask) - rows)[:, None]
    text, own = (jnp.where(is_text == side, mask, 0.0).sum() for side in (True, False))
    total = text + own
    # If one part has no targets, the other has the whole loss.
    weight = jnp.where(
        is_text,
        share * total / jnp.maximum(text, 1.0),
        (1.0 - share) * total / jnp.maximum(own, 1.0),
    )
    return batch._replace(loss_mask=mask * weight)


def make_sft_loss(
    model: Transformer,
    *,
    first_target: int = 1,
    packed: bool = False,
    leading_padding: bool = True,
    train: bool = True,
) -> LossFn:
    """Builds the loss: mean negative log-likelihood in nats over target tokens.

    Args:
      model: The language model; its config sets residual dropout.
      first_target: First column that can be a target. It is P for rows with left-padded
        prompts of P tokens and a loss on responses only, so that logits are computed
        only at response positions.
      packed: Whether a row may hold several texts, each of which sees only itself.
      leading_padding: Whether a row may begin with padding, as left-padded prompts do.
        Without leading padding the causal mask is enough.
      train: Whether dropout is on.
    """
    dropout = train and model.config.residual_dropout > 0

    def loss_fn(
        params: Params, batch: TokenBatch, key: Key[Array, ""]
    ) -> tuple[Weighted, Metrics]:
        total = target_nll(
            model,
            params,
            batch.tokens,
            batch.valid if leading_padding else None,
            loss_mask=batch.loss_mask,
            segment_ids=batch.segment_ids if packed else None,
            first=first_target,
            dropout_key=key if dropout else None,
        )
        counted = batch.loss_mask[:, first_target:].astype(jnp.float32).sum()
        return Weighted(total, counted), {}

    return loss_fn
