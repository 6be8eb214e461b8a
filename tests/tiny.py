"""Tiny models, parameters and batches that several test files share.

Letters: B batch, P prompt, R response, K responses per prompt, T tokens, V vocabulary.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from instructgpt.batches import ComparisonBatch, Rollout, TokenBatch
from instructgpt.data.packing import rows_of_responses
from instructgpt.models.config import ModelConfig
from instructgpt.sharding import MeshConfig, make_mesh, put_batch
from instructgpt.state import init_params, make_train_state, shardings_of
from instructgpt.steps.update import make_train_step

PAD, EOS, VOCAB = 0, 1, 48
PROMPT, RESPONSE = 6, 5  # columns


def config(**changes: Any) -> ModelConfig:
    """Two layers of width 16, with changes."""
    values = dict(
        vocab_size=VOCAB, context_length=32, num_layers=2, width=16, num_heads=2
    )
    return ModelConfig(**{**values, **changes})


def params_of(model: nn.Module, *, seed: int = 0) -> Any:
    """Random parameters: no bias is 0, and the logits are far from uniform.

    Drawn by NumPy, so that nothing compiles.
    """
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    rng = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = path[-1].key
        std = {"token_embedding": 0.4, "kernel": 0.25}.get(name, 0.2)
        mean = 1.0 if name == "scale" else 0.0
        return jnp.asarray(rng.normal(mean, std, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, nn.meta.unbox(boxed))


def prompts(
    rng: np.random.Generator, batch: int, size: int = PROMPT
) -> tuple[np.ndarray, np.ndarray]:
    """Left-padded prompts of 1 to `size` tokens: int32[B, P] and bool[B, P]."""
    lengths = rng.integers(1, size + 1, batch)
    lengths[0] = size
    valid = np.arange(size) >= size - lengths[:, None]
    tokens = rng.integers(2, VOCAB, (batch, size), dtype=np.int32)
    return np.where(valid, tokens, np.int32(PAD)), valid


def responses(
    rng: np.random.Generator, shape: tuple[int, ...], size: int = RESPONSE
) -> tuple[np.ndarray, np.ndarray]:
    """Right-padded responses with EOS: int32[*shape, R] and bool[*shape, R]."""
    lengths = rng.integers(1, size + 1, shape)[..., None]
    columns = np.arange(size)
    tokens = rng.integers(2, VOCAB, (*shape, size), dtype=np.int32)
    tokens[columns == lengths - 1] = EOS
    valid = columns < lengths
    return np.where(valid, tokens, np.int32(PAD)), valid


def token_batch(rng: np.random.Generator, batch: int = 8) -> TokenBatch:
    """Prompts and responses in one row, the loss on the response."""
    prompt, prompt_valid = prompts(rng, batch)
    response, response_valid = responses(rng, (batch,))
    return TokenBatch(
        tokens=np.concatenate([prompt, response], axis=1),
        segment_ids=np.concatenate([prompt_valid, response_valid], axis=1).astype(
            np.int32
        ),
        loss_mask=np.concatenate([prompt_valid & False, response_valid], axis=1),
    )


def text_batch(rng: np.random.Generator, batch: int = 8) -> TokenBatch:
    """Rows of pretraining text, some padded at the end; all tokens are targets."""
    tokens, valid = responses(rng, (batch,), PROMPT + RESPONSE)
    tokens[:2] = rng.integers(2, VOCAB, tokens[:2].shape)
    valid[:2] = True
    return TokenBatch(tokens, valid.astype(np.int32), valid)


def comparison_batch(rng: np.random.Generator, batch: int = 8) -> ComparisonBatch:
    """K = 3 ranked responses a row: ties, empty slots, all tied, the same twice."""
    prompt, prompt_valid = prompts(rng, batch)
    response, response_valid = responses(rng, (batch, 3))
    ranks = rng.integers(1, 4, (batch, 3), dtype=np.int32)
    ranks[0], ranks[1], ranks[2] = (2, 2, 2), (3, 1, 2), (1, 2, 1)
    present = np.ones((batch, 3), bool)
    present[2, 2] = present[3, 0] = False
    # Row 4 has the same response twice, which a labeler ranked apart.
    response[4, 1], response_valid[4, 1] = response[4, 0], response_valid[4, 0]
    ranks[4] = 2, 1, 3
    wording = np.tile(np.arange(3, dtype=np.int32), (batch, 1))
    wording[4, 1] = 0
    return ComparisonBatch(
        prompt,
        prompt_valid,
        response,
        response_valid & present[..., None],
        ranks,
        present,
        wording,
        packed_rows(response_valid & present[..., None]),
    )


def packed_rows(valid: np.ndarray) -> np.ndarray:
    """The packed row of each response [B, K], from the real tokens [B, K, R]."""
    return np.stack([rows_of_responses(row) for row in valid])


def rollout(rng: np.random.Generator, batch: int = 8) -> Rollout:
    """Made-up episodes; scores and KL are fractions, padding holds zeros."""
    response, valid = responses(rng, (batch,))

    def per_token(mean: float, std: float) -> np.ndarray:
        values = rng.normal(mean, std, valid.shape).astype(np.float32)
        return np.where(valid, values, np.float32(0))

    log_probs = per_token(-4.0, 0.5)
    return Rollout(
        *prompts(rng, batch),
        response=response,
        response_valid=valid,
        log_probs=log_probs,
        ref_log_probs=log_probs + per_token(0.0, 0.3),
        values=per_token(0.0, 0.5),
        score=rng.normal(0.0, 0.7, batch).astype(np.float32),
    )


def scrambled(rng: np.random.Generator, x: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The same array with garbage where it is not valid."""
    if x.dtype == np.int32:
        garbage = rng.integers(0, VOCAB, x.shape, dtype=np.int32)
    else:
        garbage = rng.normal(0.0, 5.0, x.shape).astype(x.dtype)
    return np.where(valid, x, garbage)


def blank_rows(batch: Any, count: int) -> Any:
    """The batch with `count` more rows of padding: zeros and False."""
    return jax.tree.map(
        lambda x: np.concatenate([x, np.zeros((count, *x.shape[1:]), x.dtype)]), batch
    )


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over the first data x fsdp x tensor devices."""
    devices = jax.devices()[: data * fsdp * tensor]
    return make_mesh(MeshConfig(data, fsdp, tensor), devices=devices)


def train(
    model: nn.Module,
    loss_fn: Any,
    batch: Any,
    *,
    params: Any,
    optimizer: Any,
    mesh: Mesh | None = None,
    microbatches: int = 1,
    prepare: Any = None,
    num_steps: int = 1,
) -> tuple[Any, Any]:
    """(state, metrics of the last step) after some updates on the same batch."""
    mesh = mesh or mesh_of()
    key = jax.random.key(3)
    with jax.set_mesh(mesh):
        # A copy: a state takes over what it is given, and tests go on with theirs.
        own = jax.tree.map(jnp.copy, params)
        state = make_train_state(model, optimizer, key=key, mesh=mesh, params=own)
        step = make_train_step(
            loss_fn,
            optimizer,
            microbatches=microbatches,
            prepare=prepare,
            shardings=shardings_of(state),
        )
        on_device = put_batch(batch, mesh)
        for _ in range(num_steps):
            state, metrics = step(state, on_device, key)
    return jax.device_get((state, metrics))


def assert_close(actual: Any, expected: Any, *, atol: float = 1e-5) -> None:
    """Every leaf of two trees agrees to `atol` and a relative 1e-5."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree_util.tree_leaves_with_path(expected),
        strict=True,
    ):
        np.testing.assert_allclose(
            a, b, rtol=1e-5, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def assert_equal(actual: Any, expected: Any) -> None:
    """Every leaf of two trees has the same dtype and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for (path, a), (_, b) in zip(
        jax.tree_util.tree_leaves_with_path(actual),
        jax.tree_util.tree_leaves_with_path(expected),
        strict=True,
    ):
        name = jax.tree_util.keystr(path)
        assert np.asarray(a).dtype == np.asarray(b).dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


def distance(a: Any, b: Any) -> float:
    """Largest difference between two trees, to show that they differ."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)
