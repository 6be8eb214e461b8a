"""The contract between data and steps: every batch is a NamedTuple of arrays.

Letters: B batch, T tokens, P prompt, R response, K responses per prompt; M groups of
b prompts (M b = B), whose responses share N rows of S tokens. The fields hold NumPy
arrays when they leave the loader and JAX arrays inside a step. Prompts are padded on
the left, responses on the right; `valid` marks real tokens. A single row, as it comes
from an encoder, has no axis B.
"""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float32, Int32

Array = Any  # numpy.ndarray or jax.Array; this module imports neither


class TokenBatch(NamedTuple):
    """Rows of text for pretraining and supervised fine-tuning."""

    tokens: Int32[Array, "*B T"]
    segment_ids: Int32[Array, "*B T"]  # number of the text in its row; 0 on padding
    # True where the token is a prediction target, or the weight of the target.
    loss_mask: Bool[Array, "*B T"] | Float32[Array, "*B T"]

    @property
    def valid(self) -> Bool[Array, "*B T"]:
        """False on padding."""
        return self.segment_ids > 0


class PromptBatch(NamedTuple):
    """Prompts to which responses are sampled."""

    tokens: Int32[Array, "*B P"]  # left-padded
    valid: Bool[Array, "*B P"]
    index: Int32[Array, "*B"]  # row number in the source


class RankingLabels(NamedTuple):
    """The ranking loss's arguments besides scores, by their names."""

    ranks: Int32[Array, "*B K"]  # 1 is best, equal ranks are a tie
    present: Bool[Array, "*B K"]  # False for an empty slot when a prompt has fewer
    wording: Int32[Array, "*B K"]  # equal for responses with the same tokens


class ComparisonBatch(NamedTuple):
    """One prompt a row with its K ranked responses (paper §3.5, Eq. 1)."""

    prompt: Int32[Array, "*B P"]  # left-padded
    prompt_valid: Bool[Array, "*B P"]
    responses: Int32[Array, "*B K R"]  # right-padded, EOS last
    response_valid: Bool[Array, "*B K R"]  # True up to and including EOS
    ranks: Int32[Array, "*B K"]  # this and the next two: see RankingLabels
    present: Bool[Array, "*B K"]
    wording: Int32[Array, "*B K"]
    # Number of the row, from 0 in each prompt, that holds a response when a prompt's
    # responses are packed into few rows [R]; -1 for an empty slot.
    packed_row: Int32[Array, "*B K"]

    @property
    def labels(self) -> RankingLabels:
        """The fields that say which responses are better than which."""
        return RankingLabels(self.ranks, self.present, self.wording)


class PackedComparisonBatch(NamedTuple):
    """A ComparisonBatch without most of its padding and empty slots.

    A row holds responses to one prompt of its group, one after another.
    """

    prompt: Int32[Array, "M b P"]  # left-padded
    prompt_valid: Bool[Array, "M b P"]
    rows: Int32[Array, "M N S"]  # right-padded
    # Number, from 1, of a token's response within its row; 0 on padding.
    segment_ids: Int32[Array, "M N S"]
    prompt_index: Int32[Array, "M N"]  # number of a row's prompt, from 0 to b - 1
    last: Int32[Array, "M b K"]  # index of a response's last token: row * S + column
    ranks: Int32[Array, "M b K"]  # this and the next two: see RankingLabels
    present: Bool[Array, "M b K"]
    wording: Int32[Array, "M b K"]

    @property
    def labels(self) -> RankingLabels:
        """The fields that say which responses are better than which."""
        return RankingLabels(self.ranks, self.present, self.wording)


class Rollout(NamedTuple):
    """Prompts, sampled responses and everything PPO needs to know about them."""

    prompt: Int32[Array, "*B P"]  # left-padded
    prompt_valid: Bool[Array, "*B P"]
    response: Int32[Array, "*B R"]  # right-padded
    response_valid: Bool[Array, "*B R"]  # True up to and including EOS
    log_probs: Float32[Array, "*B R"]  # by the policy that sampled
    ref_log_probs: Float32[Array, "*B R"]  # by the frozen reference of the KL
    values: Float32[Array, "*B R"]  # by the value net before the update
    score: Float32[Array, "*B"]  # reward of the whole response
