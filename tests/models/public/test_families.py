"""config.json to switches and back; what cannot be followed is refused by name."""

import dataclasses
import re

import pytest

from instructgpt.errors import UserError
from instructgpt.models.public.families import FAMILIES, read_config, write_config
from tests import tiny
from tests.public_models import CONFIGS

# As they stand on the hub, but for keys that say nothing of the architecture.
PUBLISHED = {
    "gpt2": dict(
        model_type="gpt2",
        activation_function="gelu_new",
        layer_norm_epsilon=1e-05,
        n_ctx=1024,
        n_embd=768,
        n_head=12,
        n_layer=12,
        n_positions=1024,
        vocab_size=50257,
    ),
    "pythia-1b": dict(
        model_type="gpt_neox",
        hidden_act="gelu",
        hidden_size=2048,
        intermediate_size=8192,
        layer_norm_eps=1e-05,
        max_position_embeddings=2048,
        num_attention_heads=8,
        num_hidden_layers=16,
        rotary_emb_base=10000,
        rotary_pct=0.25,
        tie_word_embeddings=False,
        use_parallel_residual=True,
        vocab_size=50304,
    ),
    "smollm2-135m": dict(
        model_type="llama",
        attention_bias=False,
        hidden_act="silu",
        hidden_size=576,
        intermediate_size=1536,
        max_position_embeddings=8192,
        mlp_bias=False,
        num_attention_heads=9,
        num_hidden_layers=30,
        num_key_value_heads=3,
        rms_norm_eps=1e-05,
        rope_scaling=None,
        rope_theta=100000,
        tie_word_embeddings=True,
        vocab_size=49152,
    ),
    "llama-3.1-8b": dict(
        model_type="llama",
        attention_bias=False,
        hidden_act="silu",
        hidden_size=4096,
        intermediate_size=14336,
        max_position_embeddings=131072,
        num_attention_heads=32,
        num_hidden_layers=32,
        num_key_value_heads=8,
        rms_norm_eps=1e-05,
        rope_scaling=dict(
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=8192,
            rope_type="llama3",
        ),
        rope_theta=500000.0,
        vocab_size=128256,
    ),
    "qwen2-0.5b": dict(
        model_type="qwen2",
        hidden_act="silu",
        hidden_size=896,
        intermediate_size=4864,
        max_position_embeddings=131072,
        max_window_layers=24,
        num_attention_heads=14,
        num_hidden_layers=24,
        num_key_value_heads=2,
        rms_norm_eps=1e-06,
        rope_theta=1000000.0,
        sliding_window=131072,
        tie_word_embeddings=True,
        use_sliding_window=False,
        vocab_size=151936,
    ),
}
PARAMETERS = {
    "gpt2": 124_439_808,
    "pythia-1b": 1_011_781_632,
    "smollm2-135m": 134_515_008,
    "llama-3.1-8b": 8_030_261_248,
    "qwen2-0.5b": 494_032_768,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_parameters(name):
    family, config = read_config(PUBLISHED[name], where="config.json")
    assert config.num_params == PARAMETERS[name]
    assert write_config(config)[0] is family


@pytest.mark.parametrize("name", CONFIGS)
def test_every_switch_survives_the_way_out_and_back(name):
    family, public = write_config(CONFIGS[name])
    assert family.name == name.split()[0]
    assert read_config(public, where="config.json") == (family, CONFIGS[name])


def test_both_spellings_of_rotary_positions_say_the_same():
    old = PUBLISHED["llama-3.1-8b"]
    new = {k: v for k, v in old.items() if k not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {**old["rope_scaling"], "rope_theta": old["rope_theta"]}
    assert read_config(new, where="new") == read_config(old, where="old")
    old = PUBLISHED["pythia-1b"]
    new = {k: v for k, v in old.items() if not k.startswith("rotary")}
    rotary = dict(rope_theta=10000, partial_rotary_factor=0.25, rope_type="default")
    new["rope_parameters"] = rotary
    assert read_config(new, where="new") == read_config(old, where="old")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gpt2", dict(model_type="bert"), "model_type='bert' is not supported; known"),
        ("gpt2", dict(n_layer=...), "key 'n_layer' is missing"),
        ("gpt2", dict(activation_function="relu"), "activation_function='relu'"),
        (
            "gpt2",
            dict(scale_attn_by_inverse_layer_idx=True),
            "scale_attn_by_inverse_layer_idx=True is not supported, only False",
        ),
        ("smollm2-135m", dict(attention_bias=True), "attention_bias=True"),
        ("qwen2-0.5b", dict(use_sliding_window=True), "use_sliding_window=True"),
        (
            "llama-3.1-8b",
            dict(rope_scaling=dict(rope_type="yarn", factor=4.0)),
            "rotary scaling 'yarn' is not supported",
        ),
    ],
)
def test_what_the_model_cannot_follow_is_refused(name, changes, message):
    public = {**PUBLISHED[name], **changes}
    public = {key: value for key, value in public.items() if value is not ...}
    with pytest.raises(UserError, match=rf"^a/config\.json: {re.escape(message)}"):
        read_config(public, where="a/config.json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(attention_band=4), "gpt2 is nearest but has no attention_band=4"),
        (dict(num_kv_heads=1), "gpt2 is nearest but has no num_kv_heads=1"),
    ],
)
def test_a_model_of_no_family_is_refused(changes, message):
    with pytest.raises(UserError, match=f"no public family .*{message}"):
        write_config(tiny.config(**changes))


def test_what_only_training_knows_does_not_keep_a_model_from_export():
    config = dataclasses.replace(
        CONFIGS["llama"], residual_dropout=0.2, compute_dtype="bfloat16", remat="full"
    )
    assert write_config(config)[0] is FAMILIES["llama"]
