"""Evaluators and judges that a config names, and comparisons without a world."""

import json
import shutil
import textwrap
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.evals.judgements import Judgement
from instructgpt.evals.preference import summarise
from instructgpt.evals.report.tables import format_results_table
from instructgpt.evals.report.writing import load_results
from instructgpt.identity import BEGUN
from instructgpt.inference import language_model
from instructgpt.stages import evaluate, label, ppo, recipe
from tests.stages.recipe_run import Finished, finished, get_config, link_stages

MINE = '''
    """A judge and an evaluator that nobody else has."""

    import numpy as np

    from instructgpt.evals.interface import Results
    from instructgpt.evals.judgements import Judgement


    class Brief:
        """Prefers the shorter of two answers."""

        def __init__(self, factor):
            self.factor = factor

        def judge(self, records, responses):
            assert set(responses) == {"gpt", "sft"}
            return [
                Judgement(record["id"], name, score=-self.factor * len(text.split()))
                for name, texts in responses.items()
                for record, text in zip(records, texts)
            ]


    class Capitals:
        """How probable a model finds a word after a prompt."""

        def __init__(self, setting, word):
            self.setting, self.word = setting, word

        @classmethod
        def open(cls, setting, word="The"):
            return cls(setting, word)

        def run(self, model, records):
            pairs = [(record, self.word) for record in records[:4]]
            found = model.log_likelihood(pairs)
            rows = [{"log_prob": value.log_prob} for value in found]
            mean = sum(row["log_prob"] for row in rows) / len(rows)
            return Results({"log_prob": mean, "prompts": len(records)}, rows)


    class Forgetful:
        def judge(self, records, responses):
            return {}


    class Careless:
        """Names a model that is not there, the first time."""

        asked = 0

        def judge(self, records, responses):
            Careless.asked += 1
            number = np.float32(0.5)  # as np.mean gives it
            names = responses if Careless.asked > 1 else ["flan"]
            return [Judgement(r["id"], n, score=number) for n in names for r in records]


    class Solo:
        def judge(self, records):
            return {}


    class Sloppy:
        def run(self, model, records):
            return {"score": 1.0}


    def parrot(texts):
        return list(texts)


    def fails(texts):
        raise KeyError("no key")
'''


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture
def workdir(run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new one beside finished stages, and a module of one's own in a folder."""
    (tmp_path / "elsewhere").mkdir()
    module = tmp_path / "elsewhere" / "my_judges.py"
    module.write_text(textwrap.dedent(MINE))
    monkeypatch.syspath_prepend(module.parent)
    link_stages(run, tmp_path / "recipe")
    return tmp_path / "recipe" / "again"


def small_config() -> ConfigDict:
    """Two models on eight prompts."""
    config = get_config().stages.evaluate
    config.models = {name: config.models[name] for name in ("gpt", "sft")}
    config.evaluate.update(num_prompts=8, gpt_prompts=0, comparisons="")
    return config


def test_a_judge_and_an_evaluator_of_ones_own(workdir):
    config = small_config()
    config.judges.brief = dict(name="my_judges:Brief", factor=1)
    config.evaluators.capitals = dict(name="my_judges:Capitals", word="Dela")
    results = evaluate.run(config, workdir)
    judged = results["judges"]["brief"]
    assert set(judged) == {"gpt", "sft"}
    value, low, high = judged["gpt"]["win_rate"]
    assert 0 <= low <= value <= high <= 1
    words = results["models"]["sft"]["words"]
    assert judged["sft"]["score"][0] == -words[0]
    measured = results["evaluators"]["capitals"]
    assert set(measured) == {"gpt", "sft", "rl_init"}
    assert measured["sft"]["log_prob"] < 0
    assert measured["sft"]["prompts"] == 8
    # What is built in stands where it always did.
    assert {"win_rate", "likert", "mean_score", "score_win_rate"} <= set(
        results["models"]["gpt"]
    )
    assert set(results["pretrain_loss"]) == {"gpt", "sft", "rl_init"}
    samples = workdir / "samples"
    (row, *_) = rows = json.loads((samples / "gpt.json").read_text())
    words = len(row["response"].split())
    assert row["brief"] == {"rating": -words, "score": -words}
    assert row["gold"].keys() == {"rating", "likert", "score", "flags"}
    # Every number can be traced to the judgements.
    lines = (workdir / "judgements" / "brief.jsonl").read_text().splitlines()
    found = [Judgement(**json.loads(line)) for line in lines]
    again = summarise(found, records_of(workdir), answers_of(workdir), baseline="sft")
    assert list(again.models["gpt"].numbers["win_rate"]) == judged["gpt"]["win_rate"]
    groups = results["groups"]["labelers"]["labelers"]
    assert set(groups) == {"training", "heldout"} and set(groups["heldout"]) == {"gpt"}
    assert {"gold, brief", "labelers: training"} <= set(results["agreement"])
    assert results["judged_by"] == "gold"
    assert len(rows) == 8
    assert len(json.loads((samples / "capitals.rl_init.json").read_text())) == 4
    table = format_results_table(load_results(workdir / "results.json"))
    for line in ("Brief", "Win rate", "Score", "Capitals", "Log prob", "Agreement"):
        assert any(row.startswith(line) for row in table.splitlines()), line
    page = (workdir / "report.html").read_text()
    for heading in ("Brief", "Capitals"):
        assert f"<h2>{heading}</h2>" in page
    assert f"<td>{value:.2f} [{low:.2f}, {high:.2f}]</td>" in page
    assert not (workdir / "answers").exists()


@pytest.mark.parametrize(
    ("block", "entry", "says"),
    [
        ("judges", {"name": "golden"}, "config.judges.x.name='golden': give one of ["),
        ("judges", {"name": "no_such:Thing"}, "x.name='no_such:Thing': No module"),
        ("judges", {"name": "my_judges:Thing"}, "has no attribute 'Thing'"),
        ("judges", {"name": "my_judges:Capitals"}, "the class has no method 'judge'"),
        ("judges", {"name": "my_judges:Brief"}, "config.judges.x: my_judges:Brief: mi"),
        (
            "judges",
            {"name": "gold", "strict": 1},
            "got an unexpected keyword",
        ),
        ("judges", {}, "config.judges.x.name='': give one of ['chat', 'gold', 'labele"),
        ("judges", {"name": "my_judges:Forgetful"}, "x: its judge() gives dict, not a"),
        (
            "judges",
            {"name": "labelers", "number": 9},
            "number=9 labelers of each gro",
        ),
        ("judges", {"name": "people"}, "name the file of people's judgements, path="),
        ("judges", {"name": "chat", "address": "http://x"}, "missing a required argu"),
        (
            "judges",
            {"name": "chat", "address": "http://x", "model": "m", "workers": "8"},
            "workers='8'; give a whole number",
        ),
        (
            "judges",
            {"name": "chat", "address": "http://x:y", "model": "m"},
            "address='http://x:y'; give one such as",
        ),
        ("judges", {"name": "my_judges:Solo"}, "it is called with (self, records, re"),
        (
            "evaluators",
            {"name": "my_judges:Sloppy"},
            "x: its run() gives dict, not",
        ),
    ],
)
def test_what_cannot_judge_is_named(workdir, block, entry, says):
    config = small_config()
    config[block].x = entry
    with pytest.raises(UserError) as error:
        evaluate.run(config, workdir)
    message = str(error.value)
    assert says in message and "\n" not in message
    # The config may be corrected.
    assert {path.name for path in workdir.iterdir()} <= BEGUN


def test_a_judges_mistake_leaves_the_answers(workdir, monkeypatch):
    config = small_config()
    # It comes before "gold" in the alphabet, but the report's ratings are gold's.
    config.judges.careless = dict(name="my_judges:Careless")
    with pytest.raises(UserError, match="judgement 0: unknown model 'flan'"):
        evaluate.run(config, workdir)
    assert list((workdir / "answers").rglob("*.json"))

    def asked(*args, **kwargs):
        raise AssertionError("no model is asked again")

    monkeypatch.setattr(language_model, "generate", asked)
    results = evaluate.run(config, workdir)
    assert results["judges"]["careless"]["sft"]["score"] == [0.5, 0.5, 0.5]
    assert results["rated_by"] == "gold"
    assert not (workdir / "answers").exists()


def test_names_are_looked_up_before_a_recipe_begins(workdir, tmp_path):
    for block, key, entry, says in [
        ("evaluate", "judges", dict(x=dict(name="my_judges:Nobody")), "e.judges.x"),
        ("evaluate", "evaluators", dict(x=dict(name="nobody")), "e.evaluators.x"),
        ("ppo", "reward_function", dict(name="my_judges:Nobody"), "reward_function.na"),
        ("ppo", "reward_function", dict(name="my_judges:Brief"), "is called with (rec"),
    ]:
        config = get_config()
        config.stages[block][key].update(entry)
        with pytest.raises(UserError) as error:
            recipe.run(config, tmp_path / "none")
        assert says in str(error.value)
        assert not (tmp_path / "none" / "pretrain").exists()


@pytest.mark.parametrize("stage", ["ppo", "evaluate"])
def test_a_part_that_a_checkpoint_lacks_is_named_before_any_work(run, workdir, stage):
    config = get_config().stages[stage]
    module = {"ppo": ppo, "evaluate": evaluate}[stage]
    config.data.dir = str(run.workdir / "data")
    init = config.init if stage == "ppo" else config.models.ppo_ptx.init
    init.part = "emma"
    where = {"ppo": "config.init", "evaluate": "config.models.ppo_ptx.init"}[stage]
    with pytest.raises(UserError, match=rf"{where}: .* has no part 'emma'; give one"):
        module.run(config, workdir)


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def records_of(workdir: Path) -> list[dict]:
    """The compared prompts, by the file that people read."""
    rows = lines_of(workdir / "answers.jsonl")
    return [row for row in rows if row["model"] == "sft"]


def answers_of(workdir: Path) -> dict[str, list[str]]:
    answers: dict[str, list[str]] = {}
    for row in lines_of(workdir / "answers.jsonl"):
        answers.setdefault(row["model"], []).append(row["response"])
    return answers


def test_people_judge_the_answers_between_two_starts(own_data, workdir, tmp_path):
    """They may be any models, and a function, without a reward model or a world."""
    config = small_config()
    config.data.update(jsonl=str(own_data), dir=str(tmp_path / "sets"))
    config.judges = dict(reward=dict(name="reward", own_policies=True))
    stages = workdir.parent
    config.evaluate.models = (
        f"ours={stages / 'ppo'},base={stages / 'pretrain'},parrot=my_judges:parrot"
    )
    config.evaluate.update(baseline="base", reward="../none", num_prompts=0)
    with pytest.raises(UserError, match="nothing judges the answers; name a reward"):
        evaluate.run(config, workdir)
    config.evaluate.people = str(tmp_path / "people.jsonl")
    with pytest.raises(UserError, match=r"not found\. answers\.jsonl in this workdir"):
        evaluate.run(config, workdir)
    rows = lines_of(workdir / "answers.jsonl")
    assert {row["model"] for row in rows} == {"ours", "base", "parrot"}
    assert all(r["response"] == r["prompt"] for r in rows if r["model"] == "parrot")
    given = [
        {"id": row["id"], "model": row["model"], "rank": 1 + (row["model"] == "base")}
        | {"response": row["response"], "labeler": who, "group": group}
        for row in rows
        for who, group in (("ann", "training"), ("bob", "heldout"))
    ]
    write_lines(tmp_path / "people.jsonl", [given[0] | {"response": "another"}])
    with pytest.raises(UserError, match=r"people\.jsonl:1: `response` is another"):
        evaluate.run(config, workdir)
    write_lines(tmp_path / "people.jsonl", given)
    results = evaluate.run(config, workdir)
    assert results["judged_by"] == "people"
    assert results["models"]["parrot"]["win_rate"][0] == 1
    assert results["models"]["base"]["win_rate"] == [0.5] * 3
    assert results["agreement"] == {}  # no two labelers of one group
    assert "reward_model" not in results
    page = (workdir / "report.html").read_text()
    assert "Judged by people on" in page and "Preference over base" in page
    assert "gold" not in page and "SFT" not in page
    write_lines(tmp_path / "people.jsonl", given[2:])
    with pytest.raises(UserError, match=r"config\.evaluate\.people: its file has chan"):
        evaluate.run(config, workdir)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"chat": "judge"}, "evaluate.chat='judge': give MODEL@ADDRESS"),
        ({"chat": "m@http://here:abc/v1"}, "give MODEL@ADDRESS"),
        ({"models": "a=my_judges:parrot,../b=my_judges:parrot"}, "without a slash"),
        ({"models": "sft=my_judges:fails", "gpt_prompts": 0}, "KeyError: 'no key'"),
    ],
)
def test_a_mistake_in_what_is_compared_is_one_line(workdir, keys, says):
    config = small_config()
    del config.judges.reward
    config.evaluate.update(keys)
    with pytest.raises(UserError) as error:
        evaluate.run(config, workdir)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_reward_model_does_not_judge_its_own_policies_unasked(workdir):
    config = get_config().stages.evaluate
    config.judges = dict(reward=dict(name="reward"))
    with pytest.raises(UserError, match=r"would judge ppo, ppo_ptx, trained to raise"):
        evaluate.run(config, workdir)
    assert {path.name for path in workdir.iterdir()} <= BEGUN


def write_lines(path: Path, records) -> None:
    path.write_text("".join(json.dumps(dict(record)) + "\n" for record in records))


@pytest.fixture
def own_data(run: Finished, tmp_path: Path) -> Path:
    """Prompts and rankings of one's own, no documents."""
    folder = tmp_path / "mine"
    folder.mkdir()
    prompts = [{"prompt": f"Who lives in house {n}?"} for n in range(9)]
    for split in ("train", "valid", "test"):
        write_lines(folder / f"prompts.{split}.jsonl", prompts)
    ranked = (run.workdir / "label" / "comparisons.valid.jsonl").read_text()
    (folder / "comparisons.test.jsonl").write_text(ranked)
    (tokenizer,) = (run.workdir / "data").glob("*/tokenizer-*.model")
    shutil.copy(tokenizer, folder / "tokenizer.model")
    return folder


def test_models_are_compared_on_data_of_ones_own(own_data, workdir, tmp_path, capsys):
    """By the reward model alone: no gold judge, no documents, no solved examples."""
    config = small_config()
    config.models.gpt_prompted = get_config().stages.evaluate.models.gpt_prompted
    config.models.gpt_prompted.prefix = ""
    config.data.update(jsonl=str(own_data), dir=str(tmp_path / "sets"))
    with pytest.raises(UserError, match="only the miniature world has a gold judge"):
        evaluate.run(config, workdir)
    config.judges = dict(reward=dict(name="reward"))  # of models that never saw it
    results = evaluate.run(config, workdir)
    said = capsys.readouterr().out
    assert "gpt_prompted is left out" in said
    assert "the data have no test documents" in said
    assert set(results["models"]) == {"gpt", "sft"}
    assert set(results["models"]["gpt"]) == {
        *("label", "mean_score", "score_win_rate", "words")
    }
    assert results["models"]["sft"]["score_win_rate"] == [0.5] * 3
    assert results["pretrain_loss"] == {}
    assert set(results["reward_model"]) == {
        *("all_pairs_heldout", "shared_pairs_heldout", "agreement_heldout")
    }
    assert results["rated_by"] == "reward"
    page = (workdir / "report.html").read_text()
    assert "gold judge" not in page
    assert "Preference over SFT" in page and "with the reward model&#39;s score" in page
    assert "Win rate by RM score" in format_results_table(results)


def test_answers_are_written_for_people_to_rank(own_data, workdir, tmp_path):
    config = get_config().stages.label
    config.data.update(jsonl=str(own_data), dir=str(tmp_path / "sets"))
    config.label.update(ranked_by="people", rankings=str(tmp_path / "ranked"))
    with pytest.raises(UserError, match=r"9 train and . valid prompts are ready"):
        label.run(config, workdir)
    lines = (workdir / "answers.train.jsonl").read_text().splitlines()
    assert len(lines) == 9
    assert not (workdir / "answers").exists()
    # The stage goes on when rankings are there, of one split at least.
    (tmp_path / "ranked").mkdir()
    rows = [json.loads(x) for x in lines]
    rows = [{**r, "ranks": [*range(1, 1 + len(r["responses"]))]} for r in rows]
    write_lines(tmp_path / "ranked" / "comparisons.train.jsonl", rows)
    assert label.run(config, workdir)["prompts"]["train"] == 9
    assert label.ranked_splits(workdir) == ("train",)


class _KilledError(Exception):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("stage", ["label", "evaluate"])
def test_a_stage_that_was_killed_goes_on_with_the_same_answers(
    run, workdir, monkeypatch, stage
):
    module = {"label": label, "evaluate": evaluate}[stage]
    config = get_config().stages[stage]
    if stage == "evaluate":  # the evaluators of the world ask too
        config.evaluators = {"pretrain_loss": config.evaluators.pretrain_loss}
    generate, drawn = language_model.generate, []

    def dying(*args, **kwargs):
        for part in generate(*args, **kwargs):
            yield part
            drawn.append(len(part))
            if len(drawn) == 4:
                raise _KilledError

    monkeypatch.setattr(language_model, "generate", dying)
    with pytest.raises(_KilledError):
        module.run(config, workdir)
    assert list((workdir / "answers").rglob("*.json"))
    module.run(config, workdir)
    files = {
        "label": ["answers.train.jsonl", "answers.valid.jsonl"],
        "evaluate": [f"samples/{name}.json" for name in config.get("models", {})],
    }[stage]
    for file in files:
        assert (workdir / file).read_text() == (run.workdir / stage / file).read_text()
    # Batches of 16: 3 policies' of 32 and of 16 prompts, and 5 models' of 48.
    assert len(drawn) == {"label": 3 * 2 + 3, "evaluate": 5 * 3}[stage]
    assert not (workdir / "answers").exists()
