"""Sizes of models, counted without building them."""

import math

import jax
import pytest

from instructgpt.errors import UserError
from instructgpt.models.config import GPT3_SIZES, PUBLIC_SIZES, for_devices
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.state import init_params
from tests import tiny


def count(model) -> int:
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


@pytest.mark.parametrize("name", GPT3_SIZES)
def test_num_params_is_what_the_model_has(name):
    config = GPT3_SIZES[name]
    assert count(Transformer(config)) == config.num_params


@pytest.mark.parametrize("name", GPT3_SIZES)
def test_named_sizes_have_about_the_parameters_of_their_name(name):
    # 350M and 6B are the names of models of 356M and 6.7B.
    number = float(name[:-1]) * (1e9 if name.endswith("b") else 1e6)
    assert GPT3_SIZES[name].num_params == pytest.approx(number, rel=0.13)


@pytest.mark.parametrize(
    ("name", "number"),
    [("gpt2", 124_439_808), ("pythia-1b", 1_011_781_632), ("smollm2", 134_515_008)],
)
def test_public_sizes_have_their_published_parameters(name, number):
    config = PUBLIC_SIZES[name]
    assert config.num_params - number == config.width * (
        config.padded_vocab_size - config.vocab_size
    )
    assert count(Transformer(config)) == config.num_params


@pytest.mark.parametrize(
    "switches",
    [
        dict(positions="rotary", norm="rms_norm", activation="swiglu", num_kv_heads=1),
        dict(qkv_bias=False, mlp_bias=False, tied_head=False, padded_vocab_size=64),
        dict(out_bias=False, activation="swiglu"),
    ],
)
def test_num_params_follows_the_switches(switches):
    config = tiny.config(**switches)
    assert count(Transformer(config)) == config.num_params


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (dict(num_kv_heads=3), "num_kv_heads=3 does not divide num_heads=2"),
        (dict(padded_vocab_size=7), "padded_vocab_size=7 is smaller than vocab_size"),
        (dict(rotary_dim=3), "rotary_dim=3 must be even and at most head_dim=8"),
        (dict(rotary_dim=10), "rotary_dim=10 must be even"),
        (dict(rotary_scaling="llama3"), "needs rotary_original_context"),
    ],
)
def test_switches_that_do_not_fit_together_are_named(switches, message):
    with pytest.raises(UserError, match=rf"config\.model.*{message}"):
        tiny.config(**switches)


def test_a_scalar_head_adds_a_kernel_and_a_bias():
    config = tiny.config(head_dim=4, mlp_width=40)
    assert count(Transformer(config)) == config.num_params
    assert count(ScalarModel(config)) == config.num_params + config.width + 1


def test_sizes_left_out_follow_the_width():
    config = tiny.config(width=24, num_heads=3)
    assert (config.head_dim, config.mlp_width) == (8, 96)


def test_a_width_that_does_not_divide_into_heads_is_a_user_error():
    with pytest.raises(UserError, match=r"config\.model: width=16 .*num_heads=3"):
        tiny.config(num_heads=3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("tpu", [True, False])
def test_tpus_take_bfloat16_for_float16(dtype, tpu):
    said = []
    config = tiny.config(compute_dtype=dtype, remat="full")
    found = for_devices(config, tpu=tpu, log=said.append)
    replaced = tpu and dtype == "float16"
    expected = "bfloat16" if replaced else dtype
    assert found == tiny.config(compute_dtype=expected, remat="full")
    assert len(said) == replaced


@pytest.mark.parametrize("key", ["context_length", "num_layers", "width", "num_heads"])
def test_sizes_must_be_positive(key):
    with pytest.raises(UserError, match=rf"config\.model\.{key}=0: .*1 or more"):
        tiny.config(**{key: 0})


def test_a_vocabulary_is_the_tokenizer_s_or_positive():
    assert tiny.config(vocab_size=0, padded_vocab_size=0).vocab_size == 0
    with pytest.raises(UserError, match=r"config\.model\.vocab_size=-1: .*0 or more"):
        tiny.config(vocab_size=-1)


@pytest.mark.parametrize(
    "name",
    [
        *("positions", "rotary_scaling", "norm", "activation"),
        *("position_init", "compute_dtype", "remat"),
    ],
)
def test_a_choice_that_does_not_exist_is_named(name):
    with pytest.raises(
        UserError, match=rf"config\.model\.{name}='nosuch': give one of '"
    ):
        tiny.config(**{name: "nosuch"})


def test_tokens_are_cut_between_layers_in_a_loop_alone():
    with pytest.raises(UserError, match="sequence_parallel needs scan_layers"):
        tiny.config(sequence_parallel=True, scan_layers=False)
