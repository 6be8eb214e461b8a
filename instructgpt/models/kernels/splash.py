"""Attention of whole texts to themselves by a TPU kernel, which stores no scores.

The kernel is JAX's splash attention (Pallas). It skips blocks of keys that the causal
mask or a band rules out, forward and backward.

Letters: B batch, K responses that share a prompt (1 for plain text), T tokens, H heads,
G heads of keys and values, C channels a head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int
from instructgpt.sharding import spec

_BLOCKS = (512, 256, 128)  # tokens that the kernel reads at a time; must divide T


def fits(length: int) -> bool:
    """Whether the kernel can cut a text of `length` tokens into blocks."""
    return length % _BLOCKS[-1] == 0


def attend_splash(
    query: Float[Array, "B K H T C"],
    keys: Float[Array, "B K G T C"],
    values: Float[Array, "B K G T C"],
    ids: Int[Array, "B K T"] | None,
    banded: Bool[Array, ""] | None = None,
    *,
    band: int = 0,
    keep_as: str | None = None,
    interpret: bool = False,
) -> Float[Array, "B K H T C"]:
    """Causal attention within each text.

    Args:
      query: Queries; T must be a multiple of 128.
      keys: Keys; heads are repeated where G is smaller than H.
      values: Values, one head for each head of keys.
      ids: Number of each token's text; a token sees only its own text. None: each row
        is one text.
      banded: Whether this layer is banded; None: it is not.
      band: Number of tokens that a token of a banded layer sees, itself included.
      keep_as: Name that tells a remat policy which arrays the backward pass needs.
      interpret: Whether to emulate the kernel without a TPU, slowly.
    """
    run = functools.partial(_attend, band=band, keep_as=keep_as, interpret=interpret)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return run(query, keys, values, ids, banded)
    # A kernel runs on one device, so each device calls it on its own rows and heads.
    rows = spec("batch", None, "heads", None, None)
    groups = spec("batch", None, "kv_heads", None, None)
    segment_ids = None if ids is None else spec("batch", None, None)
    switch = None if banded is None else spec()
    return jax.shard_map(
        run,
        mesh=mesh,
        in_specs=(rows, groups, groups, segment_ids, switch),
        out_specs=rows,
        check_vma=False,
    )(query, keys, values, ids, banded)


def _attend(
    query: Array,
    keys: Array,
    values: Array,
    ids: Array | None,
    banded: Array | None,
    *,
    band: int,
    keep_as: str | None,
    interpret: bool,
) -> Array:
    # Imported here because the import is slow and only this backend needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    shape = query.shape
    *_, heads, length, width = shape
    block = next(size for size in _BLOCKS if length % size == 0)
    repeats = heads // keys.shape[2]
    operands = [
        x.reshape(-1, *x.shape[2:])
        for x in (
            query * width**-0.5,
            jnp.repeat(keys, repeats, axis=2),
            jnp.repeat(values, repeats, axis=2),
        )
    ]
    if ids is not None:
        rows = ids.reshape(-1, length)
        operands.append(splash.SegmentIds(rows, rows))

    def run(mask: splash.Mask, *operands: Any) -> Array:
        kernel = splash.make_splash_mha_single_device(
            splash.MultiHeadMask([mask] * heads),
            block_sizes=splash.BlockSizes(
                block_q=block,
                block_kv=block,
                block_q_dkv=block,
                block_kv_dkv=block,
                block_q_dq=block,
                block_kv_dq=block,
            ),
            residual_checkpoint_name=keep_as,
            interpret=interpret,
        )
        return jax.vmap(kernel)(*operands)

    whole = functools.partial(run, splash.CausalMask((length, length)))
    if banded is None:
        return whole(*operands).reshape(shape)
    local = splash.LocalMask((length, length), (band - 1, 0), 0)
    out = jax.lax.cond(banded, functools.partial(run, local), whole, *operands)
    return out.reshape(shape)
