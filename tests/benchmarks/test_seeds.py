"""The table of several runs, on made-up results."""

import json

import pytest

from tests.benchmarks import seeds
from tests.evals.fake_results import make_results


def write_run(folder, *, training, world, ppo, loss=1.864):
    """A recipe's workdir whose PPO has this win rate; without a world if None."""
    results = make_results()
    results["models"]["ppo"]["win_rate"] = [ppo, ppo - 0.04, ppo + 0.04]
    results["pretrain_loss"]["ppo"] = loss
    results["meta"] |= {"seed": training, "world_seed": world}
    if world is None:
        del results["meta"]["world_seed"]
    (folder / "evaluate").mkdir(parents=True)
    (folder / "evaluate" / "results.json").write_text(json.dumps(results))
    return str(folder)


@pytest.fixture
def runs(tmp_path) -> list[str]:
    """World 4 with training seeds 5, 6 and 7; then worlds 8 and 9 with seed 5."""
    seeds_and_rates = (
        (5, 4, 0.61),
        (6, 4, 0.66),
        (7, 4, 0.68),
        (5, 8, 0.70),
        (5, 9, 0.55),
    )
    return [
        write_run(tmp_path / f"run{i}", training=t, world=w, ppo=rate, loss=1.5 + i / 8)
        for i, (t, w, rate) in enumerate(seeds_and_rates)
    ]


def printed(capsys, *arguments) -> list[list[str]]:
    seeds.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert set(lines[1]) <= set("|-: ")
    return [[c.strip() for c in line.strip("|").split("|")] for line in lines]


def test_a_row_for_each_run_and_each_group(runs, capsys):
    columns, _, *rows = printed(capsys, *runs)
    assert columns[:3] == ["run", "world seed", "training seed"]
    assert [row[0] for row in rows] == [
        *runs,
        "mean (range): world 4, 3 training seeds",
        "mean (range): training seed 5, 3 worlds",
    ]
    assert rows[1][:3] == [runs[1], "4", "6"] and rows[4][:3] == [runs[4], "9", "5"]
    ppo = [row[columns.index("win rate, PPO")] for row in rows]
    assert ppo[:2] == ["0.61 [0.57, 0.65]", "0.66 [0.62, 0.70]"]
    assert ppo[5:] == ["0.65 (0.61–0.68)", "0.62 (0.55–0.70)"]
    loss = [row[columns.index("pretraining loss, PPO")] for row in rows]
    assert loss[:2] == ["1.500", "1.625"]
    assert loss[5:] == ["1.625 (1.500–1.750)", "1.792 (1.500–2.000)"]
    # The baseline is one half by definition.
    assert "win rate, SFT" not in columns and "Likert, SFT" in columns


def test_the_reward_model_stands_beside_the_labelers(runs, capsys):
    columns, _, row = printed(capsys, runs[0])
    shared = columns.index("RM accuracy, shared pairs, held-out labelers")
    assert row[shared] == "0.71 [0.68, 0.73]"
    assert (
        columns[shared + 1] == "labelers' agreement, the same pairs, held-out labelers"
    )
    assert row[shared + 1] == "0.77 [0.76, 0.79]"
    assert row[columns.index("hallucinations, PPO-ptx")] == "0.15 [0.11, 0.19]"
    assert row[columns.index("pretraining loss, RL-init")] == "1.731"


def test_a_run_of_one_seed_has_it_for_both(tmp_path, capsys):
    older = write_run(tmp_path / "older", training=3, world=None, ppo=0.6)
    other = write_run(tmp_path / "other", training=4, world=None, ppo=0.7)
    _, _, *rows = printed(capsys, older, other)
    # They differ in both seeds, so no group is theirs.
    assert [row[1:3] for row in rows] == [["3", "3"], ["4", "4"]]


def test_what_a_run_lacks_is_a_dash(runs, tmp_path, capsys):
    path = tmp_path / "run1" / "evaluate" / "results.json"
    results = json.loads(path.read_text())
    del results["reward_model"], results["models"]["gpt"]["likert"]
    path.write_text(json.dumps(results))
    columns, _, *rows = printed(capsys, *runs[:2])
    at = columns.index("RM accuracy, shared pairs, training labelers")
    assert [row[at] for row in rows] == ["0.74 [0.72, 0.76]", "–", "0.74 (0.74–0.74)"]
    assert rows[1][columns.index("Likert, GPT")] == "–"


def test_transposed_it_has_a_column_for_each_run(runs, capsys):
    wide = printed(capsys, *runs)
    tall = printed(capsys, *runs, "--transpose")
    del wide[1], tall[1]  # the rules
    assert tall == [list(column) for column in zip(*wide, strict=True)]


def test_a_run_that_has_not_evaluated_is_one_clear_line(runs, tmp_path):
    with pytest.raises(SystemExit, match=r"absent.*not found; run the evaluate stage"):
        seeds.main([runs[0], str(tmp_path / "absent")])
    path = tmp_path / "run0" / "evaluate" / "results.json"
    path.write_text(json.dumps(make_results() | {"meta": {}}))
    with pytest.raises(SystemExit, match=r"results.json: meta.seed is missing"):
        seeds.main(runs)
