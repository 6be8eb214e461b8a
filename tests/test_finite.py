"""NaN and infinity are found wherever they are, and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.errors import UserError, about
from instructgpt.finite import check_finite, first_not_finite
from instructgpt.sharding import put_batch
from instructgpt.state import TrainState
from tests import tiny


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_bad_number_among_many_devices_is_named(bad, dtype):
    # The sum of all is beyond float16, but none of them is.
    tree = {
        "step": np.full((8, 2), 7, np.int32),
        "trunk": {"kernel": np.full((8, 300), 6e4, jnp.dtype(dtype))},
        "bias": np.zeros((8, 1), jnp.dtype(dtype)),
    }
    mesh = tiny.mesh_of(data=2, fsdp=4)
    assert first_not_finite(put_batch(tree, mesh)) is None
    tree["trunk"]["kernel"][5, 211] = bad
    assert first_not_finite(put_batch(tree, mesh)) == "trunk/kernel"
    tree["bias"][7] = bad
    assert first_not_finite(tree) == "bias"  # on the host as well


def test_parts_of_a_state_have_their_names(key):
    params = {"w": jnp.ones(3)}
    state = TrainState(jnp.int32(1), params, {"mu": {"w": jnp.array([0.0, jnp.inf])}})
    assert first_not_finite(state.parts()) == "optimizer/opt_state/mu/w"
    assert first_not_finite({"params": {}}) is None
    assert first_not_finite({"key": jax.random.key_data(key)}) is None


def test_numbers_are_counted():
    check_finite([1.0, -2.0], "losses")
    check_finite(np.float32(1.0), "losses")
    check_finite([], "losses")
    with pytest.raises(UserError, match=r"2 of 3 losses are NaN .*float16"):
        check_finite([1.0, np.nan, -np.inf], "losses")


def test_a_message_begins_with_what_it_is_about():
    where = "runs/sft/checkpoints/7"
    with pytest.raises(UserError, match=rf"^{where}: 1 of 1 scores"), about(where):
        check_finite(np.nan, "scores")
    with pytest.raises(RuntimeError, match=r"^power cut$"), about("runs/sft"):
        raise RuntimeError("power cut")
