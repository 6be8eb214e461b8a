"""The pre-norm decoder block.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, D width,
H heads, G heads of keys and values, C channels a head, F feed-forward.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from instructgpt.models.attention import (
    SMALL,
    KVSegment,
    attend,
    attend_fused,
    attend_text,
    rows_of_prompt,
    visible,
)
from instructgpt.models.cached import attend_cached, readable
from instructgpt.models.config import ModelConfig
from instructgpt.models.norms import Norm
from instructgpt.models.products import add_bias, product, product_dtype
from instructgpt.models.rotary import Rotation, rotate
from instructgpt.sharding import Layout, constrain, constrain_residual

Array = jax.Array


def columns(x: Array, read: tuple[int, int] | None) -> Array:
    """Of [B, K, T, ...] those read, from `first` until `stop`; None: all."""
    return x if read is None else x[:, :, slice(*read)]


class Place(NamedTuple):
    """Where each token of a row stands."""

    positions: Array  # int32[B, K, T]
    valid: Array  # bool[B, K, T], False on padding
    # int32[B, K, T], which text of its row; None where a row is one text.
    segment_ids: Array | None
    rotation: Rotation | None  # None without rotary positions
    # int32[M, N], which context row of its group each row reads; None: its own.
    prompt_index: Array | None = None
    # int32[], the column of the last context where the tokens' keys and values are
    # written before they are read there; None: they are a segment of their own.
    column: Array | None = None

    def of(self, read: tuple[int, int] | None) -> "Place":
        """Of the tokens of some columns."""
        of_each = self.positions, self.valid, self.segment_ids, self.rotation
        positions, valid, segment_ids, rotation = jax.tree.map(
            lambda x: columns(x, read), of_each
        )
        return Place(
            positions, valid, segment_ids, rotation, self.prompt_index, self.column
        )


class Weights(NamedTuple):
    """Of y = x . kernel + bias."""

    # Float32, or copies in the compute dtype for models that only run.
    kernel: Array  # [in..., out...]
    bias: Array | None  # [out...]


def stacked(weights: list[Weights]) -> Weights:
    """Weights of one input and outputs of one shape, as one product: [in, n, out...].

    Along a new axis, so that outputs may be cut over devices.
    """
    kernels, biases = zip(*weights, strict=True)
    bias = None if biases[0] is None else jnp.stack(biases)
    return Weights(jnp.stack(kernels, axis=1), bias)


def affine(
    x: Array, weights: Weights, config: ModelConfig, *, contract: int = 1
) -> Array:
    """y = x . kernel + bias over the last `contract` axes of x."""
    dtype = product_dtype(config)
    y = product(x, weights.kernel, contract=contract, dtype=dtype)
    return y if weights.bias is None else add_bias(y, weights.bias)


class Affine(nn.Module):
    """The parameters of an affine map."""

    config: ModelConfig
    inputs: tuple[int, ...]
    features: tuple[int, ...]
    axes: tuple[str, ...]  # logical names of the kernel's axes
    std: float
    use_bias: bool

    @nn.compact
    def __call__(self) -> Weights:
        """As they are stored; the products cast them."""
        shape = self.inputs + self.features
        normal = nn.initializers.normal(self.std)
        zeros = nn.initializers.zeros_init()
        kernel = self.param(
            "kernel", nn.with_logical_partitioning(normal, self.axes), shape
        )
        if not self.use_bias:
            return Weights(kernel, None)
        # A bias along `embed` is a handful of bytes: it stays whole.
        outputs = self.axes[len(self.inputs) :]
        axes = tuple("norm" if a == "embed" else a for a in outputs)
        boxed = nn.with_logical_partitioning(zeros, axes)
        return Weights(kernel, self.param("bias", boxed, self.features))


class Attention(nn.Module):
    """Causal self-attention that also reads context segments."""

    config: ModelConfig
    leading_padding: bool = True
    layout: Layout = "rows"
    read: tuple[int, int] | None = None

    @nn.compact
    def __call__(
        self, x: Array, place: Place, context: tuple[KVSegment, ...], banded: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        """Attends [B, K, T, D] -> [B, K, T, D] and the new keys and values.

        What is attended is of the columns read alone, if some are given.

        Args:
          x: Normalised inputs.
          place: Where they stand.
          context: Segments of this layer, keys [B, (K,) G, S, C].
          banded: bool scalar, whether this layer is locally banded.
        """
        cfg = self.config

        query, keys, values = self.project(x)
        asking = place.of(self.read)
        if place.rotation is not None and asking.rotation is not None:
            query, keys = rotate(query, asking.rotation), rotate(keys, place.rotation)
        query, keys, values = (x.swapaxes(2, 3) for x in (query, keys, values))
        if place.column is not None:
            *before, last = context
            last = last.write(keys, values, place.column)
            context, keys, values = (*before, last), last.keys, last.values
            if cfg.fused_attention and readable(query, context, cfg.attention_band):
                return self.merge(attend_cached(query, context)), (keys, values)
        own = KVSegment(keys, values, place.positions, place.valid)
        segments, prompt_index = [], place.prompt_index
        if prompt_index is not None:
            # In the layer, so that the copies of all layers are never there at once.
            context = tuple(
                jax.tree.map(lambda x: rows_of_prompt(x, prompt_index), segment)
                for segment in context
            )
        for segment in context if place.column is not None else (*context, own):
            mask, distance = visible(asking.positions, segment.positions, segment.valid)
            if cfg.attention_band:
                mask &= ~banded | (distance < cfg.attention_band)
            asked, ids = asking.segment_ids, place.segment_ids
            if asked is not None and ids is not None and segment is own:
                mask &= asked[..., :, None] == ids[..., None, :]
            mask = constrain(mask, "batch", None, None, None)
            segments.append((segment.keys, segment.values, mask))
        if cfg.fused_attention and not context:
            seen, ids = self.masked(place, segments[0][2])
            switch, band = banded if cfg.attention_band else None, cfg.attention_band
            y = attend_fused(query, keys, values, seen, ids, switch, band=band)
        elif context:
            y = attend(query, segments)
        else:
            first = 0 if self.read is None else self.read[0]
            y = attend_text(query, *segments[0], first)
        return self.merge(y), (keys, values)

    def masked(self, place: Place, mask: Array) -> tuple[Array | None, Array | None]:
        """A text's mask and numbers as `attend_fused` takes them."""
        causal = place.segment_ids is None and not self.leading_padding
        if causal and not self.config.attention_band:
            return None, None
        numbers = 1 if place.segment_ids is None else place.segment_ids + 1
        return mask, jnp.where(place.valid, numbers, 0)

    def merge(self, y: Array) -> Array:
        """What each head says, [B, K, H, T, C] -> [B, K, T, D]."""
        cfg = self.config
        weights = Affine(
            cfg,
            (cfg.num_heads, cfg.head_dim),
            (cfg.width,),
            ("heads", "head_dim", "embed"),
            (cfg.width * cfg.num_layers) ** -0.5,
            use_bias=cfg.out_bias,
            name="out",
        )()
        y = constrain(y.swapaxes(2, 3), "batch", None, None, "heads", None)
        out = affine(y, weights, cfg, contract=2)
        return constrain_residual(out, self.layout)

    def project(self, x: Array) -> tuple[Array, ...]:
        """[B, K, T, D] -> queries [B, K, T, H, C], and keys and values [.., G, C]."""
        cfg = self.config

        def weights(name: str, heads: int, axis: str) -> Weights:
            return Affine(
                cfg,
                (cfg.width,),
                (heads, cfg.head_dim),
                ("embed", axis, "head_dim"),
                cfg.width**-0.5,
                use_bias=cfg.qkv_bias,
                name=name,
            )()

        parts = [
            weights("query", cfg.num_heads, "heads"),
            weights("key", cfg.num_kv_heads, "kv_heads"),
            weights("value", cfg.num_kv_heads, "kv_heads"),
        ]

        def alone(x: Array, part: Weights, axis: str) -> Array:
            return constrain(affine(x, part, cfg), "batch", None, None, axis, None)

        def together(x: Array, parts: list[Weights]) -> tuple[Array, ...]:
            y = affine(x, stacked(parts), cfg)
            y = constrain(y, "batch", None, None, None, "heads", None)
            # Whose gradient is a concatenation, not a sum of padded parts.
            split = jax.lax.split(y, (1,) * len(parts), axis=3)
            return tuple(part.squeeze(3) for part in split)

        asking = columns(x, self.read)
        # One product, unless to stack the weights would cost more than it saves.
        if cfg.num_heads != cfg.num_kv_heads or x.shape[2] == 1:
            query, *others = parts
            read = tuple(alone(x, part, "kv_heads") for part in others)
            return alone(asking, query, "heads"), *read
        if self.read is None:
            return together(x, parts)
        return alone(asking, parts[0], "heads"), *together(x, parts[1:])


class MLP(nn.Module):
    """GELU between two layers, or SwiGLU: silu(gate) times up (Shazeer 2020)."""

    config: ModelConfig
    layout: Layout = "rows"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, K, T, D] -> [B, K, T, D]."""
        cfg = self.config

        def dense(x: Array, name: str, axes: tuple[str, str], *, std: float) -> Array:
            sizes = {"embed": cfg.width, "mlp": cfg.mlp_width}
            shape = (sizes[axes[0]],), (sizes[axes[1]],)
            layer = Affine(cfg, *shape, axes, std, use_bias=cfg.mlp_bias, name=name)
            return affine(x, layer(), cfg)

        up = dense(x, "up", ("embed", "mlp"), std=cfg.width**-0.5)
        if cfg.activation == "swiglu":
            gate = dense(x, "gate", ("embed", "mlp"), std=cfg.width**-0.5)
            up = jax.nn.silu(gate) * up
        else:
            up = jax.nn.gelu(up, approximate=cfg.activation == "gelu_tanh")
        up = constrain(up, "batch", None, None, "mlp")
        std = (cfg.mlp_width * cfg.num_layers) ** -0.5
        out = dense(up, "down", ("mlp", "embed"), std=std)
        return constrain_residual(out, self.layout)


class Dropout(nn.Module):
    """Zeroes a share of the values and scales up the others.

    Sixteen random bits a value, half of what a uniform number takes; the backward pass
    keeps which values stay rather than draw them again.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., D] -> [..., D]."""
        if self.deterministic or not self.rate:
            return x
        *lead, width = x.shape
        words = jax.random.bits(self.make_rng("dropout"), (*lead, -(-width // 2)))
        bits = jax.lax.bitcast_convert_type(words, jnp.uint16)
        bits = bits.reshape(*lead, -1)[..., :width]
        kept = round((1.0 - self.rate) * 2**16)
        if not kept:
            return jnp.zeros_like(x)
        stays = checkpoint_name(bits < jnp.uint16(min(kept, 2**16 - 1)), SMALL)
        return jnp.where(stays, x * (2**16 / kept), 0.0)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), or both from the same x."""

    config: ModelConfig
    deterministic: bool
    keep_kv: bool
    leading_padding: bool = True
    layout: Layout = "rows"
    read: tuple[int, int] | None = None

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
          The residual stream of the columns read, and (keys, values) [B, K, G, T, C] of
          all if kept: the whole context that they were written to, if they were.
        """
        cfg = self.config
        kv, banded = scanned
        segments = tuple(KVSegment(*a, *b) for a, b in zip(kv, context, strict=True))
        drop = Dropout(cfg.residual_dropout, self.deterministic)
        # A backend's kernel wants a query for each key.
        whole = cfg.fused_attention
        h, kv_new = Attention(
            cfg,
            self.leading_padding,
            self.layout,
            None if whole else self.read,
            name="attention",
        )(Norm(cfg, name="ln_1")(x), place, segments, banded)
        x, h = columns(x, self.read), columns(h, self.read) if whole else h
        after = x + drop(h)
        source = x if cfg.parallel_residual else after
        mlp = MLP(cfg, self.layout, name="mlp")
        x = after + drop(mlp(Norm(cfg, name="ln_2")(source)))
        return x, kv_new if self.keep_kv else None
