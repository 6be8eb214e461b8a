"""The cache of sampled tokens: a ring buffer of columns that all slots write together.

A step reads each slot's newest token and writes its keys and values into one column.
The column is the same for all slots, no matter when each response began, and the token
that the step draws belongs to the next column. A column belongs to the slot's current
response if it is not older than that response.

Letters: S slots, K samples per prompt, R columns, L layers, G heads of keys and values,
C channels a head, r slots that are filled together.
"""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int
from instructgpt.models.config import ModelConfig
from instructgpt.models.structures import KVSegment


class Ring(NamedTuple):
    """The columns of all slots: keys and values, tokens and their log-probs."""

    # One array per layer, without the axis K if K is 1.
    keys: tuple[Float[Array, "S *K G R C"], ...]
    values: tuple[Float[Array, "S *K G R C"], ...]
    tokens: Int[Array, "S K R"]
    log_probs: Float[Array, "S K R"]

    @classmethod
    def create(
        cls,
        config: ModelConfig,
        length: int,
        token: Int[Array, "S K"],
        log_prob: Float[Array, "S K"],
    ) -> Self:
        """A ring of R = `length` columns that holds each slot's first token."""
        slots, samples = token.shape
        shape = slots, samples, length
        # With one sample there is no axis K, because a cache that is read in another
        # shape than it is written in would be copied.
        rows = (slots,) if samples == 1 else (slots, samples)
        layer = *rows, config.num_kv_heads, length, config.head_dim
        cache = (jnp.zeros(layer, config.compute_dtype),) * config.num_layers
        return cls(
            keys=cache,
            values=cache,
            tokens=jnp.zeros(shape, jnp.int32).at[..., 0].set(token),
            log_probs=jnp.zeros(shape, jnp.float32).at[..., 0].set(log_prob),
        )

    def column(self, step: Int[Array, ""]) -> Int[Array, ""]:
        """The column whose tokens this step reads and whose keys it writes."""
        return step % self.tokens.shape[-1]

    def segment(
        self,
        step: Int[Array, ""],
        *,
        reads: Int[Array, " S"],
        prompt_length: Int[Array, " S"],
        wraps: bool,
    ) -> KVSegment:
        """The response tokens that this step's tokens see, themselves included.

        With R = 4 columns, at step 5, a response that began at step 3 (reads = 2) is
        in columns 3, 0, 1; its oldest token stands at prompt_length:

            column      0   1   2   3
            age         1   0   3   2     steps since the column was written
            valid       1   1   0   1     age <= reads
            positions  +1  +2  -1  +0     prompt_length + reads - age

        Args:
          step: Number of decode steps so far.
          reads: Index, from 0, of the response token that this step reads in each slot.
          prompt_length: Number of real tokens of each slot's prompt.
          wraps: Whether a response may continue at the ring's first column.
        """
        shape = self.tokens.shape
        samples, limit = shape[:2], shape[-1]
        age = (step - jnp.arange(limit)) % limit  # steps since its own step
        held = jnp.minimum(reads + 1, limit)[:, None]
        first = (step + 1 - held) % limit
        stop = first + held
        spans: tuple[tuple[Array, Array], ...] = ((first, jnp.minimum(stop, limit)),)
        if wraps:
            spans = (*spans, (jnp.zeros_like(first), stop - limit))
        positions = (prompt_length + reads)[:, None] - age[None]
        return KVSegment(
            keys=self.keys,
            values=self.values,
            positions=jnp.broadcast_to(positions[:, None], shape),
            valid=jnp.broadcast_to((age[None] < held)[:, None], shape),
            spans=jax.tree.map(lambda x: jnp.broadcast_to(x, samples), spans),
        )

    def record(
        self,
        step: Int[Array, ""],
        *,
        cache: KVSegment,
        token: Int[Array, "S K"],
        log_prob: Float[Array, "S K"],
        done: Bool[Array, "S K"],
    ) -> "Ring":
        """The ring after a step.

        Args:
          step: Number of decode steps before it.
          cache: The result of `segment` with the keys and values of the tokens read.
          token: The tokens drawn.
          log_prob: The log-probs of the tokens drawn.
          done: Responses that had ended before. They are not overwritten, so that their
            first tokens survive if they wait for a whole round of the ring.
        """
        following = self.column(step + 1)

        def written(old: Array, new: Array) -> Array:
            kept = jax.lax.dynamic_slice_in_dim(old, following, 1, axis=2)
            new = jnp.where(done[..., None], kept, new[..., None])
            return jax.lax.dynamic_update_slice_in_dim(old, new, following, axis=2)

        return Ring(
            keys=cache.keys,
            values=cache.values,
            tokens=written(self.tokens, token),
            log_probs=written(self.log_probs, log_prob),
        )

    def begin(
        self,
        step: Int[Array, ""],
        slot: Int[Array, " r"],
        *,
        token: Int[Array, "r K"],
        log_prob: Float[Array, "r K"],
    ) -> "Ring":
        """Writes the first tokens of new responses in these slots; S is no slot."""
        column = self.column(step)
        tokens = self.tokens.at[slot, :, column].set(token, mode="drop")
        log_probs = self.log_probs.at[slot, :, column].set(log_prob, mode="drop")
        return self._replace(tokens=tokens, log_probs=log_probs)

    def responses(
        self, slot: Int[Array, " r"], start: Int[Array, " r"]
    ) -> tuple[Int[Array, "r K R"], Float[Array, "r K R"]]:
        """Tokens and log-probs of some slots, in the order of drawing.

        Args:
          slot: Numbers of slots.
          start: Number of steps done when each response began.
        """
        limit = self.tokens.shape[-1]
        columns = (start[:, None] + jnp.arange(limit)[None]) % limit
        tokens, log_probs = (
            jnp.take_along_axis(x[slot], columns[:, None], axis=-1)
            for x in (self.tokens, self.log_probs)
        )
        return tokens, log_probs
