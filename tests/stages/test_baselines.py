"""Best-of-n, the choice of a prefix, and SFT on tasks, with untrained models."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import best_of as best_of_config
from configs import flan as flan_config
from configs import prefix as prefix_config
from configs import recipe as recipe_config
from instructgpt.errors import UserError
from instructgpt.evals.best_of import best_of_rows
from instructgpt.identity import is_finished
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.stages import best_of, common, compared, prefix, sft
from tests.stages.untrained import on_one_device, save_models

ANSWERS = "answers"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tree of stages: models, and data once a stage has made them."""
    return save_models(tmp_path_factory.mktemp("stages"))


def load(path: Path):
    return json.loads(path.read_text())


def small_best_of():
    config = on_one_device(best_of_config.get_config("smoke"))
    config.best_of.update(num_prompts=6, num_answers=4, batch_size=2)
    return config


@pytest.fixture(scope="module")
def finished(folder):
    """A best-of-n stage with another policy, at its end."""
    config = small_best_of()
    config.best_of.policies = "gpt=../pretrain,same=../sft"
    best_of.run(config, folder / "best_of")
    return folder / "best_of"


def test_best_of_n_of_a_policy(finished, folder):
    results = load(finished / "results.json")
    rows = load(finished / "samples" / "answers.json")
    assert len(rows) == 6 and {len(row["responses"]) for row in rows} == {4}
    given = {k: np.array([r[k] for r in rows]) for k in ("rm_score", "likert")}
    assert results["best_of"] == best_of_rows(given)
    text = dict(template="plain", max_prompt=40, max_response=24)
    (tokenizer,) = (folder / "data").glob("*/tokenizer-*.model")
    reward = RewardModel.open(folder / "reward", tokenizer=str(tokenizer), **text)
    again = reward.score([rows[5]["prompt"]] * 4, rows[5]["responses"])
    np.testing.assert_allclose(again, rows[5]["rm_score"], atol=1e-4)
    assert (finished / "best_of.png").read_bytes()[1:4] == b"PNG"
    assert is_finished(finished) and not (finished / ANSWERS).exists()


def test_other_policies_are_points_with_their_kl(finished):
    points = load(finished / "results.json")["points"]
    assert points["same"]["kl"] == pytest.approx(0, abs=1e-4)
    assert points["gpt"]["kl"] > 1  # another model altogether
    low, high = points["gpt"].pop("kl_interval")[1:]
    assert low < points["gpt"]["kl"] < high
    assert set(points["gpt"]) == {"label", "kl", "rm_score", "likert"}


def test_a_stopped_best_of_n_goes_on_with_the_same_bits(finished, folder, monkeypatch):
    class StopError(Exception):
        pass

    asked = []
    score = RewardModel.score

    def stop_at_third(self, *args, **how):
        asked.append(len(args[0]))
        if len(asked) == 3:
            raise StopError
        return score(self, *args, **how)

    config = small_best_of()
    config.best_of.policies = "gpt=../pretrain,same=../sft"
    monkeypatch.setattr(RewardModel, "score", stop_at_third)
    with pytest.raises(StopError):
        best_of.run(config, folder / "again")
    generate = LanguageModel._answers

    def no_more(self, asked, sampling, *args, **how):
        assert sampling.num_samples == 1, "the answers were sampled once more"
        return generate(self, asked, sampling, *args, **how)

    monkeypatch.setattr(LanguageModel, "_answers", no_more)
    best_of.run(config, folder / "again")
    assert asked[:4] == [8, 8, 8, 8]  # three batches of two prompts, one of them twice
    assert load(folder / "again" / "results.json") == load(finished / "results.json")


def test_best_of_n_without_a_world_has_no_gold_mark(finished, folder, tmp_path):
    own = tmp_path / "records"
    own.mkdir()
    rows = [{"prompt": f"Who lives in house {n}?"} for n in range(4)]
    (own / "prompts.valid.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tokenizer,) = (folder / "data").glob("*/tokenizer-*.model")
    shutil.copy(tokenizer, own / "tokenizer.model")
    config = small_best_of()
    config.data.update(jsonl=str(own), dir=str(tmp_path / "sets"))
    results = best_of.run(config, folder / "own")
    assert set(results["best_of"][0]) == {"n", "kl", "rm_score"}
    # Nor has it examples to choose among.
    config = small_prefix()
    config.data.update(jsonl=str(own), dir=str(tmp_path / "sets"))
    assert prefix.run(config, folder / "own_prefix")["candidates"] == []
    entry = compared.ModelEntry("x", config.init, prompted=True, prefix="../own_prefix")
    context = common.start(config, folder / "own_prefix", reading=True)
    assert compared.examples_of(entry, context) is None


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"best_of.temperature": 0.7, "best_of.policies": "a=../sft"},
            "temperature=0.7",
        ),
        ({"best_of.policies": "=../sft"}, "LABEL=WORKDIR"),
        ({"best_of.policies": "a=../nowhere"}, r"config\.best_of\.policies: a"),
        ({"reward_init.path": "../sft"}, "reward_init.*language.*scalar"),
        ({"init.path": "../nowhere"}, r"config\.init"),
        ({"best_of.num_answers": 1}, r"config\.best_of\.num_answers=1"),
        ({"best_of.num_prompts": 1}, "num_prompts: one prompt has no interval"),
    ],
)
def test_mistakes_in_best_of_n_are_named_before_it_samples(
    folder, tmp_path, changes, match, monkeypatch
):
    config = small_best_of()
    config.update_from_flattened_dict(changes)
    config.data.dir = str(folder / "data")
    for key in ("init", "reward_init"):
        config[key].path = str(folder / config[key].path.removeprefix("../"))
    monkeypatch.setattr(LanguageModel, "generate", None)
    with pytest.raises(UserError, match=match):
        best_of.run(config, tmp_path / "best_of")


PREFIXES = """\
Q: Who lives here?
A: Dela lives here.

Q: {prompt}
A:
---
Question: {prompt}
Answer:
"""


def small_prefix():
    config = on_one_device(prefix_config.get_config("smoke"))
    config.prefix.update(num_prompts=4, batch_size=4)
    return config


def test_the_prefix_with_the_best_answers_is_chosen(folder):
    config = small_prefix()
    found = prefix.run(config, folder / "prefix")
    none, *candidates = found["candidates"]
    assert none["template"] == "" and not none["chosen"] and len(candidates) == 2
    first, second = (row["template"] for row in candidates)
    assert first != second and first.endswith("Q: {prompt}\nA:")
    best = max(candidates, key=lambda row: row["rm_score"][0])
    assert found["template"] == best["template"] and best["chosen"]
    for number, row in enumerate(found["candidates"]):
        scores = [
            r["rm_score"] for r in load(folder / "prefix" / f"samples/{number}.json")
        ]
        assert row["rm_score"][0] == pytest.approx(np.mean(scores))
    entry = compared.ModelEntry("x", config.init, prompted=True, prefix="../prefix")
    context = common.start(config, folder / "prefix", reading=True)
    wrap = compared.examples_of(entry, context)
    assert wrap("Who {x} is?") == best["template"].replace("{prompt}", "Who {x} is?")


def test_prefixes_of_a_file(folder, tmp_path):
    path = tmp_path / "prefixes.txt"
    path.write_text(PREFIXES + "---\n" + "word " * 150 + "{prompt}\n")
    config = small_prefix()
    config.prefix.file = str(path)
    found = prefix.run(config, folder / "of_a_file")
    names = [row["name"] for row in found["candidates"]]
    assert names == ["no prefix", "line 1", "line 7"]  # the third is too long
    assert found["candidates"][2]["template"] == "Question: {prompt}\nAnswer:"
    path.write_text(PREFIXES.replace("Who", "What"))
    with pytest.raises(UserError, match=r"config\.prefix\.file"):
        prefix.run(config, folder / "of_a_file")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (PREFIXES + "---\nQ: \nA:\n", r"prefixes\.txt:10: .*\{prompt\} 0 times"),
        ("{prompt} {prompt}", r"prefixes\.txt:1: .*\{prompt\} 2 times"),
        ("word " * 150 + "{prompt}", "no prefix fits the model's context"),
        (b"\xff\xfe", r"config\.prefix\.file: .*cannot be read as text"),
    ],
)
def test_prefixes_that_cannot_be_used_are_named(folder, tmp_path, text, match):
    path = tmp_path / "prefixes.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    config = small_prefix()
    config.prefix.file = str(path)
    config.data.dir = str(folder / "data")
    for key in ("init", "reward_init"):
        config[key].path = str(folder / config[key].path.removeprefix("../"))
    with pytest.raises(UserError, match=match):
        prefix.run(config, tmp_path / "prefix")


def small_flan():
    config = on_one_device(flan_config.get_config("smoke"))
    config.data.demonstrations = (200, 48, 0)
    config.train.update(batch_size=4, num_epochs=1, log_every=1)
    return config


def test_the_baseline_learns_tasks_alone(folder, monkeypatch):
    seen = []

    def record(context, source, *args, **how):
        seen.append(list(source))
        return short_rows(context, source, *args, **how)

    short_rows = sft.short_rows
    monkeypatch.setattr(sft, "short_rows", record)
    config = small_flan()
    sft.run(config, folder / "flan")
    train, valid = seen
    for rows in (train, valid):
        assert {row["category"] for row in rows} <= set(config.sft.categories)
        assert {row["style"] for row in rows} <= set(config.sft.styles)
    assert 4 <= len(train) <= 40 and valid


@pytest.mark.parametrize("key", ["categories", "styles"])
def test_tasks_that_the_data_do_not_have_are_named(folder, tmp_path, key):
    config = small_flan()
    config.sft[key] = ("poems",)
    config.data.dir = str(folder / "data")
    config.init.path = str(folder / "pretrain")
    with pytest.raises(UserError, match=rf"sft\.{key}=\('poems',\).*there are '.*'"):
        sft.run(config, tmp_path / "flan")


def test_one_word_adds_the_baseline_to_a_recipe():
    plain, added = map(recipe_config.get_config, ("smoke", "smoke+flan"))
    assert set(added.order) - set(plain.order) == {"flan", "flan_select"}
    order = added.order
    assert order.index("reward") < order.index("flan") < order.index("flan_select")
    assert "flan" not in plain.stages.evaluate.models
    model = added.stages.evaluate.models.flan
    assert (model.init.path, model.init.selected_by) == ("../flan", "../flan_select")
    assert added.stages.flan_select.select.candidates == "../flan"
    with pytest.raises(ValueError, match="'t5' cannot be added; known: 'flan'"):
        recipe_config.get_config("smoke+t5")


def test_the_paper_s_baseline():
    config = flan_config.get_config("175b")
    assert config.optimizer.learning_rate == 4e-6
    assert config.optimizer.schedule == "cosine" and config.train.num_epochs == 1
    assert config.train.batch_size == 64
    examples = config.train.checkpoint_every * config.train.batch_size
    assert 896_000 % examples == 0
