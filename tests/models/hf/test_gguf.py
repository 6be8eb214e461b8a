"""GGUF files, written by the gguf library in llama.cpp's names and order."""

import dataclasses
import re

import gguf
import pytest

from instructgpt.errors import UserError
from instructgpt.models.hf import transfer
from instructgpt.models.hf.families import read_config
from instructgpt.models.hf.gguf_file import GGUFFile
from tests import tiny
from tests.hf_models import CONFIGS, layout_of, params_of
from tests.models.hf.gguf_writing import write_gguf

Q8 = gguf.GGMLQuantizationType.Q8_0


def read_gguf(path):
    """(config, params)."""
    file = GGUFFile(path)
    family, config = read_config(file.config, where=str(path))
    layout = layout_of(config)
    items = transfer.expected(family, config, layout)
    file.rename(list(items))
    names = transfer.check_tensors(file.tensors(), items, family)
    params = transfer.import_params(file, items, names, config=config, layout=layout)
    return config, params


@pytest.mark.parametrize(
    "name", ["gpt2", "gpt_neox", "gpt_neox serial", "llama", "llama tied", "qwen2"]
)
def test_every_family_comes_back(name, tmp_path):
    config = CONFIGS[name]
    params = params_of(config)
    loaded = read_gguf(write_gguf(tmp_path / "a.gguf", config, params))
    assert loaded[0] == config
    tiny.assert_equal(loaded[1], params)


def test_quantised_tensors_are_near(tmp_path):
    config = dataclasses.replace(CONFIGS["llama"], mlp_width=96)
    params = params_of(config)
    path = write_gguf(tmp_path / "a.gguf", config, params, quantization=Q8)
    loaded = read_gguf(path)[1]
    assert 0 < tiny.distance(loaded, params) < 0.01


@pytest.fixture
def path(tmp_path):
    config = CONFIGS["llama"]
    return write_gguf(tmp_path / "a.gguf", config, params_of(config))


@pytest.mark.parametrize("kept", [0, 3, 20, 300, 5000, -1])
def test_a_truncated_file_is_named(kept, path):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.gguf: not a GGUF file, or a truncated"):
        read_gguf(path)


def test_another_kind_of_file_is_named(tmp_path):
    (tmp_path / "a.gguf").write_text("weights" * 99)
    with pytest.raises(UserError, match=r"a\.gguf: not a GGUF file"):
        GGUFFile(tmp_path / "a.gguf")


def test_an_unknown_architecture_is_named(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(UserError, match="architecture 'mamba' is not supported; known"):
        GGUFFile(tmp_path / "a.gguf")


def test_scaling_that_is_not_supported_is_named(tmp_path):
    config = CONFIGS["llama"]
    changes = [("llama.rope.scaling.type", "yarn")]
    path = write_gguf(tmp_path / "a.gguf", config, params_of(config), changes=changes)
    with pytest.raises(UserError, match="rotary scaling 'yarn'"):
        read_gguf(path)


def test_an_unexpected_tensor_is_named(tmp_path):
    path = tmp_path / "a.gguf"
    write_gguf(path, CONFIGS["qwen2"], params_of(CONFIGS["qwen2"]))
    # A Llama has no biases.
    data = path.read_bytes().replace(b"qwen2", b"llama")
    path.write_bytes(data)
    with pytest.raises(UserError, match=re.escape("unexpected tensor 'blk.0.attn_")):
        read_gguf(path)
