"""The small tuples of arrays that layers, kernels and samplers hand to each other.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, S key
tokens, G heads of keys and values, C channels a head, R rotated channels, L layers;
M groups of b prompts with N rows each.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Shaped

OutputRange = tuple[int, int]  # columns [first, stop) whose outputs are wanted
# Keys and values of one layer or, with an axis L in front, of all layers.
KeysValues = tuple[Float[Array, "*rows G S C"], Float[Array, "*rows G S C"]]


class Weights(NamedTuple):
    """The parameters of y = x . kernel + bias."""

    # Float32 master weights, or copies in the compute dtype for inference.
    kernel: Float[Array, "..."]  # [in..., out...]
    bias: Float[Array, "..."] | None  # [out...]


class Rotation(NamedTuple):
    """Angles by which rotary positions turn each token's planes."""

    cos: Float[Array, "B K T planes"]
    sin: Float[Array, "B K T planes"]


class TokenInfo(NamedTuple):
    """What attention needs to know about each token; the same in every layer."""

    positions: Int[Array, "B K T"]
    valid: Bool[Array, "B K T"] | None  # False on padding; None: every token is real
    # Which of its row's texts a token belongs to; None where a row is one text.
    segment_ids: Int[Array, "B K T"] | None = None
    rotation: Rotation | None = None  # None without rotary positions
    # Index, within its group, of the context row that each row continues; None: each
    # row has a context of its own.
    prompt_index: Int[Array, "M N"] | None = None
    # Column of the cache, which is the last context, where a decoding step writes its
    # keys and values before attention reads it; None: they are a segment of their own.
    cache_column: Int[Array, ""] | None = None

    def columns(self, output_range: OutputRange | None) -> "TokenInfo":
        """The same for the tokens of the output range only."""
        if output_range is None:
            return self
        every = self.positions, self.valid, self.segment_ids, self.rotation
        positions, valid, segment_ids, rotation = jax.tree.map(
            lambda x: columns(x, output_range), every
        )
        return self._replace(
            positions=positions,
            valid=valid,
            segment_ids=segment_ids,
            rotation=rotation,
        )


class KVSegment(NamedTuple):
    """Keys and values to attend to: a context's, or the tokens' own.

    The axis K is absent where the K rows of a prompt share the segment. Heads come
    before tokens, as attention reads them.
    """

    # In the compute dtype: [B, (K,) G, S, C] within a layer; [L, B, (K,) G, S, C] or a
    # tuple of L arrays for a whole model. Rotary keys are already rotated.
    keys: Any
    values: Any
    positions: Int[Array, "B *K S"]
    valid: Bool[Array, "B *K S"] | None  # None: every token is real
    # The valid columns as spans [first, stop), each a pair of int32[B, (K)]; empty
    # where the valid columns are not known to form spans.
    spans: tuple[tuple[Int[Array, "*rows"], Int[Array, "*rows"]], ...] = ()
    segment_ids: Int[Array, "B K S"] | None = None  # only of the tokens' own segment

    def write(
        self,
        keys: Float[Array, "B K G 1 C"],
        values: Float[Array, "B K G 1 C"],
        column: Int[Array, ""],
    ) -> "KVSegment":
        """A copy of one layer's segment with a token's keys and values at a column."""

        def put(cache: Array, new: Array) -> Array:
            new = new.reshape(*cache.shape[:-2], 1, cache.shape[-1])
            return jax.lax.dynamic_update_slice_in_dim(cache, new, column, axis=-2)

        return self._replace(keys=put(self.keys, keys), values=put(self.values, values))

    def for_rows(self, prompt_index: Int[Array, "M N"]) -> "KVSegment":
        """The segment with one row for each row that continues it.

        The segment's rows are M groups of b, one group after the other, and
        `prompt_index` counts within a group, so that groups may be on other devices.
        """

        def taken(x: Array) -> Array:
            groups = x.reshape(prompt_index.shape[0], -1, *x.shape[1:])
            rows = jax.vmap(lambda group, index: group[index])(groups, prompt_index)
            return rows.reshape(-1, *x.shape[1:])

        return jax.tree.map(taken, self)


class TokenLogProbs(NamedTuple):
    """Log-probs of given tokens by the language-model head, with entropies."""

    log_probs: Float[Array, "*N"]  # of the target tokens, in nats
    entropy: Float[Array, "*N"]  # of the whole distribution, in nats; has no gradient


def columns(
    x: Shaped[Array, "B K T *rest"], output_range: OutputRange | None
) -> Shaped[Array, "B K _ *rest"]:
    """The columns in the output range; all of them if the range is None."""
    return x if output_range is None else x[:, :, slice(*output_range)]


def unsqueezed_to(
    x: Shaped[Array, "*axes"], ndim: int
) -> Shaped[Array, "*ones_and_axes"]:
    """The array with axes of length 1 in front, to be broadcast against `ndim` axes."""
    return jnp.reshape(x, (1,) * (ndim - x.ndim) + x.shape)
