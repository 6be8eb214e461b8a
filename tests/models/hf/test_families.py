"""config.json to switches and back; what cannot be followed is refused by name."""

import dataclasses
import re

import pytest

from instructgpt.errors import UserError
from instructgpt.models.hf.families import FAMILIES, read_config, write_config
from tests import tiny
from tests.hf_models import CONFIGS

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


LLAMA_3 = PUBLISHED["llama-3.1-8b"]["rope_scaling"]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        (dict(hidden_size="576"), 'hidden_size is "576"'),
        (dict(hidden_size=None), "hidden_size is null"),
        (dict(num_hidden_layers=0), "num_hidden_layers is 0"),
        (dict(num_hidden_layers=2**31), "num_hidden_layers is 2147483648"),
        (dict(num_attention_heads=True), "num_attention_heads is true"),
        (dict(vocab_size=[49152]), "vocab_size is [49152]"),
        (dict(vocab_size=-5), "vocab_size is -5"),
        (dict(max_position_embeddings=8192.0), "max_position_embeddings is 8192.0"),
        (dict(rms_norm_eps=float("nan")), "rms_norm_eps is NaN"),
        (dict(rms_norm_eps=10**400), "rms_norm_eps is 1000"),
        (dict(rms_norm_eps=0), "rms_norm_eps is 0"),
        (dict(tie_word_embeddings="false"), 'tie_word_embeddings is "false"'),
        (dict(mlp_bias=None), "mlp_bias is null"),
        (dict(hidden_act=["silu"]), "hidden_act=['silu'] is not supported"),
        (dict(model_type=["llama"]), "model_type=['llama'] is not supported"),
        (dict(layer_types=["sliding_attention"] * 30), "layer_types is"),
        (dict(layer_types="full"), "layer_types is"),
        (dict(num_key_value_heads=2), "config.model: num_kv_heads=2 does not divide"),
        (dict(rope_theta=0), "rope_theta is 0;"),
        (dict(rope_theta="1e5"), 'rope_theta is "1e5"'),
        (dict(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
        (dict(rope_scaling="linear"), 'rope_scaling is "linear"; it must be null or'),
        (dict(rope_scaling=0), "rope_scaling is 0;"),
        (dict(rope_scaling=False), "rope_scaling is false"),
        (dict(rope_scaling=[4.0]), "rope_scaling is [4.0]"),
        (dict(rope_parameters="none"), 'rope_parameters is "none"'),
        (dict(rope_scaling=dict(factor=4.0)), "rope_scaling.factor is 4.0, which"),
        (dict(rope_scaling=dict(type=None, factor=2)), "and rope_type is missing"),
        (dict(rope_scaling=dict(type="linear")), "rope_scaling.factor is missing"),
        (dict(rope_scaling=dict(type="linear", factor=None)), "factor is missing or n"),
        (dict(rope_scaling=dict(type="linear", factor=0)), "rope_scaling.factor is 0"),
        (dict(rope_scaling=dict(type="linear", factor=-2)), "factor is -2; it must be"),
        (dict(rope_scaling=dict(type="linear", factor="4")), 'factor is "4"'),
        (dict(rope_scaling=dict(rope_type="linear", type="llama3")), "differ"),
        (dict(rope_scaling=dict(type=3)), "rotary scaling 3 is not supported"),
        (
            dict(rope_parameters=dict(sliding_attention=dict(rope_type="default"))),
            "rope_parameters.sliding_attention is",
        ),
        (
            dict(rope_parameters=dict(rope_type="default", mrope_section=[1, 2])),
            "rope_parameters.mrope_section is [1, 2]",
        ),
        (
            dict(rope_scaling={**LLAMA_3, "high_freq_factor": None}),
            "rope_scaling.high_freq_factor is missing",
        ),
        (
            dict(rope_scaling={**LLAMA_3, "low_freq_factor": 4.0}),
            "low_freq_factor=4.0 must be below high_freq_factor=4.0",
        ),
        (
            dict(rope_scaling={**LLAMA_3, "original_max_position_embeddings": 8e3}),
            "rope_scaling.original_max_position_embeddings is 8000.0",
        ),
        (
            dict(rope_parameters=dict(rope_type="linear", factor=2, rope_theta=-1)),
            "rope_parameters.rope_theta is -1",
        ),
    ],
    ids=str,
)
def test_values_of_another_kind_are_named_with_their_key(changes, key):
    public = {**PUBLISHED["smollm2-135m"], **changes}
    with pytest.raises(UserError) as error:
        read_config(public, where="a/config.json")
    message = str(error.value)
    assert message.startswith("a/config.json: ") and key in message


@pytest.mark.parametrize(
    "changes",
    [
        dict(rope_scaling={}),
        dict(rope_parameters=None, rope_scaling=None),
        dict(rope_scaling=dict(rope_type="default", factor=None)),
        dict(attention_bias=None, layer_types=["full_attention"] * 30),
        dict(rope_parameters=dict(type="default", rope_theta=100_000)),
    ],
    ids=str,
)
def test_what_says_nothing_changes_nothing(changes):
    public = PUBLISHED["smollm2-135m"]
    assert read_config({**public, **changes}, where="a") == read_config(
        public, where="a"
    )


def test_a_quarter_of_gpt_neox_channels_turn_unless_it_says_otherwise():
    public = PUBLISHED["pythia-1b"]
    without = {k: v for k, v in public.items() if not k.startswith("rotary")}
    assert read_config(without, where="a") == read_config(public, where="a")


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
