"""Invariants of the transformer at any size."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from instructgpt import sharding
from instructgpt.models.positions import position_initializer
from instructgpt.models.scoring import response_log_probs, target_log_probs
from instructgpt.models.transformer import ScalarModel, Transformer, as_context
from instructgpt.state import init_params, params_layout
from tests import tiny

MODEL = Transformer(tiny.config(attention_band=4))


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(MODEL)


@functools.partial(jax.jit, static_argnums=0)
def hidden_of(model, params, tokens, valid):
    """[B, T] -> [B, T, D]."""
    out, _ = model.apply({"params": params}, tokens[:, None], valid[:, None])
    return out[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grads(model, params, tokens, valid):
    def loss_fn(params):
        out = target_log_probs(model, params, tokens, valid)
        return -jnp.where(valid[:, :-1], out.log_probs, 0.0).sum()

    return jax.value_and_grad(loss_fn)(params)


def test_shapes(params, rng):
    tokens = rng.integers(0, tiny.VOCAB, (2, 3, 5)).astype(np.int32)
    valid = np.ones(tokens.shape, bool)
    hidden, segment = jax.eval_shape(
        lambda p: MODEL.apply({"params": p}, tokens, valid, keep_kv=True), params
    )
    assert hidden.shape == (2, 3, 5, 16)
    assert segment.keys.shape == segment.values.shape == (2, 2, 3, 2, 5, 8)
    assert segment.positions.shape == segment.valid.shape == (2, 3, 5)


def test_later_tokens_change_nothing_before(params, rng):
    tokens, valid = rng.integers(2, tiny.VOCAB, (1, 8)), np.ones((1, 8), bool)
    before = hidden_of(MODEL, params, tokens, valid)
    tokens[0, 5] = (tokens[0, 5] + 1) % tiny.VOCAB
    after = hidden_of(MODEL, params, tokens, valid)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(axis=-1).all()


def test_left_padding_changes_nothing(params, rng):
    tokens, valid = rng.integers(2, tiny.VOCAB, (2, 6)), np.ones((2, 6), bool)
    plain = hidden_of(MODEL, params, tokens, valid)
    garbage = rng.integers(2, tiny.VOCAB, (2, 3))
    padded = hidden_of(
        MODEL,
        params,
        np.concatenate([garbage, tokens], axis=1),
        np.concatenate([np.zeros((2, 3), bool), valid], axis=1),
    )
    np.testing.assert_allclose(plain, padded[:, 3:], rtol=1e-5, atol=1e-5)


def test_content_of_padding_changes_nothing(params, rng):
    batch = tiny.token_batch(rng)
    garbage = tiny.scrambled(rng, batch.tokens, batch.valid)
    before = np.asarray(hidden_of(MODEL, params, batch.tokens, batch.valid))
    after = np.asarray(hidden_of(MODEL, params, garbage, batch.valid))
    np.testing.assert_array_equal(before[batch.valid], after[batch.valid])


def continued(params, tokens, valid):
    """The same as `hidden_of`, in three pieces: prompt, past, last tokens."""
    run = functools.partial(MODEL.apply, {"params": params}, keep_kv=True)
    cuts = slice(0, 4), slice(4, 6), slice(6, None)
    pieces = [(tokens[:, None, cut], valid[:, None, cut]) for cut in cuts]
    first, segment = run(*pieces[0])
    prompt, length = as_context(segment), valid[:, :4].sum(axis=1)[:, None]
    second, past = run(*pieces[1], context=(prompt,), offset=length)
    third, _ = run(*pieces[2], context=(prompt, past), offset=length + 2)
    return jnp.concatenate([first, second, third], axis=2)[:, 0]


def test_prefix_and_continuation_are_the_full_forward(params, rng):
    tokens, valid = rng.integers(2, tiny.VOCAB, (2, 9)), np.ones((2, 9), bool)
    valid[1, :3] = False  # left padding inside the prefix
    weights = rng.normal(size=(2, 9, 16)) * valid[..., None]

    def value_and_grads(function):
        def total(params):
            return (function(params, tokens, valid) * weights).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    tiny.assert_close(
        value_and_grads(continued),
        value_and_grads(functools.partial(hidden_of, MODEL)),
        atol=2e-4,
    )


@pytest.mark.parametrize("remat", ["elementwise", "dots", "full"])
def test_remat_gives_the_same_gradient(params, rng, remat):
    batch = tiny.token_batch(rng)
    other = Transformer(tiny.config(attention_band=4, remat=remat))
    tiny.assert_close(
        loss_and_grads(other, params, batch.tokens, batch.valid),
        loss_and_grads(MODEL, params, batch.tokens, batch.valid),
        atol=1e-4,
    )


UNROLLED = (
    dict(attention_band=4),
    dict(fused_attention=True, remat="none"),
    dict(
        positions="rotary",
        num_kv_heads=1,
        norm="rms_norm",
        activation="swiglu",
        remat="full",
    ),
)


@pytest.mark.parametrize("changes", UNROLLED)
def test_layers_one_after_the_other_are_the_loop(rng, changes):
    loop = Transformer(tiny.config(**changes))
    unrolled = Transformer(tiny.config(**changes, scan_layers=False))
    params, batch = tiny.params_of(loop), tiny.rollout(rng)
    prompt = batch.prompt, batch.prompt_valid
    response = batch.response, batch.response_valid

    @functools.partial(jax.jit, static_argnums=0)
    def run(model, params):
        def of_response(params):
            out = response_log_probs(model, params, prompt, response)
            return jnp.where(batch.response_valid, out.log_probs, 0.0).sum()

        hidden, segment = model.apply(
            {"params": params}, prompt[0][:, None], prompt[1][:, None], keep_kv=True
        )
        return jax.value_and_grad(of_response)(params), hidden, segment

    assert jax.tree.structure(tiny.params_of(unrolled)) == jax.tree.structure(params)
    tiny.assert_close(run(unrolled, params), run(loop, params), atol=1e-4)


@pytest.mark.parametrize("rule", [("tensor",), None])
def test_keys_and_values_are_sharded_by_their_own_rule(monkeypatch, rule):
    monkeypatch.setitem(sharding.RULES, "kv_heads", rule)
    model = Transformer(tiny.config(num_heads=4, head_dim=4, num_kv_heads=2))
    params, tokens = tiny.params_of(model), jnp.zeros((2, 1, 8), jnp.int32)
    # A function of its own, because a trace does not know the rules of another.
    states = jax.jit(lambda params: model.apply({"params": params}, tokens, None)[0])
    with jax.set_mesh(tiny.mesh_of(tensor=2)):
        lines = states.lower(params).as_text().splitlines()
    pinned = [line for line in lines if "sdy.sharding_constraint" in line]
    queries = [line for line in pinned if "<2x1x8x4x4xf32>" in line]
    keys_values = [line for line in pinned if "<2x1x8x2x4xf32>" in line]
    assert queries and all('"tensor"' in line for line in queries)
    assert len(keys_values) == 2
    assert all(('"tensor"' in line) == bool(rule) for line in keys_values)


def test_layers_one_after_the_other_draw_their_own_dropout(params):
    model = Transformer(tiny.config(residual_dropout=0.5, scan_layers=False))
    tokens, valid = np.full((1, 8), 3), np.ones((1, 8), bool)

    def states(key):
        return target_log_probs(
            model, params, tokens, valid, dropout_key=jax.random.key(key)
        )[0]

    np.testing.assert_array_equal(states(0), states(0))
    assert (states(0) != states(1)).any()


def test_remat_recomputes():
    def remats(remat):
        model = Transformer(tiny.config(remat=remat))
        tokens, valid = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
        text = str(
            jax.make_jaxpr(lambda p: hidden_of(model, p, tokens, valid))(
                tiny.params_of(model)
            )
        )
        return text.count("remat") + text.count("checkpoint")

    assert remats("none") == 0
    assert all(remats(name) > 0 for name in ("elementwise", "dots", "full"))


@pytest.mark.parametrize("remat", ["elementwise", "dots", "full"])
def test_remat_makes_products_again_only_if_it_keeps_nothing(remat, rng):
    """Also those of functions with backward passes of their own."""
    model = Transformer(tiny.config(remat=remat))
    tokens = rng.integers(2, tiny.VOCAB, (2, 8), dtype=np.int32)
    valid = np.ones(tokens.shape, bool)
    run = jax.jit(functools.partial(loss_and_grads, model))
    text = run.lower(tiny.params_of(model), tokens, valid).compile().as_text()
    again = [x for x in text.splitlines() if "rematted_computation/" in x]
    assert again, "something is made again"
    products = [x for x in again if "/dot_general" in x]
    assert bool(products) == (remat == "full"), products


def test_tokens_cut_over_tensor_keep_less(rng):
    """The backward pass keeps each layer's input, and a device only its share of it."""
    tokens = rng.integers(2, tiny.VOCAB, (2, 128), dtype=np.int32)
    valid = np.ones(tokens.shape, bool)

    def compiled(sequence_parallel):
        config = tiny.config(
            context_length=128,
            num_layers=8,
            remat="full",
            sequence_parallel=sequence_parallel,
        )
        model, mesh = Transformer(config), tiny.mesh_of(tensor=2)
        with jax.set_mesh(mesh):
            run = jax.jit(functools.partial(loss_and_grads, model))
            return run.lower(params_layout(model, mesh), tokens, valid).compile()

    whole, cut = compiled(False), compiled(True)
    kept = 8 * tokens.size * tiny.config().width * 4  # bytes of all, half of it cut
    saved = (
        whole.memory_analysis().temp_size_in_bytes
        - cut.memory_analysis().temp_size_in_bytes
    )
    assert saved > kept / 4, (saved, kept)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_compute_keeps_float32_masters(params, rng, dtype):
    model = Transformer(tiny.config(attention_band=4, compute_dtype=dtype))
    batch = tiny.token_batch(rng)
    assert hidden_of(model, params, batch.tokens, batch.valid).dtype == dtype
    fresh = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(fresh))
    loss, grads = loss_and_grads(model, params, batch.tokens, batch.valid)
    full, _ = loss_and_grads(MODEL, params, batch.tokens, batch.valid)
    assert loss.dtype == jnp.float32 and loss != full
    np.testing.assert_allclose(loss, full, rtol=0.02)
    for leaf in jax.tree.leaves(grads):
        assert leaf.dtype == jnp.float32 and np.isfinite(leaf).all()


def test_layers_are_one_loop():
    """The program, and with it compile time, does not grow with depth."""

    def lines(num_layers):
        model = Transformer(tiny.config(num_layers=num_layers))
        tokens, valid = jnp.zeros((1, 4), jnp.int32), jnp.ones((1, 4), bool)
        return len(
            str(
                jax.make_jaxpr(functools.partial(loss_and_grads, model))(
                    tiny.params_of(model), tokens, valid
                )
            ).splitlines()
        )

    assert lines(2) == lines(7)


def dropped(rate, key, params, batch):
    model = Transformer(tiny.config(residual_dropout=rate))
    out, _ = model.apply(
        {"params": params},
        batch.tokens[:, None],
        batch.valid[:, None],
        deterministic=key is None,
        rngs={} if key is None else {"dropout": key},
    )
    return np.asarray(out[:, 0])


def test_dropout_follows_its_key_and_is_off_by_default(params, rng, key):
    batch = tiny.token_batch(rng)
    off = dropped(0.5, None, params, batch)
    np.testing.assert_array_equal(off, dropped(0.0, None, params, batch))
    on = dropped(0.5, key, params, batch)
    np.testing.assert_array_equal(on, dropped(0.5, key, params, batch))
    assert (on != dropped(0.5, jax.random.key(1), params, batch)).any()
    assert (on != off).any()


def test_dropout_is_on_both_branches_and_nothing_else(params, rng, key):
    batch = tiny.token_batch(rng)
    # With all of it dropped, only the embeddings reach the last LayerNorm.
    bare = jax.tree.map(jnp.zeros_like, params["layers"])
    expected = dropped(0.0, None, {**params, "layers": bare}, batch)
    actual = dropped(1.0, key, params, batch)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_initial_scales():
    """Brown et al.'s scaled init: projections into the stream shrink with depth."""
    layers, width, mlp = 4, 64, 256
    model = ScalarModel(tiny.config(num_layers=layers, width=width, num_heads=4))
    params = nn.meta.unbox(jax.jit(lambda k: init_params(model, k))(jax.random.key(0)))
    expected = {
        "query": width**-0.5,
        "key": width**-0.5,
        "value": width**-0.5,
        "out": (width * layers) ** -0.5,
        "up": width**-0.5,
        "down": (mlp * layers) ** -0.5,
        "token_embedding": 0.02,
        "position_embedding": 0.01,
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(params["trunk"]):
        *_, name = names = [p.key for p in path]
        if name == "kernel" or name.endswith("embedding"):
            std = expected[name if name in expected else names[-2]]
            np.testing.assert_allclose(leaf.std(), std, rtol=0.05, err_msg=str(names))
        else:
            np.testing.assert_array_equal(leaf, 1.0 if name == "scale" else 0.0)
    up = params["trunk"]["layers"]["mlp"]["up"]["kernel"]
    assert (up[0] != up[1]).any(), "each layer has its own numbers"
    np.testing.assert_allclose(params["kernel"].std(), (width + 1) ** -0.5, rtol=0.3)
    assert float(params["bias"]) == 0.0


def test_position_table_starts_as_sines_of_the_given_size():
    config = tiny.config(position_init="sinusoidal", position_std=0.02)
    table = position_initializer(config)(jax.random.key(0), (8, 6))
    waves = 0.02 * np.sqrt(2) * np.sin(np.arange(8))  # the shortest wavelength
    np.testing.assert_allclose(table[:, 0], waves, atol=1e-6)
    np.testing.assert_allclose(table[0], [0, 0, 0] + [0.02 * np.sqrt(2)] * 3, atol=1e-6)
