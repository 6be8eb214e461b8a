"""A sweep's table, figure and page, from results made by hand."""

import json

from instructgpt.evals.report.sweeps import (
    format_sweep,
    sweep_figure,
    write_sweep_report,
)

VALUES = {"0": (3.1, 0.31), "0.02": (2.4, 0.48), "0.2": (1.6, 0.61)}


def results(judged: bool = True) -> dict:
    rows = []
    for value, (score, rate) in VALUES.items():
        row = dict(value=value, stage="ppo_ptx", status="finished", message="")
        numbers = dict(
            rm_score=[score, score - 0.1, score + 0.1],
            win_rate=[rate, rate - 0.05, rate + 0.05],
            kl=[4.0, 3.0, 5.0],
            pretrain_loss=0.95,  # of one batch, which has no interval
        )
        rows.append({**row, "num_params": 9e5, "pfs_days": 1e-6, "numbers": numbers})
    said = "ppo_ptx: policy_loss is not finite at step 12"
    rows.insert(1, dict(value="0.01", stage="ppo_ptx", status="diverged", message=said))
    return dict(
        axis="KL coefficient β",
        keys=["ppo.kl_coef"],
        stages=["ppo_ptx"],
        rows=rows,
        beside={
            "pretrain": {"pretrain_loss": [0.81, 0.8, 0.82]},
            "sft": {"win_rate": [0.5, 0.5, 0.5], "kl": [5.0, 4.0, 6.0]},
            "rl_init": {"rm_score": [0.0, -0.1, 0.1], "kl": [0.0, 0.0, 0.0]},
        },
        baseline="sft",
        judged=judged,
        split="valid",
        meta=dict(commit="abc", seed=0, world_seed=0),
    )


def test_the_table_has_a_row_a_value_and_says_what_failed():
    lines = format_sweep(results()).splitlines()
    assert len(lines) == 2 + 4 + 3 + 1
    assert "2.40 [2.30, 2.50]" in lines[4] and "0.48 [0.43, 0.53]" in lines[4]
    assert lines[3].startswith("0.01, diverged") and "–" in lines[3]
    assert lines[-1] == "0.01: diverged; ppo_ptx: policy_loss is not finite at step 12"


def test_score_and_what_it_is_worth_are_side_by_side():
    figure = sweep_figure(results())
    score, rate, *_ = figure.axes
    assert score.get_title(loc="left") == "Reward model's score"
    assert rate.get_title(loc="left") == "Win rate against SFT, gold judge"
    # No line crosses the value whose run has no result.
    for ax, place in ((score, 0), (rate, 1)):
        drawn = ax.containers[0].lines[0].get_ydata()
        finished = [values[place] for values in VALUES.values()]
        assert [y for y in drawn if y == y] == finished
        assert len(drawn) == 4 and drawn[1] != drawn[1]
        labels = [tick.get_text() for tick in ax.get_xticklabels()]
        assert labels == ["0", "0.01", "0.02", "0.2"]
    by_score = sweep_figure(results(judged=False)).axes[1]
    assert by_score.get_title(loc="left") == "Win rate against SFT, by score"


def test_the_page_says_who_judges_and_what_failed(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results()))
    write_sweep_report(path)
    page = (tmp_path / "report.html").read_text()
    assert "over-optimised" in page and "not finite at step 12" in page
    assert "data:image/svg+xml;base64," in page
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    path.write_text(json.dumps(results(judged=False)))
    write_sweep_report(path)
    assert "which policies raise" in (tmp_path / "report.html").read_text()
    # Nothing has finished: there is no figure, but a page.
    nothing = results()
    nothing["rows"] = [r for r in nothing["rows"] if r["status"] == "diverged"]
    assert sweep_figure(nothing) is None
