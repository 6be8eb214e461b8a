"""The pre-norm decoder block: attention and MLP, each added to the residual stream.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, S key
tokens, D width, H heads, G key and value heads, C channels a head, F width of the MLP.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.arrays import Array, Bool, Float
from instructgpt.models.config import ModelConfig
from instructgpt.models.kernels.interface import operations
from instructgpt.models.kernels.rounding import product_dtype
from instructgpt.models.positions import rotate
from instructgpt.models.structures import (
    KeysValues,
    KVSegment,
    OutputRange,
    TokenInfo,
    Weights,
    columns,
    unsqueezed_to,
)
from instructgpt.sharding import Layout, constrain, constrain_residual


class LinearParams(nn.Module):
    """The parameters of y = x . kernel + bias, which the operation `linear` applies."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    axes: tuple[str, ...]  # logical names of the kernel's axes
    std: float
    use_bias: bool

    @nn.compact
    def __call__(self) -> Weights:
        normal = nn.initializers.normal(self.std)
        kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(normal, self.axes),
            self.inputs + self.outputs,
        )
        if not self.use_bias:
            return Weights(kernel, None)
        # A bias along `embed` is small, so every device holds all of it.
        names = self.axes[len(self.inputs) :]
        names = tuple("replicated" if name == "embed" else name for name in names)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), names)
        return Weights(kernel, self.param("bias", zeros, self.outputs))


class Norm(nn.Module):
    """LayerNorm or RMSNorm, always computed in float32."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        cfg, width = self.config, x.shape[-1]
        centered = cfg.norm == "layer_norm"
        y = operations(cfg).normalize(
            x.astype(jnp.float32), center=centered, eps=cfg.norm_eps
        )
        ones = nn.with_logical_partitioning(
            nn.initializers.ones_init(), ("replicated",)
        )
        y = y * unsqueezed_to(self.param("scale", ones, (width,)), x.ndim)
        if centered:
            zeros = nn.initializers.zeros_init()
            zeros = nn.with_logical_partitioning(zeros, ("replicated",))
            y = y + unsqueezed_to(self.param("bias", zeros, (width,)), x.ndim)
        return y.astype(cfg.compute_dtype)


class Attention(nn.Module):
    """Causal self-attention that also reads context segments.

    Attributes:
      config: The model's config.
      layout: How the output is sharded over devices, see `constrain_residual`.
      output_range: Columns whose outputs are wanted; None: all. Keys and values are
        always computed for all columns.
    """

    config: ModelConfig
    layout: Layout = "rows"
    output_range: OutputRange | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B K T D"],
        info: TokenInfo,
        context: tuple[KVSegment, ...],
        banded: Bool[Array, ""],
    ) -> tuple[Float[Array, "B K _ D"], KeysValues]:
        """Returns the outputs, and the tokens' own keys and values [B, K, G, T, C].

        Args:
          x: Normalised inputs.
          info: Positions, texts and masks of the inputs.
          context: This layer's earlier segments, with keys [B, (K,) G, S, C].
          banded: Whether this layer is locally banded.
        """
        cfg, ops = self.config, operations(self.config)
        query_info = info.columns(self.output_range)
        query, keys, values = self.project(x)
        if info.rotation is not None and query_info.rotation is not None:
            query = rotate(query, query_info.rotation)
            keys = rotate(keys, info.rotation)
        query, keys, values = (a.swapaxes(2, 3) for a in (query, keys, values))
        if info.cache_column is not None:
            *before, cache = context
            cache = cache.write(keys, values, info.cache_column)
            segments, kept = (*before, cache), (cache.keys, cache.values)
        else:
            if info.prompt_index is not None:
                context = tuple(s.for_rows(info.prompt_index) for s in context)
            own = KVSegment(
                keys,
                values,
                info.positions,
                info.valid,
                segment_ids=info.segment_ids,
            )
            segments, kept = (*context, own), (keys, values)
        y = ops.attention(
            query,
            segments,
            query_info,
            first_column=0 if self.output_range is None else self.output_range[0],
            band=cfg.attention_band,
            banded=banded,
            fused=cfg.fused_attention,
        )
        return self.merge(y), kept

    def project(
        self, x: Float[Array, "B K T D"]
    ) -> tuple[
        Float[Array, "B K _ H C"], Float[Array, "B K T G C"], Float[Array, "B K T G C"]
    ]:
        """Queries of the output range, and keys and values of all tokens."""
        cfg, ops = self.config, operations(self.config)

        def weights(name: str, count: int, axis: str) -> Weights:
            return LinearParams(
                (cfg.width,),
                (count, cfg.head_dim),
                ("embed", axis, "head_dim"),
                cfg.width**-0.5,
                use_bias=cfg.qkv_bias,
                name=name,
            )()

        def projected(x: Array, *weights: Weights) -> tuple[Array, ...]:
            return ops.project_heads(x, weights, dtype=product_dtype(cfg))

        w_query = weights("query", cfg.num_heads, "heads")
        w_keys = weights("key", cfg.num_kv_heads, "kv_heads")
        w_values = weights("value", cfg.num_kv_heads, "kv_heads")
        if self.output_range is None:
            query, keys, values = projected(x, w_query, w_keys, w_values)
        else:
            (query,) = projected(columns(x, self.output_range), w_query)
            keys, values = projected(x, w_keys, w_values)
        return (
            constrain(query, "batch", None, None, "heads", None),
            constrain(keys, "batch", None, None, "kv_heads", None),
            constrain(values, "batch", None, None, "kv_heads", None),
        )

    def merge(self, y: Float[Array, "B K H T C"]) -> Float[Array, "B K T D"]:
        """The heads' outputs, projected back to the residual stream."""
        cfg = self.config
        weights = LinearParams(
            (cfg.num_heads, cfg.head_dim),
            (cfg.width,),
            ("heads", "head_dim", "embed"),
            # Smaller by the square root of the depth, as the residual stream adds up.
            (cfg.width * cfg.num_layers) ** -0.5,
            use_bias=cfg.out_bias,
            name="out",
        )()
        y = constrain(y.swapaxes(2, 3), "batch", None, None, "heads", None)
        out = operations(cfg).linear(
            "BKTHC,HCD->BKTD", y, weights, dtype=product_dtype(cfg)
        )
        return constrain_residual(out, self.layout)


class MLP(nn.Module):
    """GELU between two linear maps, or SwiGLU: silu(gate) times up (Shazeer 2020)."""

    config: ModelConfig
    layout: Layout = "rows"

    @nn.compact
    def __call__(self, x: Float[Array, "B K T D"]) -> Float[Array, "B K T D"]:
        cfg = self.config

        def linear(x: Array, name: str, axes: tuple[str, str], std: float) -> Array:
            sizes = {"embed": cfg.width, "mlp": cfg.mlp_width}
            shape = (sizes[axes[0]],), (sizes[axes[1]],)
            params = LinearParams(*shape, axes, std, use_bias=cfg.mlp_bias, name=name)
            equation = "BKTD,DF->BKTF" if axes[0] == "embed" else "BKTF,FD->BKTD"
            dtype = product_dtype(cfg)
            return operations(cfg).linear(equation, x, params(), dtype=dtype)

        up = linear(x, "up", ("embed", "mlp"), cfg.width**-0.5)
        if cfg.activation == "swiglu":
            up = jax.nn.silu(linear(x, "gate", ("embed", "mlp"), cfg.width**-0.5)) * up
        else:
            up = jax.nn.gelu(up, approximate=cfg.activation == "gelu_tanh")
        up = constrain(up, "batch", None, None, "mlp")
        out = linear(
            up, "down", ("mlp", "embed"), (cfg.mlp_width * cfg.num_layers) ** -0.5
        )
        return constrain_residual(out, self.layout)


class Dropout(nn.Module):
    """Zeroes a share of the values and scales up the others."""

    config: ModelConfig
    deterministic: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        rate = self.config.residual_dropout
        if self.deterministic or not rate:
            return x
        return operations(self.config).dropout(x, self.make_rng("dropout"), rate=rate)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), or both from the same x.

    Attributes:
      config: The model's config.
      deterministic: Whether dropout is off.
      keep_kv: Whether keys and values are returned.
      layout: See Attention.
      output_range: See Attention.
    """

    config: ModelConfig
    deterministic: bool
    keep_kv: bool
    layout: Layout = "rows"
    output_range: OutputRange | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B K T D"],
        layer: tuple[tuple[KVSegment, ...], Bool[Array, ""]],
        info: TokenInfo,
    ) -> tuple[Float[Array, "B K _ D"], KeysValues | None]:
        """One layer, with dropout before each addition to the residual stream.

        Args:
          x: The residual stream.
          layer: This layer's context segments, and whether it is banded.
          info: Positions, texts and masks of the tokens, the same for all layers.

        Returns:
          The residual stream of the output range, and (keys, values) [B, K, G, T, C] of
          all tokens if they are kept, or of the whole cache if they were written to it.
        """
        cfg = self.config
        context, banded = layer
        dropout = Dropout(cfg, self.deterministic)
        attention = Attention(cfg, self.layout, self.output_range, name="attention")
        h, kv = attention(Norm(cfg, name="ln_1")(x), info, context, banded)
        x = columns(x, self.output_range)
        after = x + dropout(h)
        mlp_input = x if cfg.parallel_residual else after
        h = MLP(cfg, self.layout, name="mlp")(Norm(cfg, name="ln_2")(mlp_input))
        return after + dropout(h), kv if self.keep_kv else None
