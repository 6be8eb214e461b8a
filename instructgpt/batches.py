"""The contract between data and steps: every batch is a NamedTuple of arrays.

Letters: B batch, T tokens, P prompt, R response, K responses per prompt; M groups of
b prompts (M b = B), whose responses share N rows of S tokens. The fields hold NumPy
arrays when they leave the loader and JAX arrays inside a step. Prompts are padded on
the left, responses on the right; `valid` marks real tokens.
"""

from typing import Any, NamedTuple

Array = Any  # numpy.ndarray or jax.Array; this module imports neither


class TokenBatch(NamedTuple):
    """Rows of text for pretraining and supervised fine-tuning."""

    tokens: Array  # int32[B, T]
    segment_ids: Array  # int32[B, T], which text of its row, from 1; 0 on padding
    # bool[B, T], True where the token is a prediction target; or float32, how much the
    # target counts.
    loss_mask: Array

    @property
    def valid(self) -> Array:
        """bool[B, T], False on padding."""
        return self.segment_ids > 0


class PromptBatch(NamedTuple):
    """Prompts waiting for a response."""

    tokens: Array  # int32[B, P], left-padded
    valid: Array  # bool[B, P]
    index: Array  # int32[B], row number in the source


class ComparisonBatch(NamedTuple):
    """One prompt a row with its K ranked responses (paper §3.5, Eq. 1)."""

    prompt: Array  # int32[B, P], left-padded
    prompt_valid: Array  # bool[B, P]
    responses: Array  # int32[B, K, R], right-padded, EOS last
    response_valid: Array  # bool[B, K, R], True up to and including EOS
    ranks: Array  # int32[B, K], 1 is best, equal ranks are a tie
    present: Array  # bool[B, K], False for an empty slot when a prompt has fewer
    wording: Array  # int32[B, K], equal for responses that are the same tokens

    @property
    def labels(self) -> tuple[Array, Array, Array]:
        """Ranks, present and wording: which responses are better than which."""
        return self.ranks, self.present, self.wording


class PackedComparisonBatch(NamedTuple):
    """A ComparisonBatch without most of its padding and empty slots.

    A row holds responses to one prompt of its group, one after another.
    """

    prompt: Array  # int32[M, b, P], left-padded
    prompt_valid: Array  # bool[M, b, P]
    rows: Array  # int32[M, N, S], right-padded
    # int32[M, N, S], which response of its row, from 1; 0 on padding.
    segment_ids: Array
    # int32[M, N], the prompt that a row belongs to, from 0 to b - 1.
    prompt_index: Array
    last: Array  # int32[M, b, K], where a response ends: row * S + column
    ranks: Array  # int32[M, b, K], as in ComparisonBatch
    present: Array  # bool[M, b, K]
    wording: Array  # int32[M, b, K]

    @property
    def labels(self) -> tuple[Array, Array, Array]:
        """As in ComparisonBatch."""
        return self.ranks, self.present, self.wording


class Rollout(NamedTuple):
    """Prompts, sampled responses and everything PPO needs to know about them."""

    prompt: Array  # int32[B, P], left-padded
    prompt_valid: Array  # bool[B, P]
    response: Array  # int32[B, R], right-padded
    response_valid: Array  # bool[B, R], True up to and including EOS
    log_probs: Array  # float32[B, R], of the policy that sampled
    ref_log_probs: Array  # float32[B, R], of the frozen KL reference
    values: Array  # float32[B, R], of the value net before the update
    score: Array  # float32[B], of the reward model at the last response token
