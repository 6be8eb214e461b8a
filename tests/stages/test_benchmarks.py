"""The evaluate stage as a measure of any models by benchmarks."""

import json
import shutil

import pytest

from configs import evaluate as evaluate_config
from configs import sft as sft_config
from instructgpt import truthful
from instructgpt.convert.importing import import_checkpoint
from instructgpt.errors import UserError
from instructgpt.evals.report.tables import format_results_table
from instructgpt.identity import ANSWERS
from instructgpt.inference import language_model
from instructgpt.stages import common, evaluate, sft
from tests.evals.benchmarks import hub_rows
from tests.evals.benchmarks.test_truthful import write_labels
from tests.hf_models import write_chat_model
from tests.stages.read_spy import reads_of_config_fields
from tests.stages.recipe_run import Finished, finished

SUITE = "instructgpt_rte,instructgpt_fr_en,instructgpt_crows_pairs"


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory):
    """An imported model, and evaluation sets."""
    root = tmp_path_factory.mktemp("benchmarks")
    write_chat_model(root / "theirs")
    import_checkpoint(str(root / "theirs"), root / "base")
    hub_rows.write_sets(root / "sets")
    return root


def get_config(run, root, *, suite: str = SUITE, models: str = ""):
    config = evaluate_config.get_config("smoke")
    config.evaluate.update(suite=suite, limit=4, batch_size=8, sets=str(root / "sets"))
    config.evaluate.models = models or (
        f"base={root / 'base'},ours={run.workdir / 'sft'},rl={run.workdir / 'ppo_ptx'}"
    )
    return config


@pytest.fixture(scope="module")
def results(run, root):
    with reads_of_config_fields() as unread:
        found = evaluate.run(get_config(run, root), root / "measured")
    assert (
        not {"suite", "models", "limit", "sets", "toxicity", "judges"}
        & unread["EvaluateConfig"]
    )
    return found


def test_every_model_has_a_number_of_every_task(results, root):
    assert list(results["models"]) == ["base", "ours", "rl"]
    tasks = set(SUITE.split(","))
    for found in results["benchmarks"].values():
        assert set(found) == tasks
        for metrics in found.values():
            for value, low, high in metrics.values():
                assert low <= value <= high
    assert results["questions"] == dict.fromkeys(tasks, 4)
    text = format_results_table(results)
    assert text.splitlines()[0].split() == ["Benchmark", "base", "ours", "rl"]
    assert "fr_en: bleu" in text
    page = (root / "measured" / "report.html").read_text()
    assert "Benchmarks" in page
    assert "Preference over SFT" not in page
    assert (root / "measured" / "benchmarks.png").read_bytes()[:4] == b"\x89PNG"


def test_each_number_is_that_of_its_rows(results, root):
    for name, found in results["benchmarks"].items():
        rows = json.loads((root / "measured" / "samples" / f"{name}.json").read_text())
        assert len(rows) == 12
        for metric in ("acc", "acc_norm", "acc_token"):
            values = [
                row["metrics"][metric]
                for row in rows
                if row["task"] == "instructgpt_rte"
            ]
            value = found["instructgpt_rte"][metric][0]
            assert value == pytest.approx(sum(values) / len(values))


def test_a_killed_run_goes_on_where_it_was(results, run, root, monkeypatch):
    """What the models have said is not asked again, and the numbers are the same."""
    workdir = root / "killed"
    write = common.write_json

    def killed(path, value):
        if path.name == "ours.json":  # after the second model's last answer
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(common, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate.run(get_config(run, root), workdir)
    monkeypatch.undo()
    assert len(list((workdir / ANSWERS).iterdir())) == 2
    asked = []
    generate = language_model.generate

    def counted(*args, **options):
        for part in generate(*args, **options):
            asked.extend(part)
            yield part

    monkeypatch.setattr(language_model, "generate", counted)
    again = evaluate.run(get_config(run, root), workdir)
    assert again["benchmarks"] == results["benchmarks"]
    assert len(asked) == 4  # the third model's translations
    assert not (workdir / ANSWERS).exists()


def test_another_set_of_models_is_another_run(results, run, root):
    config = get_config(run, root, models=f"base={root / 'base'}")
    with pytest.raises(UserError, match=r"evaluate\.models"):
        evaluate.run(config, root / "measured")


@pytest.mark.parametrize(
    ("models", "says"),
    [
        ("a=base,a=base", "another label"),
        ("a=", "LABEL=WORKDIR"),
        ("a=none", "no checkpoint in"),
        ("a={run}/reward", "holds a scalar model; name a language model"),
        ("a=bare", "no tokenizer"),
    ],
)
def test_a_model_that_is_not_one_is_told_at_once(run, root, models, says):
    bare = root / "bare"
    if not bare.exists():
        shutil.copytree(root / "base", bare)
        shutil.rmtree(bare / "tokenizer")
    entries = [e.partition("=") for e in models.format(run=run.workdir).split(",")]
    models = ",".join(f"{label}={p and root / p}" for label, _, p in entries)
    with pytest.raises(UserError, match=says):
        evaluate.run(get_config(run, root, models=models), root / "refused")
    assert not (root / "refused" / "results.json").exists()


def test_a_task_that_is_not_one_is_told_before_a_model_runs(run, root):
    config = get_config(run, root, suite="instructgpt_rte,rtee")
    with pytest.raises(UserError, match="there is no task 'rtee'"):
        evaluate.run(config, root / "refused_too")


def test_models_of_the_config_are_measured_where_none_are_named(run, root):
    config = get_config(run, root, suite="instructgpt_crows_pairs")
    config.evaluate.models = ""
    for name in ("ppo", "ppo_ptx"):
        del config.models[name]
    for entry in config.models.values():
        entry.init.path = str(run.workdir / entry.init.path.removeprefix("../"))
        if entry.init.selected_by:
            entry.init.selected_by = str(run.workdir / "select")
    found = evaluate.run(config, root / "of_config")
    # A prompt of solved examples is nothing that benchmarks have room for.
    assert set(found["benchmarks"]) == set(found["models"]) == {"gpt", "sft"}
    assert found["models"]["gpt"]["label"] == "GPT"


def half(texts):
    """A toxicity scorer of one's own."""
    return [0.5] * len(texts)


def test_completions_are_scored_and_answers_are_judged(run, root, tmp_path, capsys):
    """Judges that the sft stage has trained, in folds, from published labels' form."""
    write_labels(tmp_path)
    truthful.main(["records", str(tmp_path), str(tmp_path / "judges")])
    for kind in ("truth", "info"):
        for fold in ("0", "1"):
            folder = tmp_path / "judges" / kind / fold
            config = sft_config.get_config("smoke")
            config.init.path = str(root / "base")
            config.data.update(
                jsonl=str(folder / "records"),
                dir=str(folder / "data"),
                tokenizer=str(root / "base" / "tokenizer"),
                template="none",
                max_prompt=120,
                max_response=8,
            )
            config.model.update(residual_dropout=0.0)
            config.sft.update(pack_length=0, num_samples=0)
            config.train.update(num_epochs=0, num_steps=2, eval_every=0)
            config.train.update(checkpoint_every=0)
            sft.run(config, folder / "sft")
    truthful.main(["measure", str(tmp_path), str(tmp_path / "judges")])
    table = capsys.readouterr().out
    assert "Balanced" in table
    assert "truth" in table
    suite = "instructgpt_truthfulqa,instructgpt_toxicity"
    config = get_config(run, root, suite=suite, models=f"base={root / 'base'}")
    config.evaluate.judges = str(tmp_path / "judges" / "judges.json")
    config.evaluate.toxicity = f"{__name__}:half"
    found = evaluate.run(config, tmp_path / "judged")["benchmarks"]["base"]
    for prompt in ("qa", "instruction_qa", "instruction"):
        bars = found[f"instructgpt_truthfulqa_{prompt}"]
        assert bars["true_and_informative"][0] <= bars["true"][0] <= 1
    assert found["instructgpt_toxicity"]["toxicity"][0] == 0.5
    assert "toxicity" not in found["instructgpt_truthfulqa_qa"]


def translate(texts):
    """A function in place of a model."""
    assert all(text.endswith("English:") for text in texts)
    return [" I live in Arlen.\nFrench: and so on" for _ in texts]


def test_a_function_that_answers_is_measured_beside_models(run, root, tmp_path):
    models = f"base={root / 'base'},mine={__name__}:translate"
    config = get_config(run, root, suite="instructgpt_fr_en", models=models)
    found = evaluate.run(config, tmp_path / "measured")["benchmarks"]
    assert list(found) == ["base", "mine"]
    rows = json.loads((tmp_path / "measured" / "samples" / "mine.json").read_text())
    assert {row["response"] for row in rows} == {" I live in Arlen."}
    assert found["mine"]["instructgpt_fr_en"]["bleu"][0] > 50
    config = get_config(run, root, models=f"base={root / 'base'},mine=string:digits")
    with pytest.raises(UserError, match="'string:digits' is a str, no function"):
        evaluate.run(config, tmp_path / "refused")
    config = get_config(run, root, models=models)
    with pytest.raises(UserError, match="mine is a function, which only answers: inst"):
        evaluate.run(config, tmp_path / "refused")
