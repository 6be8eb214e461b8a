"""Import and export of kinds of public models: rewards, GGUF, padding, chat formats."""

import json

import huggingface_hub
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from instructgpt.checkpoints import Checkpoints, open_checkpoint
from instructgpt.convert import __main__ as convert
from instructgpt.data.templates import PromptFormat
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.stages.loading import model_meta
from instructgpt.state import params_layout, scalar_params_from
from instructgpt.tokenizer import load_tokenizer
from tests import tiny
from tests.faults.valid_models import CONFIGS as WITH_TOKENS
from tests.faults.valid_models import gguf_tokens
from tests.hf_models import CONFIGS, V, params_of, public_tensors, write_folder
from tests.models.hf.gguf_writing import write_gguf
from tests.test_convert import refusal
from tests.tokenizer.samples import train_byte_level, train_pieces

CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def load(workdir):
    """(meta, params) of a checkpoint on one device."""
    checkpoints, step = open_checkpoint(workdir)
    meta = checkpoints.meta(step)
    config = ModelConfig(**meta["model"])
    model = (ScalarModel if meta["kind"] == "scalar" else Transformer)(config)
    layout = params_layout(model, tiny.mesh_of())
    params = checkpoints.restore(step, {"params": layout})[0]["params"]
    checkpoints.close()
    return meta, jax.device_get(params)


def reward_folder(folder, name, *, labels=1, **config):
    """A public reward model without a tokenizer."""
    own = CONFIGS[name]
    tensors = public_tensors(own, params_of(own))
    tensors.pop("lm_head.weight", None)
    head = np.arange(labels * own.width, dtype=np.float32).reshape(labels, -1)
    tensors["score.weight"] = head / 8
    write_folder(folder, own, tensors)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen2"])
def test_a_public_reward_model_comes_in_as_a_scalar_checkpoint(name, tmp_path):
    source = reward_folder(tmp_path / "theirs", name, score_bias=0.25)
    convert.main(["import", str(source), str(tmp_path / "ours")])
    meta, params = load(tmp_path / "ours")
    assert meta["kind"] == "scalar"
    np.testing.assert_array_equal(params["kernel"] * 8, np.arange(32))
    assert params["bias"] == np.float32(0.25)
    expected = params_of(CONFIGS[name])
    embedding = params["trunk"]["token_embedding"]
    np.testing.assert_array_equal(embedding[:V], expected["token_embedding"])
    convert.main(["export", str(tmp_path / "ours"), str(tmp_path / "out")])
    convert.main(["import", str(tmp_path / "out"), str(tmp_path / "again")])
    again = load(tmp_path / "again")
    tiny.assert_equal(again[1], params)
    assert again[0]["model"]["vocab_size"] == V


def test_a_reward_model_without_a_bias_has_none(tmp_path):
    source = reward_folder(tmp_path / "theirs", "llama")
    convert.main(["import", str(source), str(tmp_path / "ours")])
    assert load(tmp_path / "ours")[1]["bias"] == 0


@pytest.mark.parametrize("rows", [V, 128, 1000])
def test_our_reward_models_come_back_bit_for_bit(rows, tmp_path):
    config = ModelConfig(**{**vars(CONFIGS["llama"]), "padded_vocab_size": rows})
    model, mesh = ScalarModel(config), tiny.mesh_of()
    trunk = params_of(config)
    params = scalar_params_from(trunk, model, jax.random.key(1), mesh)
    params["bias"] = jax.numpy.asarray(-0.7)
    checkpoints = Checkpoints(tmp_path / "reward" / "checkpoints")
    checkpoints.save(5, {"params": params}, model_meta(model, kind="scalar"))
    checkpoints.close()
    convert.main(["export", str(tmp_path / "reward"), str(tmp_path / "out")])
    convert.main(["import", str(tmp_path / "out"), str(tmp_path / "again")])
    meta, again = load(tmp_path / "again")
    tiny.assert_equal(again, jax.device_get(params))
    sizes = meta["model"]["vocab_size"], meta["model"]["padded_vocab_size"]
    assert sizes == (V, rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(labels=2), "'score.weight' is F32[2, 32]; a reward model gives one"),
        (dict(score_bias="0"), 'config.json: score_bias is "0"; it must be a finite'),
        (dict(score_bias=float("inf")), "score_bias is Infinity"),
        (dict(score_vocab_size=V + 1), "score_vocab_size=102 is more than vocab_size"),
    ],
)
def test_reward_models_that_cannot_be_followed_are_named(changes, message, tmp_path):
    source = reward_folder(tmp_path / "theirs", "llama", **changes)
    assert message in refusal("import", source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_classifier_without_its_head_is_named(tmp_path):
    source = reward_folder(
        tmp_path / "theirs", "llama", architectures=["LlamaForSequenceClassification"]
    )
    tensors = load_file(source / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, source / "model.safetensors")
    message = refusal("import", source, tmp_path / "ours")
    assert "config.json describes a reward model, but tensor 'score.weight'" in message


def test_a_trained_head_is_used_although_config_json_ties_it(tmp_path, capsys):
    config = CONFIGS["llama tied"]
    tensors = public_tensors(config, params_of(config))
    trained = tensors["model.embed_tokens.weight"] * 2
    tensors["lm_head.weight"] = trained
    write_folder(tmp_path / "theirs", config, tensors)
    convert.main(["import", str(tmp_path / "theirs"), str(tmp_path / "ours")])
    assert "lm_head.weight is no copy of the embedding" in capsys.readouterr().out
    meta, params = load(tmp_path / "ours")
    assert not meta["model"]["tied_head"]
    np.testing.assert_array_equal(params["unembedding"][:V], trained)


def test_nothing_is_written_of_a_model_that_is_refused_half_way(tmp_path):
    config = WITH_TOKENS["qwen2"]
    tensors = public_tensors(config, params_of(config))
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.nan
    folder = write_folder(tmp_path / "theirs", config, tensors)
    train_byte_level(*CONTROLS).save(str(folder / "tokenizer.json"))
    message = refusal("import", folder, tmp_path / "ours")
    assert "'model.norm.weight' holds NaN or infinity" in message
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "changes", [{"num_hidden_layers": 2**30}, {"vocab_size": 9**9}]
)
def test_sizes_that_the_files_do_not_hold_are_named_at_once(changes, tmp_path):
    source = reward_folder(tmp_path / "theirs", "llama", **changes)
    assert "do they belong together?" in refusal("import", source, tmp_path / "ours")


def add_tokens(folder, size, *added, **settings):
    """tokenizer.json with so many tokens, and control tokens beyond."""
    pipeline = train_byte_level(*CONTROLS, vocab_size=size)
    pipeline.add_special_tokens(list(added))
    pipeline.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return pipeline


def test_padding_beyond_the_table_keeps_its_id(tmp_path):
    config = WITH_TOKENS["llama"]
    folder = tmp_path / "theirs"
    write_folder(folder, config, public_tensors(config, params_of(config)))
    more = [f"<|{i}|>" for i in range(90)]
    add_tokens(folder, 300, "<pad>", *more, pad_token="<pad>")
    convert.main(["import", str(folder), str(tmp_path / "many")])
    assert load(tmp_path / "many")[0]["model"]["padded_vocab_size"] == 512
    pipeline = add_tokens(folder, 300, "<pad>", "<|file|>", pad_token="<pad>")
    convert.main(["import", str(folder), str(tmp_path / "ours")])
    meta, _ = load(tmp_path / "ours")
    sizes = meta["model"]["vocab_size"], meta["model"]["padded_vocab_size"]
    assert sizes == (300, 384)
    assert load_tokenizer(tmp_path / "ours" / "tokenizer").pad_id == 300
    # But what text can spell must be in the table.
    pipeline.add_tokens(["<tool>"])
    pipeline.save(str(folder / "tokenizer.json"))
    message = refusal("import", folder, tmp_path / "again")
    assert "the tokenizer has 303 tokens, the model 300" in message


def gguf_file(path, *, without=(), name="llama", parts=1, **tokens):
    """A file with a byte-level tokenizer, some of whose keys are others."""
    config = WITH_TOKENS[name]
    extra = gguf_tokens("gpt2")
    extra |= {f"tokenizer.ggml.{key}": value for key, value in tokens.items()}
    for key in without:
        del extra[f"tokenizer.ggml.{key}"]
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_gguf(path, config, params_of(config), extra=extra, parts=parts)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_folder_of_one_gguf_model_is_that_model(parts, tmp_path, monkeypatch):
    path = gguf_file(tmp_path / "theirs" / "a.gguf", parts=parts)
    convert.main(["import", str(path.parent), str(tmp_path / "ours")])
    meta, params = load(tmp_path / "ours")
    assert meta["family"] == "llama"
    # Also where transformers' description lies beside it, as in many repositories.
    (path.parent / "config.json").write_text("{}")
    convert.main(["import", str(path.parent), str(tmp_path / "beside")])
    tiny.assert_equal(load(tmp_path / "beside")[1], params)
    gguf_file(path.parent / "b.gguf")
    message = refusal("import", path.parent, tmp_path / "again")
    assert f"holds several GGUF models, {path.name}, b.gguf; give the path" in message


def test_a_gguf_model_of_the_hub_is_downloaded_alone(tmp_path, monkeypatch):
    path = gguf_file(tmp_path / "hub" / "a-Q8.gguf", parts=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    names = [path.name, "a-Q8-00002-of-00002.gguf", "README.md", "old/b.gguf"]
    asked = []

    def download(name, *, allow_patterns, **options):
        asked.append([p for p in allow_patterns if "gguf" in p])
        return str(path.parent if asked[-1] else empty)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda name: names)
    monkeypatch.chdir(tmp_path)
    convert.main(["import", "org/model", str(tmp_path / "ours")])
    assert asked == [[], ["a-Q8-*-of-00002.gguf"]]
    assert load(tmp_path / "ours")[0]["kind"] == "language"
    names.append("a-F16.gguf")
    message = refusal("import", "org/model", tmp_path / "again")
    assert f"org/model: holds several GGUF models, a-F16.gguf, {path.name}" in message


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (dict(pre="brand-new"), "pre-tokenizer 'brand-new' is not supported; known"),
        (dict(pre=7), "pre-tokenizer 7 is not supported"),
        (dict(model="t5"), "tokenizer 't5' is not supported"),
    ],
)
def test_weights_come_in_without_a_tokenizer_that_is_unknown(
    tokens, message, tmp_path, capsys
):
    path = gguf_file(tmp_path / "a.gguf", **tokens)
    convert.main(["import", str(path), str(tmp_path / "ours")])
    out = capsys.readouterr().out
    assert message in out and "name one by --config.data.tokenizer" in out
    assert load(tmp_path / "ours")[0]["family"] == "llama"
    assert not (tmp_path / "ours" / "tokenizer").exists()


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_a_file_that_does_not_tell_how_text_is_cut_says_so(name, tmp_path, capsys):
    path = gguf_file(tmp_path / "a.gguf", name=name, without=["pre"])
    convert.main(["import", str(path), str(tmp_path / "ours")])
    assert f"{path} does not tell how text is cut (no tokenizer.ggml.pre)" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (dict(eos_token_id=300), "tokenizer.ggml.eos_token_id=300 is none of 300"),
        (dict(bos_token_id="1"), "tokenizer.ggml.bos_token_id='1' is none of 300"),
        (dict(padding_token_id=-(2**31)), "padding_token_id=-2147483648 is none of"),
        (dict(tokens=["a", "b"]), "the tokenizer's parts differ in length"),
        (dict(merges="a b"), "tokenizer.ggml.merges is no list"),
        (dict(add_bos_token="false"), "add_bos_token='false' is neither true nor"),
        (dict(token_type=[9.5] * 300), "tokenizer.ggml.token_type holds 9.5"),
        (dict(tokens=[1] * 300), "tokenizer.ggml.tokens holds 1; down"),
    ],
)
def test_damaged_tokenizers_of_gguf_files_are_named(tokens, message, tmp_path):
    path = gguf_file(tmp_path / "a.gguf", **tokens)
    assert message in refusal("import", path, tmp_path / "ours")


def stage_workdir(folder, template, *, stage="sft", **settings):
    """A finished stage's workdir with a byte-level tokenizer."""
    config = WITH_TOKENS["llama"]
    data = folder / "data"
    data.mkdir(parents=True)
    add_tokens(data, 300, **settings)
    checkpoints = Checkpoints(folder / "checkpoints")
    meta = model_meta(Transformer(config), kind="language")
    checkpoints.save(1, {"params": params_of(config)}, meta)
    checkpoints.close()
    values = {"tokenizer": str(data), "jsonl": "", "template": template}
    described = {"name": stage, "data": values}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def rendered(folder, messages, **options):
    """Ids that transformers makes of a conversation."""
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, return_dict=False, **options)


@pytest.mark.filterwarnings("ignore")  # those of other people's libraries
@pytest.mark.parametrize("template", ["chatml", "plain", "dialogue"])
@pytest.mark.parametrize("eos", ["<|endoftext|>", "<|im_end|>"])
@pytest.mark.parametrize("add_bos", [True, False])
def test_the_exported_chat_template_is_that_of_training(
    template, eos, add_bos, tmp_path
):
    workdir = stage_workdir(
        tmp_path / "sft",
        template,
        eos_token=eos,
        bos_token="<|im_start|>",
        add_bos_token=add_bos,
    )
    convert.main(["export", str(workdir), str(tmp_path / "out")])
    tokenizer = load_tokenizer(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    end = "<|im_end|>" if template == "chatml" else eos
    assert written["eos_token_id"] == tokenizer.eos_id == tokenizer.control_id(end)
    ours = PromptFormat(tokenizer, template)
    turns = ["what is a cat?", "an animal", "and a dog?"]
    messages = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant", "user"), turns, strict=True)
    ]
    record = {"history": turns[:2], "prompt": turns[2]}
    ids = rendered(tmp_path / "out", messages, add_generation_prompt=True)
    assert ids == ours.prompt_ids(record)
    # What an answer ends in is what the program stops at.
    whole = rendered(tmp_path / "out", messages[:2])
    assert whole == [
        *ours.prompt_ids({"prompt": turns[0]}),
        *ours.response_ids(turns[1]),
    ]
    assert whole[-1] == written["eos_token_id"]


@pytest.mark.parametrize(
    ("template", "eos", "kept"),
    [
        ("chatml", "<|im_end|>", True),
        ("chatml", "<|endoftext|>", False),
        ("plain", "<|im_end|>", False),
    ],
)
def test_a_chat_template_is_kept_where_turns_and_answers_end_alike(
    template, eos, kept, tmp_path
):
    own = "{{ messages }}"
    workdir = stage_workdir(
        tmp_path / "sft", template, eos_token=eos, chat_template=own
    )
    convert.main(["export", str(workdir), str(tmp_path / "out")])
    path = tmp_path / "out" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    assert (settings["chat_template"] == own) is kept
    assert kept or "{{ eos_token }}" in settings["chat_template"]


def test_a_pretrained_model_has_no_chat_template(tmp_path):
    workdir = stage_workdir(
        tmp_path / "base", "plain", stage="pretrain", eos_token="<|endoftext|>"
    )
    convert.main(["export", str(workdir), str(tmp_path / "out")])
    assert "chat_template" not in (
        (tmp_path / "out" / "tokenizer_config.json").read_text()
    )


def test_pieces_with_a_chat_template_come_back(tmp_path):
    """Exported settings beside a model of pieces change nothing when read again."""
    workdir = stage_workdir(tmp_path / "sft", "plain")
    data = tmp_path / "sft" / "data"
    for path in data.iterdir():
        path.unlink()
    (data / "tokenizer.model").write_bytes(
        train_pieces(model_type="bpe", vocab_size=320, byte_fallback=True, pad_id=3)
    )
    before = load_tokenizer(data)
    convert.main(["export", str(workdir), str(tmp_path / "out")])
    after = load_tokenizer(tmp_path / "out")
    for name in ("eos_id", "bos_id", "pad_id", "start_ids", "vocab_size"):
        assert getattr(after, name) == getattr(before, name), name
    assert after.encode("the cat") == before.encode("the cat")
