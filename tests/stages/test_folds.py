"""Cross-validation over labelers: what is trained on, resumed, measured and written."""

import json
from pathlib import Path

import numpy as np
import pytest

from configs import folds as folds_config
from instructgpt.errors import UserError
from instructgpt.evals.folds import folds_table, summary
from instructgpt.identity import is_finished
from instructgpt.stages import folds, reward
from tests.stages.untrained import on_one_device, save_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Untrained models, and rankings of four labelers, each of prompts of their own."""
    folder = save_models(tmp_path_factory.mktemp("stages"))
    rows = [
        {
            "prompt": f"Who lives in house {number}?",
            "responses": [f"{name} lives there." for name in ("Dela", "Falk", "Enna")],
            "ranks": [1 + (number + i) % 3 for i in range(3)],
            "labeler": "abcd"[number % 4],
        }
        for number in range(32)
    ]
    (folder / "records").mkdir()
    write(folder / "records" / "comparisons.train.jsonl", rows)
    return folder


def write(path: Path, rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def small(folder: Path):
    """Two folds with a seed each, and two steps a model."""
    config = on_one_device(folds_config.get_config("smoke"))
    config.data.jsonl = "../records"
    config.data.tokenizer = str(tokenizer(folder))
    config.init.path = "../sft"
    config.reward.update(comparisons="", max_responses=3)
    config.train.update(num_epochs=0, num_steps=2, batch_size=4, checkpoint_every=1)
    config.folds.update(num_folds=2, num_seeds=1, measured=0.25)
    return config


def tokenizer(folder: Path) -> Path:
    """A tokenizer of the rankings' words, made once."""
    from instructgpt.tokenizer import train_tokenizer

    path = folder / "tokenizer.model"
    if not path.exists():
        text = (folder / "records" / "comparisons.train.jsonl").read_text()
        train_tokenizer(text.splitlines() * 4, path, vocab_size=320)
    return path


def load(path: Path):
    return json.loads(path.read_text())


def lines(path: Path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(folder) -> Path:
    """The stage, which was stopped in its second training and started again."""
    with pytest.MonkeyPatch.context() as patch:
        trained = []
        make_step = reward._make_step

        def failing(*args, **how):
            step = make_step(*args, **how)

            def update(*given):
                trained.append(1)
                if len(trained) == 4:
                    raise KeyboardInterrupt
                return step(*given)

            return update

        patch.setattr(reward, "_make_step", failing)
        with pytest.raises(KeyboardInterrupt):
            folds.run(small(folder), folder / "folds")
        assert (folder / "folds" / "fold-0-seed-0.json").exists()
        folds.run(small(folder), folder / "folds")
        # The first model is not trained again, and the second goes on.
        assert len(trained) == 5
    return folder / "folds"


def test_each_model_is_measured_on_prompts_that_it_has_not_seen(finished):
    results = load(finished / "results.json")
    groups = [set(group) for group in results["groups"]]
    assert set.union(*groups) == set("abcd") and len(groups) == 2
    for number, left_out in enumerate(groups):
        rankings = finished / "runs" / f"fold-{number}" / "rankings"
        train, same, other = (
            lines(rankings / f"comparisons.{split}.jsonl")
            for split in ("train", "valid", "heldout")
        )
        assert not {r["labeler"] for r in train + same} & left_out
        assert {r["labeler"] for r in other} == left_out
        seen = {r["prompt"] for r in train}
        assert not seen & {r["prompt"] for r in same + other}
        assert (len(train), len(same), len(other)) == (12, 4, 16)


def test_the_results_are_the_reward_stages_accuracies(finished):
    results = load(finished / "results.json")
    assert [(r["fold"], r["seed"]) for r in results["runs"]] == [(0, 0), (1, 0)]
    for run in results["runs"]:
        where = finished / "runs" / f"fold-{run['fold']}" / "seed-0"
        last = lines(where / "metrics.jsonl")[-1]
        assert run["same"] == last["valid_accuracy"]
        assert run["other"] == last["heldout_accuracy"]
        assert not (where / "checkpoints").exists()  # it has been measured
    assert results["summary"] == summary(results["runs"])
    assert (finished / "folds.png").read_bytes()[1:4] == b"PNG"
    assert is_finished(finished)


def test_a_finished_stage_trains_nothing(finished, folder, monkeypatch, capsys):
    monkeypatch.setattr(reward, "run", None)
    folds.run(small(folder), finished)
    said = capsys.readouterr().out
    assert "2 reward models, 2 groups of labelers" in said and "72.4 ± 0.4" in said


def test_the_summary_has_both_errors():
    runs = [
        {"fold": fold, "seed": seed, "same": 0.7 + 0.01 * fold, "other": value}
        for fold, values in enumerate([(0.6, 0.62), (0.66, 0.64)])
        for seed, value in enumerate(values)
    ]
    found = summary(runs)
    assert found["same"]["mean"] == pytest.approx(0.705)
    assert found["other"]["mean"] == pytest.approx(0.63)
    assert found["difference"]["mean"] == pytest.approx(0.075)
    values = [0.6, 0.62, 0.66, 0.64]
    assert found["other"]["error"] == pytest.approx(np.std(values, ddof=1) / 2)
    # The folds' means are .61 and .65.
    assert found["other"]["error_of_folds"] == pytest.approx(0.02)
    table = folds_table({"summary": found})
    assert "70.5" in table and "69.6 ± 0.9" in table
    alone = summary(runs[:1])
    assert alone["same"]["error"] is None and "–" in folds_table({"summary": alone})


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"folds.num_folds": 5}, "of 4 labelers, and 5 groups"),
        ({"folds.measured": 1.0}, "config.folds.measured=1.0 a fold has 0 rankings"),
        ({"folds.num_rankings": 3}, "of 3 labelers, and 4 groups"),
        ({"init.path": "../nowhere"}, r"config\.init"),
        ({"folds.num_folds": 1}, r"config\.folds\.num_folds=1"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(
    folder, change, match, monkeypatch
):
    config = small(folder)
    config.folds.num_folds = 4
    config.update_from_flattened_dict(change)
    monkeypatch.setattr(reward, "run", None)
    with pytest.raises(UserError, match=match):
        folds.run(config, folder / "mistaken")
