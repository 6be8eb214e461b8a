"""The pre-norm decoder block and its attention over segments.

Letters: B batch, K responses that share a prompt (1 for plain text), T query tokens,
S key tokens, D width, H heads, G heads of keys and values, C channels a head, F
feed-forward, L layers.

Attention reads a list of segments: first the context (a prompt computed once, what
has been sampled so far), then the tokens themselves. A segment of keys [B, G, S, C]
is shared by the K rows of its prompt; [B, K, G, S, C] belongs to each row. All
segments share one softmax, so splitting a text over segments changes nothing. Heads
come before tokens, as the matrix products want them: a cache is read as it lies.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.models.config import ModelConfig
from instructgpt.models.rotary import Rotation, rotate
from instructgpt.sharding import constrain

Array = jax.Array


class Segment(NamedTuple):
    """Keys and values computed earlier, to attend to. K is absent when shared."""

    # Compute dtype [L, B, (K,) G, S, C], keys rotated if positions are; a tuple of L
    # arrays where layers do not run in a loop, and one array within a layer.
    keys: Any
    values: Any
    positions: Array  # int32[B, (K,) S]
    valid: Array  # bool[B, (K,) S]


class Place(NamedTuple):
    """Where each token of a row stands."""

    positions: Array  # int32[B, K, T]
    valid: Array  # bool[B, K, T], False on padding
    # int32[B, K, T], which of its row's texts; None where a row is one text.
    texts: Array | None
    rotation: Rotation | None  # None without rotary positions
    # int32[M, N], which context row of its group each row reads; None: its own.
    owner: Array | None = None


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


def of_owner(x: Array, owner: Array) -> Array:
    """Rows [M b, ...] of contexts -> those [M N, ...] that each row reads.

    Args:
      x: M groups of b rows, one group after the other.
      owner: int32[M, N], from 0 to b - 1. A group reads only its own rows, so groups
        may lie on different devices.
    """
    grouped = x.reshape(owner.shape[0], -1, *x.shape[1:])
    taken = jax.vmap(lambda rows, numbers: rows[numbers])(grouped, owner)
    return taken.reshape(-1, *x.shape[1:])


def attend(query: Array, segments: list[tuple[Array, Array, Array]]) -> Array:
    """Softmax attention over the joined segments, in float32.

    Query head h reads the keys and values of head h // (H / G).

    Args:
      query: [B, K, H, T, C].
      segments: Of each, keys and values [B, (K,) G, S, C] and bool[B, K, T, S].

    Returns:
      [B, K, H, T, C] in the query's dtype. A query that sees nothing gets a mean of
      the values, never a NaN; such rows are padding.
    """
    shape, heads, groups = query.shape, query.shape[2], segments[0][0].shape[-3]
    # q: the query heads that share a head of keys and values, if there are several.
    q = "q" if heads > groups else ""
    if q:
        query = query.reshape(*shape[:2], groups, heads // groups, *shape[3:])
    scores = []
    for keys, _, mask in segments:
        k = "k" if keys.ndim == 5 else ""
        score = jnp.einsum(
            f"bkg{q}tc,b{k}gsc->bkg{q}ts",
            query,
            keys,
            preferred_element_type=jnp.float32,
        )
        mask = jnp.expand_dims(mask, (2, 3) if q else 2)
        scores.append(jnp.where(mask, score * shape[-1] ** -0.5, -1e30))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1)
    weights = weights.astype(query.dtype)
    out, start = jnp.zeros((), query.dtype), 0
    for keys, values, _ in segments:
        k, stop = "k" if keys.ndim == 5 else "", start + keys.shape[-2]
        pattern = f"bkg{q}ts,b{k}gsc->bkg{q}tc"
        out = out + jnp.einsum(pattern, weights[..., start:stop], values)
        start = stop
    return out.reshape(shape)


def attend_fused(query: Array, keys: Array, values: Array, mask: Array | None) -> Array:
    """`attend` of tokens to themselves in one kernel, which stores no scores.

    cuDNN's on a GPU, in half precision; elsewhere XLA makes of it what it can.

    Args:
      query: [B, K, H, T, C].
      keys: [B, K, G, T, C].
      values: As the keys.
      mask: bool[B, K, T, T], causal; None if it is no more than that.

    Returns:
      [B, K, H, T, C].
    """

    def rows(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:]).swapaxes(1, 2)

    cudnn = jax.default_backend() == "gpu" and query.dtype.itemsize == 2
    out = jax.nn.dot_product_attention(
        rows(query),
        rows(keys),
        rows(values),
        mask=None if mask is None else mask.reshape(-1, 1, *mask.shape[2:]),
        is_causal=True,  # what it rules out the kernel skips, with a mask as well
        implementation="cudnn" if cudnn else "xla",
    )
    return out.swapaxes(1, 2).reshape(query.shape)


class Norm(nn.Module):
    """LayerNorm or RMSNorm, in float32 whatever the compute dtype."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Normalises [..., D]; returns the compute dtype."""
        width, lead = x.shape[-1], (1,) * (x.ndim - 1)
        ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
        axes = ("norm",)
        centered = self.config.norm == "layer_norm"
        scale = self.param("scale", nn.with_logical_partitioning(ones, axes), (width,))
        x = x.astype(jnp.float32)
        mean = x.mean(axis=-1, keepdims=True) if centered else 0.0
        variance = jnp.square(x - mean).mean(axis=-1, keepdims=True)
        x = (x - mean) * jax.lax.rsqrt(variance + self.config.norm_eps)
        x = x * scale.reshape(*lead, width)
        if centered:
            boxed = nn.with_logical_partitioning(zeros, axes)
            x = x + self.param("bias", boxed, (width,)).reshape(*lead, width)
        return x.astype(self.config.compute_dtype)


class Dense(nn.Module):
    """y = x . kernel (+ bias) over the last `contract` axes of x."""

    config: ModelConfig
    features: tuple[int, ...]
    axes: tuple[str, ...]  # logical names of the kernel's axes
    std: float
    use_bias: bool
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
        dtype = self.config.compute_dtype
        dims = tuple(range(x.ndim - len(inputs), x.ndim)), tuple(range(len(inputs)))
        y = jax.lax.dot_general(x, kernel.astype(dtype), (dims, ((), ())))
        if not self.use_bias:
            return y
        # A bias along `embed` is a handful of bytes: it stays whole.
        bias_axes = tuple("norm" if a == "embed" else a for a in outputs)
        bias = self.param(
            "bias", nn.with_logical_partitioning(zeros, bias_axes), self.features
        )
        lead = (1,) * (y.ndim - bias.ndim)
        return y + bias.astype(dtype).reshape(lead + bias.shape)


class Attention(nn.Module):
    """Causal self-attention that also reads context segments."""

    config: ModelConfig
    leading_padding: bool = True

    @nn.compact
    def __call__(
        self, x: Array, place: Place, context: tuple[Segment, ...], banded: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        """Attends [B, K, T, D] -> [B, K, T, D] and the new keys and values.

        Args:
          x: Normalised inputs.
          place: Where they stand.
          context: Segments of this layer, keys [B, (K,) G, S, C].
          banded: bool scalar, whether this layer is locally banded.
        """
        cfg = self.config

        def project(name: str, heads: int, axis: str) -> Array:
            features, axes = (heads, cfg.head_dim), ("embed", axis, "head_dim")
            std = cfg.width**-0.5
            y = Dense(cfg, features, axes, std, use_bias=cfg.qkv_bias, name=name)(x)
            return constrain(y, "batch", None, None, axis, None)

        query = project("query", cfg.num_heads, "heads")
        keys = project("key", cfg.num_kv_heads, "kv_heads")
        values = project("value", cfg.num_kv_heads, "kv_heads")
        if place.rotation is not None:
            query, keys = rotate(query, place.rotation), rotate(keys, place.rotation)
        query, keys, values = (x.swapaxes(2, 3) for x in (query, keys, values))
        segments = []
        own = Segment(keys, values, place.positions, place.valid)
        if place.owner is not None:
            # In the layer, so that the copies of all layers are never there at once.
            context = tuple(
                Segment(*(of_owner(x, place.owner) for x in segment))
                for segment in context
            )
        for segment in (*context, own):
            mask, distance = visible(place.positions, segment.positions, segment.valid)
            if cfg.attention_band:
                mask &= ~banded | (distance < cfg.attention_band)
            if place.texts is not None and segment is own:
                mask &= place.texts[..., :, None] == place.texts[..., None, :]
            segments.append((segment.keys, segment.values, mask))
        if cfg.fused_attention and not context:
            masked = place.texts is not None or cfg.attention_band
            masked = masked or self.leading_padding
            mask = segments[0][2] if masked else None
            y = attend_fused(query, keys, values, mask)
        else:
            y = attend(query, segments)
        out = Dense(
            cfg,
            (cfg.width,),
            ("heads", "head_dim", "embed"),
            (cfg.width * cfg.num_layers) ** -0.5,
            use_bias=cfg.out_bias,
            contract=2,
            name="out",
        )(y.swapaxes(2, 3))
        return constrain(out, "batch", None, None, None), (keys, values)


class MLP(nn.Module):
    """GELU between two layers, or SwiGLU: silu(gate) times up (Shazeer 2020)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, K, T, D] -> [B, K, T, D]."""
        cfg = self.config

        def dense(name: str, axes: tuple[str, str], *, std: float) -> Dense:
            features = (cfg.mlp_width if axes[1] == "mlp" else cfg.width,)
            return Dense(cfg, features, axes, std, use_bias=cfg.mlp_bias, name=name)

        up = dense("up", ("embed", "mlp"), std=cfg.width**-0.5)(x)
        if cfg.activation == "swiglu":
            gate = dense("gate", ("embed", "mlp"), std=cfg.width**-0.5)(x)
            up = jax.nn.silu(gate) * up
        else:
            up = jax.nn.gelu(up, approximate=cfg.activation == "gelu_tanh")
        up = constrain(up, "batch", None, None, "mlp")
        std = (cfg.mlp_width * cfg.num_layers) ** -0.5
        out = dense("down", ("mlp", "embed"), std=std)(up)
        return constrain(out, "batch", None, None, None)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), or both from the same x."""

    config: ModelConfig
    deterministic: bool
    keep_kv: bool
    leading_padding: bool = True

    @nn.compact
    def __call__(
        self,
        x: Array,
        scanned: tuple[tuple[tuple[Array, Array], ...], Array],
        place: Place,
        context: tuple[tuple[Array, Array], ...],
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """One layer of `nn.scan`, with dropout before each residual add.

        Args:
          x: [B, K, T, D] residual stream.
          scanned: This layer's context (keys, values) and whether it is banded.
          place: Where the tokens stand, the same for all layers.
          context: Each segment's (positions, valid), the same for all layers.

        Returns:
          The residual stream, and (keys, values) [B, K, G, T, C] if kept.
        """
        cfg = self.config
        kv, banded = scanned
        segments = tuple(Segment(*a, *b) for a, b in zip(kv, context, strict=True))
        drop = nn.Dropout(cfg.residual_dropout, deterministic=self.deterministic)
        h, kv_new = Attention(cfg, self.leading_padding, name="attention")(
            Norm(cfg, name="ln_1")(x), place, segments, banded
        )
        after = x + drop(h)
        source = x if cfg.parallel_residual else after
        x = after + drop(MLP(cfg, name="mlp")(Norm(cfg, name="ln_2")(source)))
        return x, kv_new if self.keep_kv else None
