"""Public tensors onto a mesh and back, bit for bit; bad files are named."""

import dataclasses
import json
import re
import weakref

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from instructgpt.errors import UserError
from instructgpt.models.hf import transfer
from instructgpt.models.hf.families import write_config
from instructgpt.models.hf.tensors import INDEX, SafetensorsFolder
from tests import tiny
from tests.hf_models import (
    CONFIGS,
    layout_of,
    num_tensors,
    params_of,
    public_tensors,
    write_folder,
)

CONFIG = CONFIGS["llama"]


def read_back(
    folder, config, *, source=None, progress=lambda done, total: None, **mesh
):
    family, _ = write_config(config)
    layout = layout_of(config, **mesh)
    items = transfer.expected(family, config, layout)
    source = source or SafetensorsFolder(folder)
    names = transfer.check_tensors(source.tensors(), items, family)
    return transfer.import_params(
        source, items, names, config=config, layout=layout, progress=progress
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_survive_the_way_out_and_back(name, tmp_path):
    config = CONFIGS[name]
    params = params_of(config)
    write_folder(tmp_path, config, public_tensors(config, params))
    tiny.assert_equal(read_back(tmp_path, config), params)


def test_tensors_land_in_pieces_on_a_mesh(tmp_path):
    config = dataclasses.replace(CONFIG, padded_vocab_size=128)
    params = params_of(config)
    write_folder(tmp_path, config, public_tensors(config, params))
    calls = []
    loaded = read_back(
        tmp_path,
        config,
        progress=lambda *args: calls.append(args),
        fsdp=4,
        tensor=2,
        data=1,
    )
    tiny.assert_equal(loaded, params)
    expected = layout_of(config, fsdp=4, tensor=2, data=1)
    assert jax.tree.map(lambda x: x.sharding, loaded) == jax.tree.map(
        lambda x: x.sharding, expected
    )
    total = num_tensors(config)
    assert calls == [(i, total) for i in range(1, total + 1)]


def test_padded_rows_are_zero_and_stay_at_home(tmp_path):
    config = dataclasses.replace(CONFIG, padded_vocab_size=128)
    params = params_of(config, seed=1)
    tensors = public_tensors(config, params)
    assert tensors["lm_head.weight"].shape == (101, 32)
    write_folder(tmp_path, config, tensors)
    loaded = read_back(tmp_path, config)
    for table in ("token_embedding", "unembedding"):
        assert loaded[table].shape == (128, 32)
        assert not np.asarray(loaded[table][101:]).any()


def test_half_precision_becomes_float32_exactly(tmp_path):
    tensors = {
        name: value.astype(ml_dtypes.bfloat16)
        for name, value in public_tensors(CONFIG, params_of(CONFIG)).items()
    }
    write_folder(tmp_path, CONFIG, tensors)
    loaded = read_back(tmp_path, CONFIG)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {np.dtype("float32")}
    again = public_tensors(CONFIG, loaded)
    for name, value in tensors.items():
        np.testing.assert_array_equal(again[name], value.astype(np.float32))


def test_gpt2_may_lack_its_prefix_and_carry_masks_and_a_copy_of_the_head(tmp_path):
    config = CONFIGS["gpt2"]
    params = params_of(config)
    tensors = public_tensors(config, params)
    bare = {name.removeprefix("transformer."): v for name, v in tensors.items()}
    bare["h.0.attn.bias"] = np.tri(96, dtype=np.float32)[None, None]
    bare["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
    write_folder(tmp_path, config, bare)
    tiny.assert_equal(read_back(tmp_path, config), params)


@pytest.fixture
def tensors():
    return public_tensors(CONFIG, params_of(CONFIG))


def refusal(folder):
    with pytest.raises(UserError) as error:
        read_back(folder, CONFIG)
    return str(error.value)


def test_a_missing_tensor_is_named(tensors, tmp_path):
    del tensors["model.layers.1.mlp.up_proj.weight"]
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert "model.safetensors: tensor 'model.layers.1.mlp.up_proj.weight'" in message
    del tensors["model.norm.weight"]
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert "is missing, and 1 more; copy all files" in message


def test_an_unexpected_tensor_is_named(tensors, tmp_path):
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(32, np.float32)
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert "unexpected tensor 'model.layers.0.self_attn.q_proj.bias'" in message


def test_a_tensor_of_another_shape_is_named(tensors, tmp_path):
    tensors["model.embed_tokens.weight"] = np.zeros((99, 32), np.float32)
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert "'model.embed_tokens.weight' has shape (99, 32)" in message
    assert "config.json makes it (101, 32)" in message


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file_is_named(kept, tensors, tmp_path):
    path = write_folder(tmp_path, CONFIG, tensors) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert re.search(
        r"model\.safetensors: damaged .*; copy the file", refusal(tmp_path)
    )


def test_a_folder_without_tensors_is_named(tmp_path):
    assert "no *.safetensors file" in refusal(tmp_path)


def shard(folder, tensors, groups):
    weight_map = {}
    for i, names in enumerate(groups):
        save_file({n: tensors[n] for n in names}, folder / f"s{i}.safetensors")
        weight_map |= dict.fromkeys(names, f"s{i}.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_joined_by_their_index(tensors, tmp_path):
    names = list(tensors)
    shard(tmp_path, tensors, [names[:5], names[5:6], names[6:]])
    tiny.assert_equal(read_back(tmp_path, CONFIG), params_of(CONFIG))
    (tmp_path / "s1.safetensors").unlink()
    assert "s1.safetensors: missing" in refusal(tmp_path)
    (tmp_path / INDEX).write_text("{")
    assert "index.json: not valid JSON" in refusal(tmp_path)
    for weight_map in ({}, {"a": 1}, ["s0.safetensors"]):
        (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
        assert "index.json: damaged (key 'weight_map'" in refusal(tmp_path)


def test_one_tensor_at_a_time_is_on_the_host(tensors, tmp_path):
    """Each is gone when the next is read, but what a device keeps of it as its own."""
    groups = [[name] for name in tensors]
    shard(tmp_path, tensors, groups)
    source = SafetensorsFolder(tmp_path)
    read, alive = source.read, []

    def watched(name):
        before = [other for other, array in alive if array() is not None]
        assert len(before) <= 1, f"{before} are there when {name} is read"
        tensor = read(name)
        alive.append((name, weakref.ref(tensor)))
        return tensor

    source.read = watched
    read_back(tmp_path, CONFIG, source=source)
    assert len(alive) == len(tensors)


def test_a_tensor_in_two_files_is_named(tensors, tmp_path):
    for name in ("a", "b"):
        save_file(tensors, tmp_path / f"{name}.safetensors")
    assert "is in " in (message := refusal(tmp_path)) and "a.safetensors too" in message


def test_shards_stay_under_their_limit():
    family, _ = write_config(CONFIG)
    items = transfer.expected(family, CONFIG, layout_of(CONFIG))
    limit = 101 * 32 * 4
    groups = list(transfer.shards(items, bytes_per_value=4, max_bytes=limit))
    assert [name for group in groups for name in group] == list(items)
    for group in groups:
        size = sum(4 * int(np.prod(items[name].shape)) for name in group)
        assert size <= limit or len(group) == 1


def test_names_are_those_of_the_public_library(tmp_path):
    write_folder(tmp_path, CONFIG, public_tensors(CONFIG, params_of(CONFIG)))
    names = load_file(tmp_path / "model.safetensors")
    assert "model.layers.2.self_attn.k_proj.weight" in names
    assert names["model.layers.2.self_attn.k_proj.weight"].shape == (16, 32)


def test_adapters_and_other_layouts_beside_the_model_are_left_alone(tensors, tmp_path):
    write_folder(tmp_path, CONFIG, tensors)
    others = ["adapter_model", "consolidated", "model.fp16", "optimizer"]
    for name in others:
        save_file({"other": np.ones(2, np.float32)}, tmp_path / f"{name}.safetensors")
    source = SafetensorsFolder(tmp_path)
    assert source.left_alone == [f"{name}.safetensors" for name in others]
    tiny.assert_equal(read_back(tmp_path, CONFIG, source=source), params_of(CONFIG))
    # And where the shards of an index are the model.
    (tmp_path / "model.safetensors").unlink()
    names = list(tensors)
    shard(tmp_path, tensors, [names[:4], names[4:]])
    tiny.assert_equal(read_back(tmp_path, CONFIG), params_of(CONFIG))


def test_a_single_file_goes_before_older_shards(tensors, tmp_path):
    older = {name: value + 1 for name, value in tensors.items()}
    shard(tmp_path, older, [list(older)])
    write_folder(tmp_path, CONFIG, tensors)
    tiny.assert_equal(read_back(tmp_path, CONFIG), params_of(CONFIG))


def test_shards_without_an_index_are_joined_if_all_are_there(tensors, tmp_path):
    names = list(tensors)
    for i, part in enumerate([names[:9], names[9:]], start=1):
        path = tmp_path / f"model-0000{i}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, path)
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    tiny.assert_equal(read_back(tmp_path, CONFIG), params_of(CONFIG))
    path.unlink()
    assert "00002-of-00002.safetensors: missing, but other parts" in refusal(tmp_path)


def test_a_folder_of_an_adapter_alone_is_named(tmp_path):
    save_file({"a": np.ones(2, np.float32)}, tmp_path / "adapter_model.safetensors")
    assert "adapter_model.safetensors, which is no whole model" in refusal(tmp_path)


@pytest.mark.parametrize(
    "dtype",
    [np.int8, np.uint8, np.int32, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2],
)
def test_integers_and_8_bit_floats_are_no_weights(dtype, tensors, tmp_path):
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = np.ones(tensors[name].shape, dtype)
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert f"model.safetensors: {name!r} is of type " in message
    assert "quantised weights; take the model's plain weights" in message


@pytest.mark.parametrize("end", [".weight_scale_inv", ".scales", ".weight_scale"])
def test_scales_of_quantised_weights_are_named_with_what_config_json_says(
    end, tensors, tmp_path
):
    tensors[f"model.layers.0.mlp.up_proj{end}"] = np.ones(1, np.float32)
    write_folder(tmp_path, CONFIG, tensors)
    items = transfer.expected(write_config(CONFIG)[0], CONFIG, layout_of(CONFIG))
    with pytest.raises(UserError, match=rf"up_proj{end}' holds .* \(by gptq\); take"):
        transfer.check_tensors(
            SafetensorsFolder(tmp_path).tensors(),
            items,
            write_config(CONFIG)[0],
            quantised="by gptq",
        )


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.nan, np.float32),
        (np.inf, np.float16),
        (-np.inf, ml_dtypes.bfloat16),
        (1e300, np.float64),  # which float32 does not hold
    ],
)
@pytest.mark.parametrize(
    "name", ["model.layers.2.input_layernorm.weight", "lm_head.weight"]
)
def test_what_is_not_finite_is_named(name, value, dtype, tensors, tmp_path):
    tensors[name] = tensors[name].astype(dtype)
    tensors[name].flat[-1] = value
    message = refusal(write_folder(tmp_path, CONFIG, tensors))
    assert f"model.safetensors: {name!r} holds NaN or infinity" in message


@pytest.mark.parametrize("name", ["llama tied", "gpt2"])
def test_a_tied_table_may_have_the_name_of_the_head(name, tmp_path):
    config = CONFIGS[name]
    params = params_of(config)
    tensors = public_tensors(config, params)
    embedding = next(iter(tensors))
    tensors["lm_head.weight"] = tensors.pop(embedding)
    write_folder(tmp_path, config, tensors)
    tiny.assert_equal(read_back(tmp_path, config), params)


@pytest.mark.parametrize("name", ["llama tied", "gpt2"])
def test_a_trained_head_is_used_whatever_config_json_says(name, tmp_path):
    config = CONFIGS[name]
    tensors = public_tensors(config, params_of(config))
    embedding = tensors[next(iter(tensors))]
    family = write_config(config)[0]

    def settled(head):
        tensors["lm_head.weight"] = head
        write_folder(tmp_path, config, tensors)
        return transfer.settle_head(SafetensorsFolder(tmp_path), family, config)

    assert settled(embedding.copy()) == config
    trained = embedding + 1
    untied = settled(trained)
    assert untied == dataclasses.replace(config, tied_head=False)
    layout = layout_of(untied)
    items = transfer.expected(family, untied, layout)
    source = SafetensorsFolder(tmp_path)
    names = transfer.check_tensors(source.tensors(), items, family)
    params = transfer.import_params(source, items, names, config=untied, layout=layout)
    np.testing.assert_array_equal(params["unembedding"][: len(trained)], trained)


@pytest.mark.parametrize("name", ["model.safetensors", INDEX])
def test_git_lfs_pointers_are_named(name, tensors, tmp_path):
    if name == INDEX:
        shard(tmp_path, tensors, [list(tensors)])
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (tmp_path / name).write_text(pointer)
    assert f"{name}: is a Git LFS pointer" in refusal(tmp_path)
