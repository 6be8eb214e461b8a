"""`python -m instructgpt.convert`: whole checkpoints or none, and one line of error."""

import json
import os
import signal
import subprocess
import sys
import time

import huggingface_hub
import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from instructgpt.checkpoints import open_checkpoint
from instructgpt.convert import __main__ as convert
from instructgpt.convert import exporting
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import Transformer
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.state import params_layout
from instructgpt.tokenizer import load_tokenizer
from tests import tiny
from tests.hf_models import CONFIGS, V, params_of, public_tensors, write_folder

CONFIG = CONFIGS["llama tied"]


def add_tokenizer(folder, *, size=V):
    """tokenizer.json of `size` tokens, the last of which ends a text."""
    names = [f"t{i}" for i in range(size - 1)]
    vocabulary = {name: i for i, name in enumerate([*names, "<end>"])}
    pipeline = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    pipeline.pre_tokenizer = pre_tokenizers.Whitespace()
    pipeline.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<end>", "pad_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


@pytest.fixture
def source(tmp_path):
    """A public folder with a tokenizer that pads with EOS."""
    folder = tmp_path / "theirs"
    write_folder(folder, CONFIG, public_tensors(CONFIG, params_of(CONFIG)))
    add_tokenizer(folder)
    return folder


def load(workdir):
    """(config, params) of a checkpoint."""
    checkpoints, step = open_checkpoint(workdir)
    config = ModelConfig(**checkpoints.meta(step)["model"])
    layout = params_layout(Transformer(config), make_mesh(MeshConfig(fsdp=8, data=1)))
    params = checkpoints.restore(step, {"params": layout})[0]["params"]
    checkpoints.close()
    return config, params


def test_there_and_back(source, tmp_path, capsys):
    convert.main(["import", str(source), str(tmp_path / "ours")])
    config, params = load(tmp_path / "ours")
    # Padding is no longer EOS: it has a row of its own, in a table that shards.
    tokenizer = load_tokenizer(tmp_path / "ours" / "tokenizer")
    assert (tokenizer.eos_id, tokenizer.pad_id) == (V - 1, V)
    assert (config.vocab_size, config.padded_vocab_size) == (V, 128)
    convert.main(["export", str(tmp_path / "ours"), str(tmp_path / "theirs2")])
    written = json.loads((tmp_path / "theirs2" / "config.json").read_text())
    assert written["architectures"] == ["LlamaForCausalLM"]
    # Which is not exported, so no other program must look for it.
    assert (written["eos_token_id"], written["pad_token_id"]) == (V - 1, None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        copied = (tmp_path / "theirs2" / name).read_text()
        assert copied == (source / name).read_text()
    convert.main(["import", str(tmp_path / "theirs2"), str(tmp_path / "again")])
    again = load(tmp_path / "again")
    assert again[0] == config
    tiny.assert_equal(again[1], params)
    assert "parameters in" in capsys.readouterr().out


def test_half_precision_export_rounds(source, tmp_path):
    convert.main(["import", str(source), str(tmp_path / "ours")])
    arguments = ["export", str(tmp_path / "ours"), str(tmp_path / "half")]
    convert.main([*arguments, "--dtype=bfloat16"])
    convert.main(["import", str(tmp_path / "half"), str(tmp_path / "again")])
    whole, half = load(tmp_path / "ours")[1], load(tmp_path / "again")[1]
    assert 0 < tiny.distance(whole, half) < 0.01


def test_a_model_without_a_tokenizer_still_has_room_for_padding(tmp_path, capsys):
    folder = tmp_path / "theirs"
    write_folder(folder, CONFIG, public_tensors(CONFIG, params_of(CONFIG)))
    convert.main(["import", str(folder), str(tmp_path / "ours")])
    assert "has no tokenizer; name one by" in capsys.readouterr().out
    assert load(tmp_path / "ours")[0].padded_vocab_size == 128


def refusal(*arguments):
    with pytest.raises(SystemExit) as error:
        convert.main([str(a) for a in arguments])
    message = str(error.value)
    assert message.startswith("error: ") and "\n" not in message
    return message


def test_what_is_there_is_not_overwritten(source, tmp_path):
    convert.main(["import", str(source), str(tmp_path / "ours")])
    message = refusal("import", source, tmp_path / "ours")
    assert "ours holds checkpoints; name a new folder" in message
    message = refusal("export", tmp_path / "ours", source)
    assert "theirs: is there already and not empty; del" in message
    assert "no checkpoint in" in refusal("export", tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize("key", ["tokenizer", "jsonl"])
def test_the_tokenizer_that_a_run_names_is_found_from_any_folder(
    key, source, tmp_path, monkeypatch
):
    workdir, records = tmp_path / "runs" / "sft", tmp_path / "runs" / "my records"
    convert.main(["import", str(source), str(workdir)])
    (workdir / "tokenizer").rename(records)
    data = {"tokenizer": "", "jsonl": "", key: "../my records"}
    (workdir / "config.json").write_text(json.dumps({"data": data}))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    convert.main(["export", "../runs/sft", "theirs"])
    written = json.loads((tmp_path / "elsewhere/theirs/config.json").read_text())
    assert written["eos_token_id"] == V - 1
    assert (tmp_path / "elsewhere/theirs/tokenizer.json").exists()
    (records / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    assert f"{records}: no tokenizer" in refusal("export", workdir, "again")
    records.rename(tmp_path / "gone")
    message = refusal("export", "../runs/sft", "again")
    assert f"{records}: there is no tokenizer" in message
    assert f"config.data.{key} of ../runs/sft" in message
    assert not (tmp_path / "elsewhere/again").exists()


def test_a_tokenizer_that_is_not_the_runs_is_not_exported(source, tmp_path):
    own = load_tokenizer(source)
    exporting._check_tokenizer(source, {}, tmp_path)  # imported, or made by hand
    made = {"made_with": {"tokenizer": own.fingerprint}}
    exporting._check_tokenizer(source, made, tmp_path)
    made["made_with"]["tokenizer"] = "another"
    with pytest.raises(UserError, match=f"{source} is another tokenizer than the one"):
        exporting._check_tokenizer(source, made, tmp_path)
    exporting._check_tokenizer(None, made, tmp_path)


def test_what_the_system_refuses_is_one_line(source, tmp_path):
    (tmp_path / "file").touch()
    says = refusal("import", source, tmp_path / "file" / "below")
    assert "a file is where a folder must be" in says
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "of mine.txt").touch()
    assert "notes is not empty; name a new folder" in refusal(
        "import", source, tmp_path / "notes"
    )


@pytest.mark.parametrize("size", ["nan", "0", "-1", "inf", "big"])
def test_sizes_of_shards_are_numbers_above_zero(size, tmp_path, capsys):
    with pytest.raises(SystemExit):
        convert.main(["export", "a", str(tmp_path / "b"), f"--max-shard-gb={size}"])
    assert "--max-shard-gb: " in capsys.readouterr().err


def test_home_is_meant_by_its_sign(source, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(source)
    convert.main(["import", "~/theirs", "~/ours"])
    convert.main(["export", "~/ours", "~/back"])
    assert (tmp_path / "back" / "config.json").exists()
    assert not (source / "~").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json: not valid JSON"),
        ("config.json", '{"model_type": "bert"}', "model_type='bert' is not supported"),
        ("config.json", None, "config.json: cannot read the file"),
        ("model.safetensors", None, "no *.safetensors file"),
        ("model.safetensors", "cut", "model.safetensors: damaged"),
        ("tokenizer.json", "{}", "tokenizer.json: not a tokenizer.json, or a damaged"),
        ("tokenizer_config.json", "[1", "tokenizer_config.json: not valid JSON"),
    ],
)
def test_bad_files_are_named_and_leave_no_checkpoint(
    name, content, message, source, tmp_path
):
    if content is None:
        (source / name).unlink()
    else:
        (source / name).write_text(content)
    assert message in refusal("import", source, tmp_path / "ours")
    assert not (tmp_path / "ours" / "checkpoints").exists()


def test_a_tokenizer_of_another_model_is_named(source, tmp_path):
    add_tokenizer(source, size=V + 1)
    message = refusal("import", source, tmp_path / "ours")
    assert f"the tokenizer has {V + 1} tokens, the model {V}" in message


def test_neither_a_file_nor_a_name_on_the_hub(tmp_path, monkeypatch):
    assert "no such file or folder" in refusal("import", "no/such/way", tmp_path / "a")
    assert "no such file" in refusal("import", "gone.gguf", tmp_path / "a")
    (tmp_path / "weights.bin").touch()
    message = refusal("import", tmp_path / "weights.bin", tmp_path / "a")
    assert "give a folder or a .gguf file" in message
    assert "no such file" in refusal("import", "~nobody/x/y/z", tmp_path / "a")

    def offline(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = refusal("import", "org/model", tmp_path / "a")
    assert "not to be had from the Hugging Face hub (Name or service" in message


def test_a_name_on_the_hub_is_downloaded(source, tmp_path, monkeypatch):
    asked = []

    def download(name, **options):
        asked.append(name)
        return str(source)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    convert.main(["import", "org/model", str(tmp_path / "ours")])
    assert asked == ["org/model"]
    assert load(tmp_path / "ours")[0].num_layers == CONFIG.num_layers


def test_an_import_killed_half_way_leaves_no_checkpoint(source, tmp_path):
    """SIGKILL while the tensors stream; the same command then succeeds."""
    script = (
        "import time\n"
        "from instructgpt.models.hf import transfer\n"
        "write = transfer._write_layer\n"
        "def slow(*args, **options):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(1)\n"
        "    return write(*args, **options)\n"
        "transfer._write_layer = slow\n"
        "from instructgpt.convert import __main__ as convert\n"
        f"convert.main(['import', {str(source)!r}, {str(tmp_path / 'ours')!r}])\n"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    )
    assert process.stdout is not None
    while b"writing" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert "no checkpoint" in refusal("export", tmp_path / "ours", tmp_path / "out")
    convert.main(["import", str(source), str(tmp_path / "ours")])
    assert np.isfinite(load(tmp_path / "ours")[1]["token_embedding"]).all()


def test_a_half_written_checkpoint_is_none(source, tmp_path):
    half = tmp_path / "ours" / "checkpoints" / "0.orbax-checkpoint-tmp" / "params"
    half.mkdir(parents=True)
    message = refusal("export", tmp_path / "ours", tmp_path / "out")
    assert "holds no complete checkpoint" in message
    convert.main(["import", str(source), str(tmp_path / "ours")])
    assert load(tmp_path / "ours")[0].num_layers == CONFIG.num_layers
    assert not half.exists()
