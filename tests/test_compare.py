"""Runs side by side: what differs, their curves, their numbers, and what is no run."""

import dataclasses
import fcntl
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from configs import recipe
from instructgpt.compare import main
from instructgpt.evals.report.comparison import Comparison
from instructgpt.evals.report.runs import open_runs
from instructgpt.identity import Identity, write_json
from instructgpt.stages.recipe import stage_config
from tests.evals.fake_results import make_results


def stage(folder: Path, config: Any, rows: list[dict], *, done: bool = True) -> Path:
    """Makes a stage's workdir as its run leaves it."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    lines = [json.dumps({"time": 1.0, **row}) + "\n" for row in rows]
    (folder / "metrics.jsonl").write_text("".join(lines))
    identity = Identity({}, {"world": "w0"}, "t0", {"init.path": folder.parent.name})
    write_json(folder / "identity.json", dataclasses.asdict(identity))
    if done:
        write_json(folder / "finished.json", {"steps": []})
    return folder


def curve(start: float, steps: int = 20) -> list[dict]:
    rows = [
        {"step": s, "loss": start / s, "grad_norm": 1.0, "tokens_per_second": start}
        for s in range(1, steps + 1)
    ]
    return [*rows, {"step": steps, "valid_loss": start / 10}]


def whole_recipe(folder: Path, seed: int) -> Path:
    """A recipe's workdir with three of its stages."""
    config = recipe.get_config("smoke")
    config.seed = seed
    for number, name in enumerate(("pretrain", "sft", "evaluate")):
        rows = [] if name == "evaluate" else curve(2.0 + seed)
        rows = [{**row, "time": 10.0 + number} for row in rows]
        stage(folder / name, stage_config(config, name), rows)
    results = make_results()
    results["models"]["ppo"]["win_rate"] = [0.6 + seed / 10, 0.5, 0.75]
    (folder / "evaluate" / "results.json").write_text(json.dumps(results))
    return folder


def text_of(*paths: Path, metrics: tuple[str, ...] = ()) -> str:
    return Comparison.of(open_runs([*map(str, paths)]), metrics=metrics).text()


def cells(text: str, first: str) -> list[str]:
    """Cells of the first row that opens with a word."""
    line = next(x for x in text.splitlines() if re.match(rf"{re.escape(first)}\s", x))
    return re.split(r"\s{2,}", line.strip())


def sft(**values: Any) -> Any:
    config = stage_config(recipe.get_config("smoke"), "sft")
    config.update_from_flattened_dict(values)
    return config


def test_two_seeds_of_a_recipe_differ_in_one_key(tmp_path, capsys):
    paths = [whole_recipe(tmp_path / name, seed) for seed, name in enumerate("ab")]
    page = tmp_path / "page.html"
    main([*map(str, paths), f"--html={page}"])
    text = capsys.readouterr().out
    assert "One key differs:" in text
    assert cells(text, "seed") == ["seed", "all", "0", "1"]
    assert cells(text, "valid_loss")[-2:] == ["0.200", "20"]
    assert "0.600 [0.500, 0.750]" in text and "0.700 [0.500, 0.750]" in text
    # Stages in the order in which they ran.
    places = [text.index(f"\n{name} ") for name in ("pretrain", "sft", "evaluate,")]
    assert places == sorted(places)
    html = page.read_text()
    assert html.count("<img") == 2 and 'src="data:image/svg+xml' in html
    assert not re.search(r"(src|href)=\"(?!data:)", html)
    assert "0.700 [0.500, 0.750]" in html and "Grad norm" not in text


def test_paths_in_the_tree_and_speed_are_no_difference(tmp_path):
    inside = sft(**{"init.path": str(tmp_path / "a" / "pretrain")})
    a = stage(tmp_path / "a" / "sft", inside, curve(2.0))
    b = stage(tmp_path / "b" / "sft", sft(**{"init.path": "../pretrain"}), curve(2.0))
    text = text_of(a, b)
    assert "init.path  " not in text.replace("content of init.path", "")
    # But the models that lie there are not the same.
    assert cells(text, "content of init.path") == ["content of init.path", "a", "b"]
    assert "tokens_per_second" not in text
    other = sft(**{"init.path": "/elsewhere/pretrain"})
    c = stage(tmp_path / "c" / "sft", other, curve(2.0))
    assert cells(text_of(a, c), "init.path")[1:] == [
        "../pretrain",
        "/elsewhere/pretrain",
    ]


def test_lengths_missing_metrics_nan_and_a_run_at_work(tmp_path):
    a = stage(tmp_path / "a", sft(), curve(2.0, steps=40))
    rows = [{"step": 1, "loss": 2.0}, {"step": 10, "loss": None}]
    b = stage(tmp_path / "b", sft(seed=7), rows, done=False)
    with (b / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "lo')  # as it is being written
    text = text_of(a, b)
    assert "b: not finished, step 10 so far." in text
    heading, _, *lines = text[text.index("\nsft ") + 1 :].splitlines()
    begin = heading.index("steps 1 to 40")
    assert lines[0].split()[-2:] == ["0.050", "40"]
    assert lines[1].split()[-2:] == ["nan", "10"]
    assert lines[1][begin] == "█" and not lines[1][begin + 1 : begin + 40].strip()
    assert lines[3].split() == ["b", "–", "–"]  # it has no valid_loss yet
    with (b / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "b: at work, step 10 so far." in text_of(a, b)


def test_other_stages_other_metrics_and_a_page_of_many_runs(tmp_path):
    config = recipe.get_config("smoke")
    a = stage(tmp_path / "a", sft(), curve(2.0))
    ppo = [{"step": s, "score": s / 10, "loss": 0.1} for s in range(1, 5)]
    b = stage(tmp_path / "b", stage_config(config, "ppo"), ppo)
    text = text_of(a, b)
    assert "Different stages: a is sft, b is ppo." in text
    assert "rollout.epochs" not in text and "\nstage " in text
    assert "score" not in text_of(a, b, metrics=("loss",)).split("steps 1 to")[1]
    many = [
        stage(tmp_path / f"run_of_seed_{n}", sft(seed=n), curve(1.0 + n))
        for n in range(9)
    ]
    text = text_of(*many)
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert max(map(len, lines)) <= 100
    assert re.search(
        r"\n +run_of_seed_8 +8\n", text
    )  # of the seeds, a row for each run
    html = Comparison.of(open_runs([*map(str, many)])).html()
    assert html.count("run_of_seed_8") >= 3


def test_text_of_runs_is_escaped_in_the_page(tmp_path):
    a = stage(tmp_path / "<b>a", sft(name="<script>"), curve(2.0))
    b = stage(tmp_path / "b", sft(), curve(2.0))
    html = Comparison.of(open_runs([str(a), str(b)])).html()
    assert "<script>" not in html and "&lt;script&gt;" in html and "<b>a" not in html


def test_a_stage_missing_in_a_recipe_is_said(tmp_path):
    a, b = (whole_recipe(tmp_path / name, 0) for name in "ab")
    for path in (b / "sft").iterdir():
        path.unlink()
    text = text_of(a, b)
    assert "sft: not begun in b." in text
    assert "No key of config.json differs." in text


def test_what_is_no_run_ends_in_one_line(tmp_path, capsys):
    a = stage(tmp_path / "a", sft(), curve(2.0))
    b = stage(tmp_path / "b", sft(), [])
    (tmp_path / "empty").mkdir()
    broken = stage(tmp_path / "broken", sft(), [])
    (broken / "config.json").write_text("{")
    for given, message in (
        ((a,), "give two runs or more"),
        ((a, a), "is given twice"),
        ((a, tmp_path / "empty"), "empty is no run: neither it nor a folder in it"),
        ((a, tmp_path / "none"), "none: there is no such folder"),
        ((a, broken), "config.json is damaged"),
        ((a, b, "--metrics=lost"), "no run has a metric 'lost'; there are: grad_norm,"),
        ((a, b, f"--html={a}"), "a folder is where a file must be"),
    ):
        with pytest.raises(SystemExit) as error:
            main([*map(str, given)])
        assert message in str(error.value.code)
        assert "\n" not in str(error.value.code)
        capsys.readouterr()


def test_curves_share_a_scale():
    from instructgpt.evals.report.overlays import text_curves

    rows = {
        "a": [{"step": s, "kl": s} for s in range(9)],
        "b": [{"step": s, "kl": 2.0 * s} for s in range(5)],
        "c": [{"step": 0, "kl": math.nan}],
    }
    lines = text_curves(rows, "kl", steps=(0, 8), width=9)
    assert lines["a"] == "▁▂▃▄▅▅▆▇█"
    assert lines["b"] == "▁▃▅▆█    "
    assert lines["c"] == " " * 9
