"""A model of reference kernels: the invariants, and the fast model beside it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from instructgpt.data.packing import ComparisonPacker
from instructgpt.models.comparisons import comparison_scores
from instructgpt.models.kernels import reference
from instructgpt.models.kernels.dropout import dropout
from instructgpt.models.structures import KVSegment
from instructgpt.models.transformer import ScalarModel, Transformer, split_layers
from instructgpt.sampling import SamplingConfig, sample
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.sft import make_sft_loss
from tests import tiny

KERNELS = ("auto", "reference")


def language_model(kernels: str, **changes) -> Transformer:
    return Transformer(tiny.config(kernels=kernels, attention_band=4, **changes))


@pytest.fixture(scope="module")
def params():
    return tiny.params_of(language_model("auto"))


def row(rng, length=12):
    tokens = jnp.asarray(rng.integers(2, tiny.VOCAB, (2, 1, length)), jnp.int32)
    return tokens, jnp.arange(length)[None, None] >= jnp.array([3, 0])[:, None, None]


@pytest.mark.parametrize("scan_layers", [True, False])
def test_losses_and_gradients_are_those_of_the_fast_model(
    params, rng, key, scan_layers, monkeypatch
):
    monkeypatch.setattr(reference, "dropout", dropout)  # drops the same values
    batch = tiny.token_batch(rng)

    def run(kernels):
        changes = dict(residual_dropout=0.3, scan_layers=scan_layers)
        loss_fn = make_sft_loss(language_model(kernels, **changes))

        def loss(params):
            return loss_fn(params, batch, key)[0].sum

        return jax.jit(jax.value_and_grad(loss))(params)

    fast, plain = map(run, KERNELS)
    tiny.assert_close(plain, fast, atol=2e-5)


@pytest.mark.parametrize(
    "options", [{}, {"num_samples": 2, "top_p": 0.8}, {"slots": 3}]
)
def test_sampled_tokens_are_those_of_the_fast_model(params, rng, key, options):
    prompt = tuple(map(jnp.asarray, tiny.prompts(rng, 6)))

    def run(kernels):
        return sample(
            language_model(kernels),
            params,
            prompt,
            key,
            config=SamplingConfig(tiny.RESPONSE, **options),
            stop_ids=(tiny.EOS, 2, 3),
            pad_id=tiny.PAD,
        )

    fast, plain = map(run, KERNELS)
    np.testing.assert_array_equal(plain.tokens, fast.tokens)
    np.testing.assert_allclose(plain.log_probs, fast.log_probs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_later_tokens_and_padding_change_nothing(params, rng, kernels):
    model = language_model(kernels)
    tokens, valid = row(rng)
    before, _ = model.apply({"params": params}, tokens, valid)
    changed = jnp.where(valid, tokens, 7).at[..., 8:].set(5)
    after, _ = model.apply({"params": params}, changed, valid)
    np.testing.assert_array_equal(
        (after * valid[..., None])[:, :, :8], (before * valid[..., None])[:, :, :8]
    )


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_prefix_and_its_continuation_are_the_whole(params, rng, kernels):
    model = language_model(kernels)
    tokens, valid = row(rng)
    whole, _ = model.apply({"params": params}, tokens, valid)
    _, kv = model.apply(
        {"params": params}, tokens[..., :7], valid[..., :7], keep_kv=True
    )
    assert isinstance(kv, KVSegment)
    rest, _ = model.apply(
        {"params": params},
        tokens[..., 7:],
        valid[..., 7:],
        context=(kv,),
        offset=valid[..., :7].sum(axis=-1),
    )
    np.testing.assert_allclose(rest, whole[:, :, 7:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_decoding_over_a_single_cache_is_the_whole(params, rng, kernels):
    """Without a prompt of its own: the cache holds all tokens before the newest."""
    model = language_model(kernels)
    tokens = row(rng, 6)[0][:1]
    whole, _ = model.apply({"params": params}, tokens, None)
    _, kv = model.apply({"params": params}, tokens[..., :5], None, keep_kv=True)
    room = [(0, 0)] * 4 + [(0, 1), (0, 0)]
    cache = KVSegment(
        *(tuple(jnp.pad(x, room)) for x in (kv.keys, kv.values)),
        positions=jnp.arange(6)[None, None],
        valid=jnp.ones((1, 1, 6), bool),
    )
    hidden, _ = model.apply(
        {"params": params},
        tokens[..., 5],
        jnp.full((1, 1), 5),
        layers=split_layers(params),
        context=(cache,),
        cache_column=jnp.asarray(5),
        method="decode",
    )
    np.testing.assert_allclose(hidden, whole[:, :, 5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
def test_cut_over_devices_and_microbatches_it_learns_the_same(params, rng, kernels):
    model, batch = language_model(kernels), tiny.token_batch(rng)
    loss = make_sft_loss(model)

    def run(axes, parts):
        return tiny.train(
            model,
            loss,
            batch,
            params=params,
            optimizer=optax.sgd(0.1),
            mesh=tiny.mesh_of(**axes),
            microbatches=parts,
        )[0].params

    whole = run({}, 1)
    tiny.assert_close(run(dict(data=2, fsdp=2, tensor=2), 1), whole)
    tiny.assert_close(run({}, 4), whole)


@pytest.mark.parametrize("kernels", KERNELS)
def test_packed_rankings_score_and_learn_as_whole_rows(rng, key, kernels):
    model = ScalarModel(tiny.config(kernels=kernels))
    params, batch = tiny.params_of(model), tiny.comparison_batch(rng)
    packed = ComparisonPacker([batch], groups=2)(batch)
    whole, rows = (comparison_scores(model, params, b) for b in (batch, packed))
    np.testing.assert_allclose(
        rows[batch.present], whole[batch.present], rtol=1e-4, atol=1e-5
    )
    loss = make_reward_loss(model)
    grads = [
        jax.grad(lambda p, b=b: loss(p, b, key)[0].sum)(params) for b in (batch, packed)
    ]
    tiny.assert_close(grads[1], grads[0], atol=1e-4)
