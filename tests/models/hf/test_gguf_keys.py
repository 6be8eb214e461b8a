"""Keys, parts and tables of GGUF files: followed as llama.cpp does, or named."""

import dataclasses
import re

import gguf
import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.models.hf.families import read_config, write_config
from instructgpt.models.hf.gguf_file import GGUFFile
from instructgpt.models.positions import frequencies
from tests import tiny
from tests.hf_models import CONFIGS, params_of
from tests.models.hf.gguf_writing import write_gguf
from tests.models.hf.test_gguf import read_gguf

ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "gpt_neox": "gptneox"}


def written(folder, name="llama", *, without=(), table=None, **extra):
    """A file of the model, with keys of its architecture."""
    config = CONFIGS[name]
    arch = ARCHITECTURES[name]
    keys = {
        f"{arch}.{key.replace('__', '.')}": value
        for key, value in extra.items()
        if key not in without
    }
    tensors = {} if table is None else {"rope_freqs.weight": table}
    path = folder / "a.gguf"
    return write_gguf(path, config, params_of(config), extra=keys, tensors=tensors)


def refused(path, *parts):
    with pytest.raises(UserError) as error:
        read_gguf(path)
    assert str(error.value).startswith(str(path.parent))
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize(
    "keys",
    [
        dict(rope__scaling__type="linear", rope__scaling__factor=4.0),
        dict(rope__scaling__factor=4.0),
        dict(rope__scale_linear=4.0),
        dict(rope__scaling__factor=4.0, rope__scale_linear=2.0),
    ],
    ids=str,
)
def test_linear_scaling_is_the_same_in_all_architectures(name, keys, tmp_path):
    config, _ = read_gguf(written(tmp_path, name, **keys))
    assert config == dataclasses.replace(
        CONFIGS[name], rotary_scaling="linear", rotary_factor=4.0
    )


@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
@pytest.mark.parametrize(
    "keys",
    [
        dict(rope__scaling__type="none"),
        dict(rope__scaling__type="linear"),
        dict(rope__scaling__factor=0.0),
        dict(rope__scaling__factor=1.0, rope__scaling__attn_factor=1.0),
        dict(rope__scaling__type="none", rope__scale_linear=0.0),
    ],
    ids=str,
)
def test_what_says_that_nothing_is_scaled_changes_nothing(name, keys, tmp_path):
    assert read_gguf(written(tmp_path, name, **keys))[0] == CONFIGS[name]


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "qwen2"])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(rope__scaling__type="yarn"), "rotary scaling 'yarn' is not supported"),
        (dict(rope__scaling__type=3), "rotary scaling 3 is not supported"),
        (dict(rope__scaling__factor=-4.0), "rope.scaling.factor is -4.0; it must be"),
        (dict(rope__scaling__factor="4"), 'rope.scaling.factor is "4"'),
        (dict(rope__scale_linear=float("nan")), "rope.scale_linear is NaN"),
        (
            dict(rope__scaling__type="none", rope__scaling__factor=4.0),
            "rope.scaling.factor is 4.0, but",
        ),
        (dict(rope__scaling__attn_factor=0.5), "rope.scaling.attn_factor is not supp"),
    ],
    ids=str,
)
def test_scaling_that_cannot_be_followed_is_named(name, keys, message, tmp_path):
    refused(written(tmp_path, name, **keys), message)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", 2**31 - 1),
        ("block_count", -1),
        ("block_count", "3"),
        ("attention__head_count", [4, 4]),
        ("embedding_length", 0),
        ("feed_forward_length", True),
        ("rope__freq_base", 0.0),
        ("rope__freq_base", "1e4"),
        ("rope__dimension_count", 4),
        ("attention__layer_norm_rms_epsilon", float("inf")),
    ],
)
def test_values_of_another_kind_are_named_with_their_key(key, value, tmp_path):
    name = f"llama.{key.replace('__', '.')}"
    refused(written(tmp_path, **{key: value}), f"a.gguf: {name} is ")


def llama_3(config, *, factor, context=8192):
    """What Llama 3.1's files divide the rate of each plane by, in float32."""
    rates = config.rotary_base ** -(
        np.arange(0, config.rotary_dim, 2, dtype=np.float32) / config.rotary_dim
    )
    turns = context * rates / np.float32(2 * np.pi)
    smooth = (turns - 1) / np.float32(3)
    between = 1 / ((1 - smooth) / factor + smooth)
    table = np.where(turns < 1, factor, np.where(turns > 4, 1, between))
    return table.astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("base", [1e4, 5e5])  # whose slowest plane is slowed partly
def test_the_table_of_llama_3_is_read_as_the_numbers_that_made_it(
    factor, base, tmp_path
):
    config = dataclasses.replace(CONFIGS["llama"], rotary_base=base)
    path = write_gguf(
        tmp_path / "a.gguf",
        config,
        params_of(config),
        tensors={"rope_freqs.weight": llama_3(config, factor=factor)},
    )
    loaded, params = read_gguf(path)
    assert loaded == dataclasses.replace(
        config,
        rotary_scaling="llama3",
        rotary_factor=factor,
        rotary_original_context=8192,
    )
    assert write_config(loaded)[0].name == "llama"
    tiny.assert_equal(params, params_of(config))


@pytest.mark.parametrize("name", ["llama", "qwen2"])
@pytest.mark.parametrize("linear", [1.0, 2.0])
def test_any_other_table_divides_the_rates_of_the_planes(name, linear, tmp_path):
    table = np.array([1.0, 1.5, 7.0, 3.25], np.float32)
    path = written(tmp_path, name, table=table, rope__scaling__factor=linear)
    config = read_gguf(path)[0]
    assert config.rotary_scaling == "table"
    np.testing.assert_allclose(
        frequencies(config), frequencies(CONFIGS[name]) / (table * linear), rtol=1e-6
    )
    # JSON, where checkpoints keep it, has lists alone.
    again = type(config)(**{**vars(config), "rotary_table": list(config.rotary_table)})
    assert again == config and hash(again) == hash(config)
    with pytest.raises(UserError, match=r"no public family .*='table'"):
        write_config(config)


def test_a_table_of_equal_numbers_is_linear_scaling_or_none(tmp_path):
    ones = written(tmp_path, table=np.ones(4, np.float32))
    assert read_gguf(ones)[0] == CONFIGS["llama"]
    config = read_gguf(written(tmp_path, table=np.full(4, 2.5, np.float32)))[0]
    assert (config.rotary_scaling, config.rotary_factor) == ("linear", 2.5)


@pytest.mark.parametrize(
    "table", [[1.0, 2.0], [1.0, 0.0, 1.0, 1.0], [1.0, -2.0, 3.0, 4.0], [np.nan] * 4]
)
def test_a_table_that_cannot_be_followed_is_named(table, tmp_path):
    path = written(tmp_path, table=np.array(table, np.float32))
    refused(path, "a.gguf: 'rope_freqs.weight' must hold 4 numbers above 0")


def split(folder, parts=3):
    config = CONFIGS["llama"]
    return write_gguf(folder / "a.gguf", config, params_of(config), parts=parts)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_parts_are_read_whole_whichever_is_given(number, tmp_path):
    split(tmp_path)
    config, params = read_gguf(tmp_path / f"a-0000{number}-of-00003.gguf")
    assert config == CONFIGS["llama"]
    tiny.assert_equal(params, params_of(config))


def test_parts_that_are_missing_or_of_another_model_are_named(tmp_path):
    first = split(tmp_path)
    second, third = (tmp_path / f"a-0000{n}-of-00003.gguf" for n in (2, 3))
    kept = second.read_bytes()
    second.write_bytes(third.read_bytes())
    refused(first, f"{second.name}: says that it is part 2 (from 0) of 3; copy the")
    second.unlink()
    refused(third, f"{second.name}: missing; {third.name} is one of 3 parts")
    second.write_bytes(kept[:-40])
    refused(first, f"{second.name}: not a GGUF file, or a truncated one")
    second.write_bytes(kept)
    alone = tmp_path / "part.gguf"
    alone.write_bytes(first.read_bytes())
    refused(alone, "part.gguf: one of the 3 parts of a model; the parts must be named")


def test_a_type_that_the_library_cannot_read_is_named(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    kind = gguf.GGMLQuantizationType.Q8_K
    block, size = gguf.GGML_QUANT_SIZES[kind]
    writer.add_tensor("output.weight", np.zeros((1, size), np.uint8), raw_dtype=kind)
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    assert block > 1
    with pytest.raises(UserError, match=r"a\.gguf: holds tensors of type Q8_K, which"):
        GGUFFile(path)


def test_git_lfs_pointers_are_named(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    refused(path, "a.gguf: is a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named(value, tmp_path):
    config = CONFIGS["qwen2"]
    params = params_of(config)
    params["ln_f"]["scale"] = params["ln_f"]["scale"].at[3].set(value)
    path = write_gguf(tmp_path / "a.gguf", config, params)
    refused(path, "a.gguf: 'model.norm.weight' holds NaN or infinity")


def test_a_count_that_the_file_does_not_hold_is_named_at_once(tmp_path):
    path = written(tmp_path)
    content = bytearray(path.read_bytes())
    for start in (8, 16):  # of tensors, and of keys
        content[start : start + 8] = (2**62).to_bytes(8, "little")
        path.write_bytes(bytes(content))
        refused(path, "a.gguf: not a GGUF file, or a truncated one", "ends before")


def test_the_config_that_a_file_gives_names_the_file(tmp_path):
    file = GGUFFile(written(tmp_path, attention__head_count_kv=3))
    with pytest.raises(
        UserError, match=re.escape("b.gguf: config.model: num_kv_heads")
    ):
        read_config(file.config, where="b.gguf")
