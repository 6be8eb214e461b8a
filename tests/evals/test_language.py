"""The held-out loss does not depend on mesh and batch size, and is never NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.batches import TokenBatch
from instructgpt.data.rows import Rows
from instructgpt.errors import UserError
from instructgpt.evals import language
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.models.transformer import Transformer
from instructgpt.steps.sft import make_sft_loss
from tests import tiny

MODEL = Transformer(tiny.config())
KEEP = [0, 2, 3, 4, 5, 7, 8]


@pytest.fixture(scope="module")
def batch():
    return tiny.token_batch(np.random.default_rng(5), batch=9)


def held_out_loss(batch, params, mesh, batch_size):
    def encode(row):
        return TokenBatch(*(field[row] for field in batch))

    with jax.set_mesh(mesh):
        evaluate = make_loss_evaluator(
            MODEL, Rows(range(9), encode, KEEP), batch_size=batch_size, mesh=mesh
        )
        return evaluate(params)


@pytest.mark.parametrize(
    ("mesh", "batch_size"),
    [((1, 1, 1), 4), ((3, 1, 1), 4), ((3, 2, 1), 4), ((3, 1, 2), 16), ((2, 2, 2), 3)],
)
def test_blank_rows_and_meshes_change_nothing(batch, mesh, batch_size):
    params = tiny.params_of(MODEL)
    kept = TokenBatch(*(field[np.array(KEEP)] for field in batch))
    expected = make_sft_loss(MODEL)(params, kept, jax.random.key(0))[0].mean()
    found = held_out_loss(batch, params, tiny.mesh_of(*mesh), batch_size)
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_a_loss_that_is_not_finite_is_refused(batch):
    params = tiny.params_of(MODEL)
    # Each weight is finite; what is computed with them is not.
    params["ln_f"]["scale"] = jnp.full_like(params["ln_f"]["scale"], 3e38)
    with pytest.raises(UserError, match="1 of 1 held-out losses are NaN or infinite"):
        held_out_loss(batch, params, tiny.mesh_of(), 8)


def test_each_batch_is_waited_for(batch, monkeypatch):
    """Two programs in flight may wait for each other on a CPU's devices."""
    waited = []

    def block_until_ready_on_cpu(outputs):
        waited.append(all(x.is_ready() for x in jax.tree.leaves(real(outputs))))
        return outputs

    real = language.block_until_ready_on_cpu
    monkeypatch.setattr(language, "block_until_ready_on_cpu", block_until_ready_on_cpu)
    held_out_loss(batch, tiny.params_of(MODEL), tiny.mesh_of(2, 2, 2), 4)
    assert waited == [True, True]
