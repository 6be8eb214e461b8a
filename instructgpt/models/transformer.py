"""The trunk shared by every model: tokens -> hidden states -> log-probs or scores.

Letters as in layers.py, and P prompt, R response, V vocabulary, N rows of tokens,
M groups.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from instructgpt.models.attention import SMALL, KVSegment
from instructgpt.models.config import ModelConfig
from instructgpt.models.head import Head, TokenLogProbs, token_log_probs, weighted_nll
from instructgpt.models.layers import Block, Place, columns
from instructgpt.models.norms import Norm
from instructgpt.models.products import PRODUCT, product_dtype
from instructgpt.models.rotary import Rotation, rotation
from instructgpt.sharding import Layout, constrain, constrain_residual

Array = jax.Array
Params = Any


def positions_of(valid: Array, segment_ids: Array | None = None) -> Array:
    """Position of each token among the real ones of its row, or of its text.

    Args:
      valid: bool[..., T].
      segment_ids: int32[..., T], the number of each token's text where a row packs
        several, one after another; None for one text a row.

    Returns:
      int32[..., T].
    """
    positions = jnp.maximum(jnp.cumsum(valid.astype(jnp.int32), axis=-1) - 1, 0)
    if segment_ids is None:
        return positions
    padding = [(0, 0)] * (segment_ids.ndim - 1) + [(1, 0)]
    previous = jnp.pad(segment_ids[..., :-1], padding)
    starts = jnp.where(segment_ids != previous, positions, 0)
    return positions - jax.lax.cummax(starts, axis=starts.ndim - 1)


def position_initializer(config: ModelConfig) -> Callable[..., Array]:
    """How the learned position table [T, D] starts: noise, or scaled sinusoids."""
    if config.position_init == "normal":
        return nn.initializers.normal(config.position_std)

    def sinusoids(key: Array, shape: tuple[int, int], dtype: Any = jnp.float32):
        del key
        length, width = shape
        rates = 10_000.0 ** -(jnp.arange(0, width, 2) / width)
        angles = jnp.arange(length)[:, None] * rates[None]
        waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
        return (config.position_std * 2**0.5 * waves[:, :width]).astype(dtype)

    return sinusoids


def _and_named(policy: Callable[..., bool]) -> Callable[..., bool]:
    """Keeps affine maps, attention's output and dropout's draw too."""

    def saves(primitive: Any, *args: Any, **params: Any) -> bool:
        fused = "dot_product_attention" in primitive.name
        named = primitive.name == "name" and params["name"] in (PRODUCT, SMALL)
        return fused or named or policy(primitive, *args, **params)

    return saves


_REMAT_POLICIES = {
    "elementwise": _and_named(jax.checkpoint_policies.dots_saveable),
    "dots": _and_named(jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "full": None,
}


def _remat(config: ModelConfig, wrap: Callable[..., Any], layer: Any) -> Any:
    """A layer whose backward pass makes some of its activations again."""
    if config.remat == "none":
        return layer
    # Only a loop by itself keeps XLA from sharing the two passes' activations.
    policy, apart = _REMAT_POLICIES[config.remat], not config.scan_layers
    return wrap(layer, policy=policy, prevent_cse=apart)


class Transformer(nn.Module):
    """A decoder-only language model, or its trunk alone if it has no head."""

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
        tokens: Array,
        valid: Array,
        *,
        segment_ids: Array | None = None,
        context: tuple[KVSegment, ...] = (),
        prompt_index: Array | None = None,
        offset: Array | None = None,
        keep_kv: bool = False,
        read: tuple[int, int] | None = None,
        leading_padding: bool = True,
        deterministic: bool = True,
    ) -> tuple[Array, KVSegment | None]:
        """Runs the trunk.

        Args:
          tokens: int32[B, K, T].
          valid: bool[B, K, T], False on padding.
          segment_ids: int32[B, K, T] where a row packs several texts, each of which
            sees only itself; None for one text a row.
          context: Segments that come before these tokens, oldest first.
          prompt_index: int32[M, N], where rows share contexts: B = M N rows, and the
            contexts have M b rows, of which row n of group g reads row
            prompt_index[g, n] of its group; None where each row has its own.
          offset: int32[B, K], the position of each row's first token; 0 if None.
          keep_kv: Whether to return keys and values.
          read: (first, stop) of the columns whose hidden states are wanted; None: all.
            What the last layer would compute for the others alone is left out if
            layers do not run in a loop.
          leading_padding: Whether a row may begin with padding; if not, fused attention
            of whole rows needs no mask but the causal one.
          deterministic: Whether dropout is off; else pass rngs={"dropout": key}.

        Returns:
          Hidden states of the columns read after the last LayerNorm, [B, K, T, D] in
          the compute dtype, and all tokens as a KVSegment [L, B, K, G, T, C] (or None).
        """
        cfg = self.config
        positions = positions_of(valid, segment_ids)
        if offset is not None:
            positions = positions + offset[..., None]
        layout: Layout = "tokens" if cfg.sequence_parallel else "rows"
        x = self.embed(tokens, positions, layout)
        # Masks are made of these by each device, wherever the tokens of x lie.
        positions, valid = (
            constrain(a, "batch", None, None) for a in (positions, valid)
        )
        place = Place(
            positions, valid, segment_ids, self.turns(positions), prompt_index
        )

        kv = tuple((s.keys, s.values) for s in context)
        masks = tuple((s.positions, s.valid) for s in context)
        options = deterministic, keep_kv, leading_padding, layout
        if cfg.scan_layers or self.is_initializing():
            layers = nn.scan(
                _remat(cfg, nn.remat, Block),
                variable_axes={"params": 0},
                split_rngs={"params": True, "dropout": True},
                in_axes=(0, nn.broadcast, nn.broadcast),
                length=cfg.num_layers,
                metadata_params={nn.PARTITION_NAME: "layers"},
            )(cfg, *options, name="layers")
            banded = jnp.arange(cfg.num_layers) % 2 == 1
            x, kv_new = layers(x, (kv, banded), place, masks)
            x = self.ln_f(x)
            x = columns(x, read)
        else:
            x, kv_new = self.unrolled(x, kv, place, masks, options, read)
            x = self.ln_f(x)
        if not keep_kv:
            return x, None
        keys, values = kv_new
        return x, KVSegment(keys, values, positions, valid)

    def unrolled(
        self,
        x: Array,
        context: tuple[tuple[Array, Array], ...],
        place: Place,
        masks: tuple[tuple[Array, Array], ...],
        options: tuple[Any, ...],
        read: tuple[int, int] | None,
    ) -> tuple[Array, tuple[Array, Array]]:
        """The layers one after the other, the last for the columns read alone.

        Arguments and results are those of the loop over layers.
        """
        cfg, last = self.config, self.config.num_layers - 1
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        new = []
        for i, params in enumerate(split_layers(self.variables["params"])):
            block = Block(cfg, *options, read=read if i == last else None)
            rngs = {} if key is None else {"dropout": jax.random.fold_in(key, i)}

            def run(params: Params, x: Array, kv: Any, block=block, rngs=rngs, i=i):
                scanned = kv, jnp.asarray(i % 2 == 1)
                return block.apply(
                    {"params": params}, x, scanned, place, masks, rngs=rngs
                )

            kv = jax.tree.map(lambda a, i=i: a[i], context)
            x, kv_new = _remat(cfg, jax.checkpoint, run)(params, x, kv)
            new.append(kv_new)
        return x, jax.tree.map(lambda *layers: jnp.stack(layers), *new)

    def embed(self, tokens: Array, positions: Array, layout: Layout) -> Array:
        """What goes into the first layer, [B, K, T, D]."""
        dtype = self.config.compute_dtype
        # Rows are cast once they are looked up, so that their gradients, sums over all
        # tokens of a kind, are float32 as the tables are.
        x = self.token_embedding[tokens].astype(dtype)
        if self.config.positions == "learned":
            x = x + self.position_embedding[positions].astype(dtype)
        return constrain_residual(x, layout)

    def turns(self, positions: Array) -> Rotation | None:
        """How far rotary positions turn."""
        learned = self.config.positions == "learned"
        return None if learned else rotation(positions, self.config)

    def finish(self, x: Array) -> Array:
        """Hidden states from what comes out of the last layer."""
        return self.ln_f(x)

    def logits(self, hidden: Array) -> Array:
        """Hidden states [..., D] -> float32 logits [..., padded V].

        Ids from vocab_size on cannot be predicted: their logits are -1e30.
        """
        logits = self._head().logits(hidden, self.unembedding)
        return constrain(logits, "batch", *[None] * (logits.ndim - 2), "vocab")

    def log_probs(
        self, hidden: Array, targets: Array, *, temperature: float = 1.0
    ) -> TokenLogProbs:
        """Log-probs of given tokens.

        Args:
          hidden: [N, D] states that predict the targets.
          targets: int32[N].
          temperature: The one the tokens are (or would be) sampled at.
        """
        head = self._head(temperature)
        return token_log_probs(head, hidden, self.unembedding, targets)

    def nll(self, hidden: Array, targets: Array, weights: Array) -> Array:
        """Sum of weight * -log p(target), float32[]; cheaper than by `log_probs`.

        Args:
          hidden: [N, D] states that predict the targets.
          targets: int32[N].
          weights: float32[N].
        """
        return weighted_nll(self._head(), hidden, self.unembedding, targets, weights)

    def _head(self, temperature: float = 1.0) -> Head:
        cfg = self.config
        return Head(cfg.vocab_size, product_dtype(cfg), cfg.logit_chunk, temperature)


class ScalarModel(nn.Module):
    """A transformer whose unembedding is a projection to one number.

    The reward model and the value net (paper §3.5, App. C). The bias of the head
    is where the reward model's "demonstrations average 0" shift lives.
    """

    config: ModelConfig

    def setup(self):
        width = self.config.width
        self.trunk = Transformer(self.config, has_head=False)
        self.kernel = self.param(
            "kernel",
            nn.with_logical_partitioning(
                nn.initializers.normal((width + 1) ** -0.5), ("norm",)
            ),
            (width,),
        )
        self.bias = self.param("bias", nn.initializers.zeros_init(), ())

    def __call__(self, tokens: Array, valid: Array, **kwargs) -> Array:
        """Scores at every token, float32[B, K, T]; arguments as Transformer."""
        return self.scores(self.hidden(tokens, valid, **kwargs)[0])

    def hidden(self, tokens: Array, valid: Array, **kwargs):
        """Transformer.__call__ of the trunk."""
        return self.trunk(tokens, valid, **kwargs)

    def scores(self, hidden: Array) -> Array:
        """Hidden states [..., D] -> float32[...]."""
        kernel = self.kernel.reshape((1,) * (hidden.ndim - 1) + (-1,))
        return (hidden.astype(jnp.float32) * kernel).sum(axis=-1) + self.bias


def split_layers(params: Params) -> tuple[Params, ...]:
    """A transformer's layers, one tree of parameters each."""

    def one_each(x: Array) -> list[Array]:
        # Whose gradient is a concatenation, not a sum of padded parts.
        return [y[0] for y in jax.lax.split(x, (1,) * x.shape[0])]

    leaves, tree = jax.tree.flatten(params["layers"])
    layers = zip(*map(one_each, leaves), strict=True)
    return tuple(jax.tree.unflatten(tree, layer) for layer in layers)


def decode(
    model: Transformer,
    params: Params,
    layers: tuple[Params, ...],
    tokens: Array,
    context: tuple[KVSegment, ...],
    positions: Array,
    column: Array,
) -> tuple[Array, KVSegment]:
    """One token of each row, as `Transformer.__call__`, but no loop over layers.

    A loop would cut each layer's part out of the cache and so copy all of it in every
    step; here each layer's keys and values are arrays of their own. They are written
    before they are read: the other way round, XLA reads a copy.

    Args:
      model: The language model.
      params: Its parameters.
      layers: Its layers', of `split_layers`.
      tokens: int32[B, K].
      context: Segments whose keys and values are tuples of L arrays.
      positions: int32[B, K].
      column: int32[], where the last segment takes the tokens' own keys and values;
        that segment already says that they are there.

    Returns:
      Hidden states [B, K, D] after the last LayerNorm, and the last segment with the
      tokens' keys and values.
    """
    variables, cfg = {"params": params}, model.config
    positions = positions[..., None]
    layout: Layout = "width"
    x = model.apply(variables, tokens[..., None], positions, layout, method="embed")
    valid = jnp.ones_like(positions, bool)
    turns = model.apply(variables, positions, method="turns")
    place = Place(positions, valid, None, turns, column=column)
    block = Block(cfg, deterministic=True, keep_kv=True, layout=layout)
    masks = tuple((s.positions, s.valid, s.spans) for s in context)
    new = []
    for i, layer in enumerate(layers):
        kv = tuple((s.keys[i], s.values[i]) for s in context)
        scanned = kv, jnp.asarray(i % 2 == 1)
        x, kv_new = block.apply({"params": layer}, x, scanned, place, masks)
        new.append(kv_new)
    keys, values = zip(*new, strict=True)
    hidden = model.apply(variables, x, method="finish")[:, :, 0]
    return hidden, context[-1]._replace(keys=keys, values=values)


def as_context(segment: KVSegment) -> KVSegment:
    """A prefilled prompt [B, 1, P] as a context that K continuations share."""
    return KVSegment(
        keys=segment.keys[:, :, 0],
        values=segment.values[:, :, 0],
        positions=segment.positions[:, 0],
        valid=segment.valid[:, 0],
    )
