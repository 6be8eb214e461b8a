"""The pre-LN GPT block and its attention over segments.

Letters: B batch, K responses that share a prompt (1 for plain text), T query
tokens, S key tokens, D width, H heads, C channels a head, F feed-forward, L layers.

Attention reads a list of segments: first the context (a prompt computed once, what
has been sampled so far), then the tokens themselves. A segment of keys [B, S, H, C]
is shared by the K rows of its prompt; [B, K, S, H, C] belongs to each row. All
segments share one softmax, so splitting a text over segments changes nothing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.models.config import ModelConfig
from instructgpt.sharding import constrain

Array = jax.Array


class Segment(NamedTuple):
    """Keys and values computed earlier, to attend to. K is absent when shared."""

    keys: Array  # compute dtype [L, B, (K,) S, H, C]
    values: Array  # compute dtype [L, B, (K,) S, H, C]
    positions: Array  # int32[B, (K,) S]
    valid: Array  # bool[B, (K,) S]


def visible(
    positions: Array, segment_positions: Array, segment_valid: Array
) -> tuple[Array, Array]:
    """Which keys a query may see, and how far back each lies.

    Args:
      positions: int32[B, K, T] of the queries.
      segment_positions: int32[B, S] or int32[B, K, S] of the keys.
      segment_valid: bool of the same shape; False on padding.

    Returns:
      (bool[B, K, T, S] causal and valid, int32[B, K, T, S] distance in tokens).
    """
    if segment_positions.ndim == 2:
        segment_positions = segment_positions[:, None]
        segment_valid = segment_valid[:, None]
    distance = positions[..., :, None] - segment_positions[..., None, :]
    return (distance >= 0) & segment_valid[..., None, :], distance


def attend(query: Array, segments: list[tuple[Array, Array, Array]]) -> Array:
    """Softmax attention over the joined segments, in float32.

    Args:
      query: [B, K, T, H, C].
      segments: Of each, keys and values [B, (K,) S, H, C] and bool[B, K, T, S].

    Returns:
      [B, K, T, H, C] in the query's dtype. A query that sees nothing gets a mean of
      the values, never a NaN; such rows are padding.
    """
    scale = query.shape[-1] ** -0.5
    scores = []
    for keys, _, mask in segments:
        pattern = "bkthc,bshc->bkhts" if keys.ndim == 4 else "bkthc,bkshc->bkhts"
        score = jnp.einsum(pattern, query, keys, preferred_element_type=jnp.float32)
        scores.append(jnp.where(mask[:, :, None], score * scale, -1e30))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    weights = weights.astype(query.dtype)
    out, start = jnp.zeros((), query.dtype), 0
    for keys, values, _ in segments:
        stop = start + keys.shape[-3]
        pattern = "bkhts,bshc->bkthc" if keys.ndim == 4 else "bkhts,bkshc->bkthc"
        out = out + jnp.einsum(pattern, weights[..., start:stop], values)
        start = stop
    return out


class LayerNorm(nn.Module):
    """Layer normalisation in float32 whatever the compute dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises [..., D]; returns the compute dtype."""
        width = x.shape[-1]
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        axes = ("norm",)
        scale = self.param("scale", nn.with_logical_partitioning(ones, axes), (width,))
        bias = self.param("bias", nn.with_logical_partitioning(zeros, axes), (width,))
        x = x.astype(jnp.float32)
        mean = x.mean(axis=-1, keepdims=True)
        variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + self.config.layer_norm_eps)
        shape = (1,) * (x.ndim - 1) + (width,)
        x = x * scale.reshape(shape) + bias.reshape(shape)
        return x.astype(self.config.compute_dtype)


class Dense(nn.Module):
    """y = x . kernel + bias over the last `contract` axes of x."""

    config: ModelConfig
    features: tuple[int, ...]
    axes: tuple[str, ...]  # logical names of the kernel's axes
    std: float
    contract: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., in] to [..., features]."""
        inputs, outputs = self.axes[: self.contract], self.axes[self.contract :]
        shape = x.shape[-len(inputs) :] + self.features
        normal = nn.initializers.normal(self.std)
        zeros = nn.initializers.zeros_init()
        kernel = self.param(
            "kernel", nn.with_logical_partitioning(normal, self.axes), shape
        )
        # A bias along `embed` is a handful of bytes: it stays whole.
        bias_axes = tuple("norm" if a == "embed" else a for a in outputs)
        bias = self.param(
            "bias", nn.with_logical_partitioning(zeros, bias_axes), self.features
        )
        dtype = self.config.compute_dtype
        dims = tuple(range(x.ndim - len(inputs), x.ndim)), tuple(range(len(inputs)))
        y = jax.lax.dot_general(x, kernel.astype(dtype), (dims, ((), ())))
        lead = (1,) * (y.ndim - bias.ndim)
        return y + bias.astype(dtype).reshape(lead + bias.shape)


class Attention(nn.Module):
    """Causal self-attention that also reads context segments."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        x: Array,
        positions: Array,
        valid: Array,
        context: tuple[Segment, ...],
        banded: Array,
        texts: Array | None = None,
    ) -> tuple[Array, tuple[Array, Array]]:
        """Attends [B, K, T, D] -> [B, K, T, D] and the new keys and values.

        Args:
          x: Normalised inputs.
          positions: int32[B, K, T].
          valid: bool[B, K, T].
          context: Segments of this layer, keys [B, (K,) S, H, C].
          banded: bool scalar, whether this layer is locally banded.
          texts: int32[B, K, T] or None; see Transformer.
        """
        cfg = self.config
        heads, axes = (cfg.num_heads, cfg.head_dim), ("embed", "heads", "head_dim")
        std = cfg.width**-0.5
        query, keys, values = (
            constrain(
                Dense(cfg, heads, axes, std, name=name)(x),
                *("batch", None, None, "heads", None),
            )
            for name in ("query", "key", "value")
        )
        segments = []
        own = Segment(keys, values, positions, valid)
        for segment in (*context, own):
            mask, distance = visible(positions, segment.positions, segment.valid)
            if cfg.attention_band:
                mask &= ~banded | (distance < cfg.attention_band)
            if texts is not None and segment is own:
                mask &= texts[..., :, None] == texts[..., None, :]
            segments.append((segment.keys, segment.values, mask))
        out = Dense(
            cfg,
            (cfg.width,),
            ("heads", "head_dim", "embed"),
            (cfg.width * cfg.num_layers) ** -0.5,
            contract=2,
            name="out",
        )(attend(query, segments))
        return constrain(out, "batch", None, None, None), (keys, values)


class MLP(nn.Module):
    """Two layers with the tanh form of GELU between them."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, K, T, D] -> [B, K, T, D]."""
        cfg = self.config
        std = cfg.width**-0.5
        x = Dense(cfg, (cfg.mlp_width,), ("embed", "mlp"), std, name="up")(x)
        x = constrain(jax.nn.gelu(x, approximate=True), "batch", None, None, "mlp")
        std = (cfg.mlp_width * cfg.num_layers) ** -0.5
        x = Dense(cfg, (cfg.width,), ("mlp", "embed"), std, name="down")(x)
        return constrain(x, "batch", None, None, None)


class Block(nn.Module):
    """x + attention(LN(x)), then x + MLP(LN(x)), each with residual dropout."""

    config: ModelConfig
    deterministic: bool
    keep_kv: bool

    @nn.compact
    def __call__(
        self,
        x: Array,
        scanned: tuple[tuple[tuple[Array, Array], ...], Array],
        positions: Array,
        valid: Array,
        texts: Array | None,
        context: tuple[tuple[Array, Array], ...],
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """One layer of `nn.scan`.

        Args:
          x: [B, K, T, D] residual stream.
          scanned: This layer's context (keys, values) and whether it is banded.
          positions: int32[B, K, T].
          valid: bool[B, K, T].
          texts: int32[B, K, T] or None; see Transformer.
          context: Each segment's (positions, valid), the same for all layers.

        Returns:
          The residual stream, and (keys, values) [B, K, T, H, C] if kept.
        """
        cfg = self.config
        kv, banded = scanned
        segments = tuple(Segment(*a, *b) for a, b in zip(kv, context, strict=True))
        drop = nn.Dropout(cfg.residual_dropout, deterministic=self.deterministic)
        h, kv_new = Attention(cfg, name="attention")(
            LayerNorm(cfg, name="ln_1")(x), positions, valid, segments, banded, texts
        )
        x = x + drop(h)
        x = x + drop(MLP(cfg, name="mlp")(LayerNorm(cfg, name="ln_2")(x)))
        return x, kv_new if self.keep_kv else None
