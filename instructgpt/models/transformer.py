"""The transformer behind all models: tokens -> hidden states -> log-probs or scores.

GPT-3's decoder (Brown et al. 2020, §2.1): embeddings of tokens and positions, blocks of
norm, attention and MLP, a last norm, and a head. With `attention_band`, as in GPT-3,
every second layer sees only a band of the last tokens. Llama, Qwen2 and GPT-NeoX differ
by the switches of ModelConfig.

Letters are those of layers.py, and V vocabulary, L layers, M groups of rows with N rows
and b contexts each; in the head N is its number of tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.arrays import Array, Bool, Float, Int, Params
from instructgpt.models.config import ModelConfig
from instructgpt.models.kernels.interface import HeadOptions, operations
from instructgpt.models.kernels.rounding import product_dtype
from instructgpt.models.layers import Block, Norm
from instructgpt.models.positions import (
    position_initializer,
    positions_of,
    rotary_angles,
)
from instructgpt.models.remat import remat
from instructgpt.models.structures import (
    KeysValues,
    KVSegment,
    OutputRange,
    Rotation,
    TokenInfo,
    TokenLogProbs,
    columns,
    unsqueezed_to,
)
from instructgpt.sharding import Layout, constrain, constrain_residual


class Transformer(nn.Module):
    """A decoder-only language model, or only its trunk if it has no head."""

    config: ModelConfig
    has_head: bool = True  # with a tied head it costs no parameters

    def setup(self):
        cfg = self.config
        table, normal = (cfg.padded_vocab_size, cfg.width), nn.initializers.normal
        boxed = nn.with_logical_partitioning(
            normal(cfg.embedding_std), ("vocab", "embed")
        )
        self.token_embedding = self.param("token_embedding", boxed, table)
        if cfg.positions == "learned":
            self.position_embedding = self.param(
                "position_embedding",
                nn.with_logical_partitioning(
                    position_initializer(cfg), ("position", "embed")
                ),
                (cfg.context_length, cfg.width),
            )
        self.ln_f = Norm(cfg)
        if self.has_head:
            self.unembedding = (
                self.token_embedding
                if cfg.tied_head
                else self.param("unembedding", boxed, table)
            )

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B K T"],
        valid: Bool[Array, "B K T"] | None,
        *,
        segment_ids: Int[Array, "B K T"] | None = None,
        context: tuple[KVSegment, ...] = (),
        prompt_index: Int[Array, "M N"] | None = None,
        offset: Int[Array, "B K"] | None = None,
        keep_kv: bool = False,
        output_range: OutputRange | None = None,
        deterministic: bool = True,
    ) -> tuple[Float[Array, "B K _ D"], KVSegment | None]:
        """Runs the trunk.

        Args:
          tokens: Token ids.
          valid: False on padding; None: every token is real.
          segment_ids: The number of each token's text where a row packs several, each
            of which sees only itself; None for one text a row.
          context: Segments [L, B, (K,) G, S, C] that come before these tokens, oldest
            first.
          prompt_index: Given where rows share contexts. There are B = M N rows, the
            contexts have M b, and row n of group g continues row prompt_index[g, n] of
            its group. None where each row has a context of its own.
          offset: The position of the first token of each row, or of each of its texts
            where a row packs several; 0 if None.
          keep_kv: Whether to return keys and values.
          output_range: Columns [first, stop) whose hidden states are wanted; None: all.
          deterministic: Whether dropout is off; else pass rngs={"dropout": key}.

        Returns:
          Hidden states of the output range after the last norm, in the compute dtype,
          and keys and values of all tokens as a segment [L, B, K, G, T, C], or None.
        """
        cfg = self.config
        positions = positions_of(tokens, valid, segment_ids)
        if offset is not None:
            positions = positions + offset[..., None]
        layout: Layout = "tokens" if cfg.sequence_parallel else "rows"
        x = self.embed(tokens, positions, layout)
        # Each device computes whole masks from the positions, however x is sharded.
        positions = constrain(positions, "batch", None, None)
        if valid is not None:
            valid = constrain(valid, "batch", None, None)
        token_info = TokenInfo(
            positions, valid, segment_ids, self.rotary_angles(positions), prompt_index
        )
        options = deterministic, keep_kv, layout
        if cfg.scan_layers or self.is_initializing():
            x, kv = self._scan_layers(x, context, token_info, options)
            x = columns(self.ln_f(x), output_range)
        else:
            x, kv = self._unroll_layers(x, context, token_info, options, output_range)
            x = self.ln_f(x)
        if kv is None:
            return x, None
        keys, values = kv
        return x, KVSegment(keys, values, positions, valid)

    def _scan_layers(
        self,
        x: Float[Array, "B K T D"],
        context: tuple[KVSegment, ...],
        token_info: TokenInfo,
        options: tuple[bool, bool, Layout],
    ) -> tuple[Float[Array, "B K T D"], KeysValues | None]:
        """Runs all layers as one scan over their stacked parameters.

        Args:
          x: The residual stream.
          context: See `__call__`.
          token_info: Positions, texts and masks of the tokens.
          options: The fields deterministic, keep_kv and layout of Block.

        Returns:
          The residual stream, and keys and values [L, B, K, G, T, C] if they are kept.
        """
        cfg = self.config
        # Each layer has its own keys and values and shares the rest of a segment.
        same: Any = nn.broadcast
        per_layer = KVSegment(0, 0, same, same, spans=same, segment_ids=same)
        layers = nn.scan(
            remat(cfg, nn.remat, Block),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(((per_layer,) * len(context), 0), nn.broadcast),
            length=cfg.num_layers,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(cfg, *options, name="layers")
        banded = jnp.arange(cfg.num_layers) % 2 == 1
        return layers(x, (context, banded), token_info)

    def _unroll_layers(
        self,
        x: Float[Array, "B K T D"],
        context: tuple[KVSegment, ...],
        token_info: TokenInfo,
        options: tuple[bool, bool, Layout],
        output_range: OutputRange | None,
    ) -> tuple[Float[Array, "B K _ D"], KeysValues | None]:
        """Runs the layers one by one, the last one for the output range only."""
        cfg, last = self.config, self.config.num_layers - 1
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        kept = []
        for i, params in enumerate(split_layers(self.variables["params"])):
            block = Block(cfg, *options, output_range if i == last else None)
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}

            def run(
                params: Params, x: Array, segments: Any, block=block, rngs=rngs, i=i
            ):
                layer = segments, jnp.asarray(i % 2 == 1)
                return block.apply({"params": params}, x, layer, token_info, rngs=rngs)

            segments = tuple(layer_of(segment, i) for segment in context)
            x, kv = remat(cfg, jax.checkpoint, run)(params, x, segments)
            kept.append(kv)
        return x, jax.tree.map(lambda *layers: jnp.stack(layers), *kept)

    def decode(
        self,
        tokens: Int[Array, "B K"],
        positions: Int[Array, "B K"],
        *,
        layers: tuple[Params, ...],
        context: tuple[KVSegment, ...],
        cache_column: Int[Array, ""],
    ) -> tuple[Float[Array, "B K D"], KVSegment]:
        """Runs one new token of each row, over caches with one array a layer.

        Args:
          tokens: The newest token of each row.
          positions: The position of each of these tokens.
          layers: The parameters of each layer, from `split_layers`.
          context: Segments whose keys and values are tuples of L arrays. The last one
            is the cache, whose positions and masks already include these tokens.
          cache_column: Column of the cache where their keys and values are written.

        Returns:
          Hidden states after the last norm, and the cache with the new tokens.
        """
        cfg = self.config
        layout: Layout = "width"
        positions = positions[..., None]
        x = self.embed(tokens[..., None], positions, layout)
        token_info = TokenInfo(
            positions,
            None,
            rotation=self.rotary_angles(positions),
            cache_column=cache_column,
        )
        block = Block(cfg, deterministic=True, keep_kv=True, layout=layout, parent=None)
        kept = []
        for i, params in enumerate(layers):
            segments = tuple(layer_of(segment, i) for segment in context)
            layer = segments, jnp.asarray(i % 2 == 1)
            x, kv = block.apply({"params": params}, x, layer, token_info)
            kept.append(kv)
        keys, values = zip(*kept, strict=True)
        hidden = self.ln_f(x)[:, :, 0]
        return hidden, context[-1]._replace(keys=keys, values=values)

    def embed(
        self,
        tokens: Int[Array, "B K T"],
        positions: Int[Array, "B K T"],
        layout: Layout,
    ) -> Float[Array, "B K T D"]:
        """The input of the first layer."""
        dtype = self.config.compute_dtype
        # Rows are cast after the lookup, so that their gradients, which sum over all
        # occurrences of a token, are float32 like the tables.
        x = self.token_embedding[tokens].astype(dtype)
        if self.config.positions == "learned":
            x = x + self.position_embedding[positions].astype(dtype)
        return constrain_residual(x, layout)

    def rotary_angles(self, positions: Int[Array, "B K T"]) -> Rotation | None:
        """Rotation of queries and keys; None with learned positions."""
        learned = self.config.positions == "learned"
        return None if learned else rotary_angles(positions, self.config)

    def logits(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows V"]:
        """Float32 logits over the padded vocabulary.

        Ids from vocab_size on cannot be predicted: their logits are -1e30.
        """
        ops = operations(self.config)
        logits = ops.logits(self.head(), hidden, self.unembedding)
        return constrain(logits, "batch", *[None] * (logits.ndim - 2), "vocab")

    def log_probs(
        self,
        hidden: Float[Array, "N D"],
        targets: Int[Array, " N"],
        *,
        temperature: float = 1.0,
    ) -> TokenLogProbs:
        """Log-probs of given tokens.

        Args:
          hidden: States that predict the targets.
          targets: Token ids.
          temperature: The temperature at which the tokens are (or would be) sampled.
        """
        ops, head = operations(self.config), self.head(temperature)
        return ops.token_log_probs(head, hidden, self.unembedding, targets)

    def nll(
        self,
        hidden: Float[Array, "N D"],
        targets: Int[Array, " N"],
        weights: Float[Array, " N"],
    ) -> Float[Array, ""]:
        """Sum of weight * -log p(target) in nats; cheaper than to sum `log_probs`.

        Args:
          hidden: States that predict the targets.
          targets: Token ids.
          weights: The weight of each target.
        """
        ops = operations(self.config)
        return ops.weighted_nll(self.head(), hidden, self.unembedding, targets, weights)

    def head(self, temperature: float = 1.0) -> HeadOptions:
        """The settings of the language-model head, for the operations on it."""
        cfg = self.config
        return HeadOptions(
            cfg.vocab_size, product_dtype(cfg), cfg.logit_chunk, temperature
        )


class ScalarModel(nn.Module):
    """A transformer with a projection to one number in place of the unembedding.

    It is the reward model and the value net (paper §3.5, App. C). The bias of the head
    holds the shift that makes the reward of demonstrations average 0.
    """

    config: ModelConfig

    def setup(self):
        width = self.config.width
        self.trunk = Transformer(self.config, has_head=False)
        self.kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(
                nn.initializers.normal((width + 1) ** -0.5), ("replicated",)
            ),
            (width,),
        )
        self.bias = self.param("bias", nn.initializers.zeros_init(), ())

    def __call__(
        self, tokens: Int[Array, "B K T"], valid: Bool[Array, "B K T"] | None, **kwargs
    ) -> Float[Array, "B K _"]:
        """Float32 score at every token; takes the arguments of Transformer."""
        return self.scores(self.hidden(tokens, valid, **kwargs)[0])

    def hidden(
        self, tokens: Int[Array, "B K T"], valid: Bool[Array, "B K T"] | None, **kwargs
    ) -> tuple[Float[Array, "B K _ D"], KVSegment | None]:
        """Hidden states and keys and values of the trunk; see Transformer.__call__."""
        return self.trunk(tokens, valid, **kwargs)

    def scores(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows"]:
        """Float32 scores of hidden states."""
        kernel = unsqueezed_to(self.kernel, hidden.ndim)
        return (hidden.astype(jnp.float32) * kernel).sum(axis=-1) + self.bias


def split_layers(params: Params) -> tuple[Params, ...]:
    """The parameters of a transformer's layers, as one tree per layer."""

    def one_each(x: Array) -> list[Array]:
        return [y[0] for y in jax.lax.split(x, (1,) * x.shape[0])]

    leaves, tree = jax.tree.flatten(params["layers"])
    layers = zip(*map(one_each, leaves), strict=True)
    return tuple(jax.tree.unflatten(tree, layer) for layer in layers)


def layer_of(segment: KVSegment, layer: int) -> KVSegment:
    """One layer's part of a segment of all layers."""
    return segment._replace(keys=segment.keys[layer], values=segment.values[layer])


def as_context(segment: KVSegment) -> KVSegment:
    """A prefilled prompt [B, 1, P] as a context that K continuations share."""
    return segment._replace(
        keys=segment.keys[:, :, 0],
        values=segment.values[:, :, 0],
        positions=segment.positions[:, 0],
        valid=None if segment.valid is None else segment.valid[:, 0],
    )
