"""The whole GPT forward pass against loops in NumPy: the gold test of the block."""

import math

import jax
import numpy as np
import pytest

from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from tests import tiny


def layer_norm(w, x, eps):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * w["scale"] + w["bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def attention(w, x, *, band):
    """Causal, over the last `band` tokens (0: all), one head and query at a time."""
    query, keys, values = (
        np.einsum("td,dhc->thc", x, w[name]["kernel"]) + w[name]["bias"]
        for name in ("query", "key", "value")
    )
    length, heads, channels = query.shape
    mixed = np.zeros_like(query)
    for t in range(length):
        first = max(0, t - band + 1) if band else 0
        for h in range(heads):
            scores = keys[first : t + 1, h] @ query[t, h] / math.sqrt(channels)
            weights = np.exp(scores - scores.max())
            mixed[t, h] = weights / weights.sum() @ values[first : t + 1, h]
    return np.einsum("thc,hcd->td", mixed, w["out"]["kernel"]) + w["out"]["bias"]


def mlp(w, x):
    hidden = gelu(x @ w["up"]["kernel"] + w["up"]["bias"])
    return hidden @ w["down"]["kernel"] + w["down"]["bias"]


def numpy_hidden(params, config: ModelConfig, tokens: np.ndarray) -> np.ndarray:
    """Hidden states [T, D] of one text without padding, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = params["token_embedding"][tokens] + params["position_embedding"][: len(tokens)]
    for layer in range(config.num_layers):
        w = jax.tree.map(lambda a: a[layer], params["layers"])  # noqa: B023
        band = config.attention_band if layer % 2 else 0
        eps = config.norm_eps
        x = x + attention(w["attention"], layer_norm(w["ln_1"], x, eps), band=band)
        x = x + mlp(w["mlp"], layer_norm(w["ln_2"], x, eps))
    return layer_norm(params["ln_f"], x, config.norm_eps)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(num_layers=3, attention_band=3, norm_eps=0.1),
        dict(head_dim=4, num_heads=3, mlp_width=24),
    ],
    ids=["plain", "banded", "odd-sizes"],
)
def test_logits_match_numpy(rng, changes):
    config = tiny.config(**changes)
    model = Transformer(config)
    params = tiny.params_of(model)
    tokens, valid = tiny.prompts(rng, 3, 9)

    @jax.jit
    def logits(params, tokens, valid):
        hidden, _ = model.apply({"params": params}, tokens[:, None], valid[:, None])
        return model.apply({"params": params}, hidden[:, 0], method="logits")

    actual = np.asarray(logits(params, tokens, valid))
    embedding = np.asarray(params["token_embedding"], np.float64)
    for row in range(3):
        expected = numpy_hidden(params, config, tokens[row, valid[row]]) @ embedding.T
        np.testing.assert_allclose(
            actual[row, valid[row]], expected, rtol=1e-4, atol=1e-4
        )


def test_scalar_scores_match_numpy(rng):
    config = tiny.config(attention_band=3)
    model = ScalarModel(config)
    params = tiny.params_of(model)
    tokens, valid = tiny.prompts(rng, 3, 9)
    actual = jax.jit(lambda p, *a: model.apply({"params": p}, *a))(
        params, tokens[:, None], valid[:, None]
    )
    for row in range(3):
        hidden = numpy_hidden(params["trunk"], config, tokens[row, valid[row]])
        expected = hidden @ np.asarray(params["kernel"]) + float(params["bias"])
        np.testing.assert_allclose(
            np.asarray(actual)[row, 0, valid[row]], expected, rtol=1e-4, atol=1e-4
        )
