"""A public model in, the stages of `recipe.py:smollm2` on one's own records, and out.

The model is a tiny Llama; everything else is what a user would have: a folder of
safetensors with a byte-level tokenizer, and JSONL files.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import recipe as recipe_config
from instructgpt.checkpoints import open_checkpoint
from instructgpt.convert.exporting import export_checkpoint
from instructgpt.convert.importing import import_checkpoint
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import Transformer
from instructgpt.stages import ppo, recipe
from instructgpt.state import params_layout
from tests import hf_models, tiny
from tests.stages.recipe_run import MESH

PROMPT, RESPONSE = 48, 24
TOWNS = "Arlen Brigg Corvo Dunmore Elswick Farsley Gorton Hebden".split()


def write_records(folder: Path) -> None:
    """A few of each kind; rankings of 2 to 4 answers, with ties, some in a dialogue."""
    folder.mkdir()
    lines: dict[str, list[dict]] = {}
    for n in range(40):
        town = TOWNS[n % len(TOWNS)]
        split = "valid" if n % 4 == 0 else "train"
        asked = {"prompt": f"Where is {town} {n}?"}
        if n % 3 == 0:
            asked["history"] = ["Hello.", "Good day!"]
        ranks = [[1, 2], [1, 2, 2], [2, 1, 3, 4]][n % 3]
        answers = [f"{town} {'is far ' * k}off." for k in range(len(ranks))]
        for kind, record in {
            "documents": {"text": f"{town} lies {n} miles from here. " * 12},
            "demonstrations": {**asked, "response": f"{town} is near."},
            "prompts": asked,
            "comparisons": {**asked, "responses": answers, "ranks": ranks},
        }.items():
            lines.setdefault(f"{kind}.{split}", []).append(record)
    for name, records in lines.items():
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{name}.jsonl").write_text(text)


def get_config() -> ConfigDict:
    """The variant for SmolLM2, cut down to seconds on eight small devices."""
    config = recipe_config.get_config("smollm2")
    for name in config.order:
        stage = config.stages[name]
        stage.mesh = MESH
        stage.data.update(max_prompt=PROMPT, max_response=RESPONSE)
        if "model" in stage:
            stage.model.update(compute_dtype="float32", remat="none")
        if "train" in stage:
            stage.train.update(batch_size=8, log_every=1)
    for name in ("sft", "rl_init"):
        config.stages[name].train.num_epochs = 1
        config.stages[name].sft.pack_length = 0
        config.stages[name].sft.num_samples = 2
    config.stages.rl_init.sft.pretrain_fraction = 0.25
    config.stages.reward.reward.max_responses = 4
    config.stages.select.select.batch_size = 8
    ppo = config.stages.ppo_ptx
    ppo.train.update(num_steps=2, eval_every=0)
    ppo.rollout.update(minibatch_size=8, ptx_length=PROMPT + RESPONSE)
    ppo.ppo.microbatches = 1
    ppo.policy_optimizer.warmup_steps = ppo.value_optimizer.warmup_steps = 1
    return config


def saved(workdir: Path, part: str):
    """(config, one part of the newest checkpoint)."""
    checkpoints, step = open_checkpoint(workdir)
    config = ModelConfig(**checkpoints.meta(step)["model"])
    layout = params_layout(Transformer(config), tiny.mesh_of(**MESH))
    params = checkpoints.restore(step, {part: layout})[0][part]
    checkpoints.close()
    return config, params


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run, from a public folder to public folders."""
    root = tmp_path_factory.mktemp("public_recipe")
    theirs, workdir = root / "theirs", root / "run"
    hf_models.write_chat_model(theirs)
    import_checkpoint(str(theirs), workdir / "base")
    write_records(workdir / "records")
    recipe.run(get_config(), workdir)
    export_checkpoint(workdir / "reward", workdir / "export" / "reward")
    export_checkpoint(workdir / "ppo_ptx", workdir / "export" / "policy", part="ema")
    return workdir


def test_every_stage_moves_the_weights(workdir):
    base = saved(workdir / "base", "params")[1]
    after = {name: saved(workdir / name, "params")[1] for name in ("sft", "rl_init")}
    after["ema"] = saved(workdir / "ppo_ptx", "ema")[1]
    assert all(tiny.distance(base, params) > 0 for params in after.values())
    assert tiny.distance(after["rl_init"], after["ema"]) > 0
    chosen = json.loads((workdir / "select" / "selected.json").read_text())
    assert chosen["step"] > 0


def test_the_exported_policy_is_the_averaged_one(workdir):
    import_checkpoint(str(workdir / "export" / "policy"), workdir / "again")
    config, params = saved(workdir / "ppo_ptx", "ema")
    again, back = saved(workdir / "again", "params")
    tokens = np.arange(60, dtype=np.int32).reshape(3, 20)
    known = np.s_[..., : config.vocab_size]
    np.testing.assert_array_equal(
        hf_models.logits_of(again, back, tokens)[known],
        hf_models.logits_of(config, params, tokens)[known],
    )


def test_another_tokenizer_is_not_exported_with_the_policy(workdir, tmp_path):
    """It lies where the run's lay, with other pieces."""
    path = workdir / "base" / "tokenizer" / "tokenizer.json"
    whole = path.read_text()
    tokenizer = json.loads(whole)
    tokenizer["model"]["merges"].pop()
    path.write_text(json.dumps(tokenizer))
    try:
        with pytest.raises(UserError, match="is another tokenizer than the one that"):
            export_checkpoint(workdir / "ppo_ptx", tmp_path / "out", part="ema")
    finally:
        path.write_text(whole)
    assert not (tmp_path / "out").exists()


def test_the_exported_reward_model_is_a_classifier_with_one_label(workdir):
    from safetensors.numpy import load_file

    folder = workdir / "export" / "reward"
    described = json.loads((folder / "config.json").read_text())
    assert described["architectures"] == ["LlamaForSequenceClassification"]
    assert described["id2label"] == {"0": "score"}
    weights = load_file(folder / "model.safetensors")
    assert weights["score.weight"].shape == (1, described["hidden_size"])
    assert (folder / "tokenizer.json").exists()


def test_another_library_loads_both(workdir):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = np.arange(60, dtype=np.int32).reshape(3, 20)
    rows = torch.from_numpy(tokens).long()
    config, params = saved(workdir / "ppo_ptx", "ema")
    policy = transformers.AutoModelForCausalLM.from_pretrained(
        workdir / "export" / "policy"
    )
    with torch.no_grad():
        theirs = policy.eval().double()(rows).logits.numpy()
    ours = hf_models.logits_of(config, params, tokens)
    np.testing.assert_allclose(theirs, ours[..., : config.vocab_size], atol=2e-4)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(
        workdir / "export" / "reward"
    )
    assert classifier.config.num_labels == 1
    # Its padding has a row, since a classifier looks for the last real token.
    assert classifier.config.pad_token_id == config.vocab_size


def test_an_imported_reward_model_rewards_as_the_one_that_was_exported(workdir):
    import_checkpoint(str(workdir / "export" / "reward"), workdir / "reward again")
    described = json.loads((workdir / "ppo_ptx" / "config.json").read_text())
    config = ConfigDict(described)
    config.reward_init.path = "../reward again"
    ppo.run(config, workdir / "ppo again")
    expected, params = (
        saved(workdir / n, "params")[1] for n in ("ppo_ptx", "ppo again")
    )
    tiny.assert_equal(params, expected)
