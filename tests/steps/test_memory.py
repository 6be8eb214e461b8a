"""Memory of the compiled steps, by the compiler's own account."""

import jax
import jax.numpy as jnp
import pytest

from instructgpt.batches import TokenBatch
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import Transformer
from instructgpt.state import params_layout
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import gradients
from tests import tiny

B, T, V, D = 2, 2048, 50_257, 128


def temporaries(vocab: int, **changes) -> int:
    """Bytes that a gradient of the SFT loss needs besides its inputs and outputs."""
    model = Transformer(
        ModelConfig(
            vocab_size=vocab,
            context_length=T,
            num_layers=2,
            width=D,
            num_heads=2,
            remat="full",
            **changes,
        )
    )
    loss = make_sft_loss(model)
    params = params_layout(model, tiny.mesh_of())
    ids = jax.ShapeDtypeStruct((B, T), jnp.int32)
    batch = TokenBatch(ids, ids, jax.ShapeDtypeStruct((B, T), jnp.bool_))
    run = jax.jit(lambda p, b: gradients(loss, p, b, jax.random.key(0))[0])
    return run.lower(params, batch).compile().memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def chunked() -> int:
    return temporaries(V)


def test_logits_of_a_whole_batch_never_exist(chunked):
    whole = 4 * B * T * V
    assert chunked < whole
    assert temporaries(V, logit_chunk=B * T) > whole, "what the bound would find"


def test_twice_the_vocabulary_takes_less_than_twice_the_memory(chunked):
    assert temporaries(2 * V) < 2 * chunked
