"""Our models and transformers' are the same: logits, greedy tokens, exported folders.

These need torch and transformers (`pip install "instructgpt[parity]"`), and are skipped
without.

Letters: B batch, T tokens.
"""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed"
)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from instructgpt.checkpoints import Checkpoints, open_checkpoint  # noqa: E402
from instructgpt.convert.exporting import export_checkpoint  # noqa: E402
from instructgpt.convert.importing import import_checkpoint  # noqa: E402
from instructgpt.models.comparisons import response_scores  # noqa: E402
from instructgpt.models.config import ModelConfig  # noqa: E402
from instructgpt.models.transformer import ScalarModel, Transformer  # noqa: E402
from instructgpt.sampling import SamplingConfig, sample  # noqa: E402
from instructgpt.stages.loading import model_meta  # noqa: E402
from instructgpt.state import params_layout, scalar_params_from  # noqa: E402
from tests import tiny  # noqa: E402
from tests.hf_models import V, layout_of, logits_of  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of other people's libraries
]
B, T = 3, 64
CLOSE = 2e-4  # largest difference of logits, float32
_SHARED = dict(
    vocab_size=V,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=80,
    max_position_embeddings=160,
    bos_token_id=1,
    eos_token_id=2,
)
_LLAMA_3 = dict(
    rope_type="llama3",
    rope_theta=5e3,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)


def _gpt2():
    return transformers.GPT2Config(
        vocab_size=V, n_positions=160, n_embd=32, n_layer=3, n_head=4
    )


PUBLIC = {
    "gpt2": _gpt2,
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**_SHARED, rotary_pct=0.25),
    "gpt_neox serial": lambda: transformers.GPTNeoXConfig(
        **_SHARED, rotary_pct=1.0, use_parallel_residual=False
    ),
    "llama": lambda: transformers.LlamaConfig(**_SHARED, num_key_value_heads=2),
    "llama tied": lambda: transformers.LlamaConfig(
        **_SHARED, num_key_value_heads=1, head_dim=16, tie_word_embeddings=True
    ),
    "llama 3.1": lambda: transformers.LlamaConfig(**_SHARED, rope_parameters=_LLAMA_3),
    "qwen2": lambda: transformers.Qwen2Config(**_SHARED, num_key_value_heads=2),
}


def spread(model):
    """Random weights large enough that the logits differ by several units."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        mean = 1.0 if "norm" in name or ".ln_" in name else 0.0
        mean = 0.0 if name.endswith("bias") else mean
        parameter.data.normal_(mean, 0.25, generator=generator)
    return model.eval().float()


def tokens_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(3, V, shape, dtype=np.int32)


def public_logits(model, tokens: np.ndarray) -> np.ndarray:
    """In float64, so that what differs is our rounding and not also theirs."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        return exact(torch.tensor(tokens, dtype=torch.long)).logits.numpy()


@pytest.fixture(scope="module", params=PUBLIC)
def public(request, tmp_path_factory):
    """(transformers' model, its folder, our checkpoint's folder)."""
    folder = tmp_path_factory.mktemp("public")
    torch.manual_seed(0)
    config = PUBLIC[request.param]()
    model = spread(transformers.AutoModelForCausalLM.from_config(config))
    model.save_pretrained(folder / "theirs", max_shard_size="60KB")
    import_checkpoint(str(folder / "theirs"), folder / "ours")
    return model, folder / "theirs", folder / "ours"


def load(checkpoint):
    """(config, params) on one device."""
    checkpoints, step = open_checkpoint(checkpoint)
    config = ModelConfig(**checkpoints.meta(step)["model"])
    layout = layout_of(config, data=1, fsdp=8)
    params = checkpoints.restore(step, {"params": layout})[0]["params"]
    checkpoints.close()
    return config, jax.device_get(params)


def test_logits_are_the_same(public):
    model, _, checkpoint = public
    config, params = load(checkpoint)
    tokens = tokens_of(B, T)
    want = public_logits(model, tokens)
    got = logits_of(config, params, tokens)
    assert np.ptp(want) > 4
    np.testing.assert_allclose(got[..., :V], want, atol=CLOSE, rtol=0)
    assert (got[..., V:] < -1e29).all()


def test_greedy_decoding_gives_the_same_64_tokens(public):
    model, _, checkpoint = public
    config, params = load(checkpoint)
    prompt = tokens_of(B, 9)
    want = model.generate(
        torch.tensor(prompt, dtype=torch.long),
        max_new_tokens=64,
        min_new_tokens=64,
        do_sample=False,
        pad_token_id=0,
    ).numpy()[:, 9:]
    options = SamplingConfig(64, temperature=0.0)
    eos = model.config.eos_token_id
    banned = (eos,) if eos is not None and eos < V else ()

    @jax.jit
    def run(params, prompt):
        whole = prompt, jnp.ones_like(prompt, bool)
        return sample(
            Transformer(config),
            params,
            whole,
            jax.random.key(0),
            config=options,
            stop_ids=(V + 1,),
            pad_id=V,
            banned_ids=banned,
        )

    np.testing.assert_array_equal(run(params, prompt).tokens[:, 0], want)


def test_export_loads_in_transformers_and_comes_back_bit_for_bit(public, tmp_path):
    model, _, checkpoint = public
    export_checkpoint(checkpoint, tmp_path / "out", max_shard_gb=60e-6)
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    tokens = tokens_of(B, T)
    np.testing.assert_array_equal(
        public_logits(again.eval().float(), tokens), public_logits(model, tokens)
    )
    import_checkpoint(str(tmp_path / "out"), tmp_path / "again")
    first, second = load(checkpoint), load(tmp_path / "again")
    assert first[0] == second[0]
    tiny.assert_equal(first[1], second[1])


def test_a_trained_head_of_a_tied_model_gives_the_logits(tmp_path):
    shared = dict(_SHARED, num_key_value_heads=2)
    untied = spread(
        transformers.AutoModelForCausalLM.from_config(
            transformers.LlamaConfig(**shared, tie_word_embeddings=False)
        )
    )
    untied.save_pretrained(tmp_path / "theirs")
    path = tmp_path / "theirs" / "config.json"
    path.write_text(path.read_text().replace('embeddings": false', 'embeddings": true'))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert model.config.tie_word_embeddings
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    config, params = load(tmp_path / "ours")
    tokens = tokens_of(B, T)
    want = public_logits(model.eval().float(), tokens)
    np.testing.assert_array_equal(want, public_logits(untied, tokens))
    got = logits_of(config, params, tokens)
    np.testing.assert_allclose(got[..., :V], want, atol=CLOSE, rtol=0)


def test_a_public_classifier_gives_the_same_scores(tmp_path):
    shared = dict(_SHARED, num_key_value_heads=2, num_labels=1, pad_token_id=0)
    for name in ("LlamaForSequenceClassification", "Qwen2ForSequenceClassification"):
        public = getattr(transformers, name)
        classifier = spread(public(public.config_class(**shared)))
        classifier.save_pretrained(tmp_path / name)
        import_checkpoint(str(tmp_path / name), tmp_path / f"our {name}")
        checkpoints, step = open_checkpoint(tmp_path / f"our {name}")
        meta = checkpoints.meta(step)
        assert meta["kind"] == "scalar"
        model = ScalarModel(ModelConfig(**meta["model"]))
        layout = params_layout(model, tiny.mesh_of())
        params = checkpoints.restore(step, {"params": layout})[0]["params"]
        checkpoints.close()
        tokens = tokens_of(B, T)
        prompt, response = (tokens[:, :40], tokens[:, 40:])
        whole = (prompt, np.ones_like(prompt, bool))
        answers = (response[:, None], np.ones_like(response, bool)[:, None])
        scores = response_scores(model, params, whole, answers)
        want = public_logits(classifier, tokens)
        np.testing.assert_allclose(scores, want, atol=CLOSE, rtol=0)


def test_a_reward_model_becomes_a_classifier_with_one_label(public, tmp_path):
    _, _, checkpoint = public
    config, params = load(checkpoint)
    model = ScalarModel(config)
    mesh = tiny.mesh_of()
    params = scalar_params_from(params, model, jax.random.key(1), mesh)
    params["bias"] = jnp.asarray(0.75)
    layout = params_layout(model, mesh)
    params = jax.device_put(params, jax.tree.map(lambda x: x.sharding, layout))
    checkpoints = Checkpoints(tmp_path / "reward" / "checkpoints")
    checkpoints.save(5, {"params": params}, model_meta(model, kind="scalar"))
    checkpoints.close()
    export_checkpoint(tmp_path / "reward", tmp_path / "out")
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out"
    ).eval()
    assert classifier.config.num_labels == 1
    classifier.config.pad_token_id = V
    prompt, responses = tokens_of(1, 6), tokens_of(1, 4, 8)
    valid = np.arange(8) < np.array([[8], [5], [1], [3]])
    scores = jax.jit(lambda p, *args: response_scores(model, p, *args))(
        params, (prompt, np.ones((1, 6), bool)), (responses, valid[None])
    )
    rows = np.concatenate([np.repeat(prompt, 4, 0), responses[0]], axis=1)
    rows[:, 6:][~valid] = V
    want = public_logits(classifier, rows)[:, 0] + classifier.config.score_bias
    np.testing.assert_allclose(scores[0], want, atol=CLOSE, rtol=0)
