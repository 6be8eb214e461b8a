"""The operations that stages count, against counts by hand, and the report's table."""

import json

import pytest

from instructgpt.evals.compute import compute_table
from instructgpt.evals.report.tables import format_results_table
from instructgpt.evals.report.writing import load_results
from instructgpt.metrics import read_metrics
from instructgpt.stages import pretrain
from tests.stages.recipe_run import Finished, finished, get_config

DAY = 1e15 * 86400
WIDTH, LAYERS, VOCAB = 32, 2, 1280
PROMPT, RESPONSE, WINDOW = 40, 24, 96
# A layer's attention has four square matrices and its MLP two of four times the size.
WEIGHTS = LAYERS * 12 * WIDTH**2


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def by_hand(tokens: float, seen: float, predicted: float = 0.0) -> float:
    """Operations of a forward pass: weights, attention's two products, the logits."""
    products = 2 * tokens * WEIGHTS + 2 * predicted * WIDTH * VOCAB
    return products + 2 * 2 * tokens * seen * WIDTH * LAYERS


def text(rows: int, length: int, first_target: int = 0) -> float:
    """A forward pass over rows of full length; a token sees itself and those before."""
    return by_hand(rows * length, (length + 1) / 2, rows * (length - first_target))


def last(run: Finished, stage: str) -> tuple[float, int]:
    rows = read_metrics(run.workdir / stage / "metrics.jsonl")
    rows = [row for row in rows if "pfs_days" in row]
    return rows[-1]["pfs_days"] * DAY, rows[-1]["step"]


@pytest.mark.parametrize(
    ("stage", "rows", "length", "first"),
    [
        ("pretrain", 8, WINDOW, 0),
        ("sft", 8, WINDOW, 1),  # packed
        ("rl_init", 16, PROMPT + RESPONSE, 1),
    ],
)
def test_supervised_stages_count_a_pass_and_its_gradient(
    run, stage, rows, length, first
):
    spent, steps = last(run, stage)
    assert spent == pytest.approx(steps * 3 * text(rows, length, first), rel=1e-6)


def test_the_reward_model_counts_the_rows_that_its_answers_share(run):
    spent, steps = last(run, "reward")
    config = get_config().stages.reward
    prompts = config.train.batch_size
    read = by_hand(prompts * PROMPT, (PROMPT + 1) / 2)
    row = 3 * by_hand(RESPONSE, PROMPT + (RESPONSE + 1) / 2)
    rows = (spent / steps - 3 * read) / row
    assert rows == pytest.approx(round(rows), abs=1e-6)
    # Fewer rows than answers, as several of them share a row.
    assert prompts <= round(rows) < prompts * config.reward.max_responses


@pytest.mark.parametrize("stage", ["ppo", "ppo_ptx"])
def test_ppo_counts_sampling_four_scorings_and_both_updates(run, stage):
    episodes, length = 16, PROMPT + RESPONSE
    tokens, seen = episodes * length, (length + 1) / 2
    policy = by_hand(tokens, seen, episodes * RESPONSE)
    scalar = by_hand(tokens, seen)
    sampled = by_hand(episodes * PROMPT, (PROMPT + 1) / 2, episodes)
    for step in range(1, RESPONSE):
        sampled += by_hand(episodes, PROMPT + step, episodes)
    # The reference, the reward model and the value net; then gradients of two.
    total = sampled + policy + 2 * scalar + 3 * (policy + scalar)
    if stage == "ppo_ptx":  # half a window an episode
        total += 3 * text(episodes // 2, WINDOW)
    spent, steps = last(run, stage)
    assert spent == pytest.approx(steps * total, rel=1e-6)


def test_a_resumed_run_counts_no_step_twice(run, tmp_path):
    config = get_config(data_dir=str(run.workdir / "data")).stages.pretrain
    config.train.num_steps, config.train.checkpoint_every = 3, 1
    config.train.log_every = 1
    pretrain.run(config, tmp_path / "one")
    whole = read_metrics(tmp_path / "one" / "metrics.jsonl")
    # As if it had been killed after two steps; the third is done again.
    config.train.keep = 0
    pretrain.run(config, tmp_path / "two")
    (tmp_path / "two" / "finished.json").unlink()
    checkpoints = tmp_path / "two" / "checkpoints"
    for path in checkpoints.glob("3*"):
        path.rename(tmp_path / path.name)
    pretrain.run(config, tmp_path / "two")
    again = read_metrics(tmp_path / "two" / "metrics.jsonl")
    spent = [[r["pfs_days"] for r in rows if "loss" in r] for rows in (whole, again)]
    assert spent[0] == spent[1]
    assert spent[0][2] == pytest.approx(3 * spent[0][0])


def test_the_report_has_each_stage_beside_the_paper_s(run):
    results = load_results(run.workdir / "evaluate" / "results.json")
    stages = ("pretrain", "sft", "reward", "rl_init", "ppo", "ppo_ptx")
    assert tuple(results["compute"]) == stages
    assert results["compute"]["sft"] == last(run, "sft")[0] / DAY
    assert "PF/s-days" in format_results_table(results)
    page = (run.workdir / "evaluate" / "report.html").read_text()
    assert "<h2>Compute</h2>" in page and "3,640" in page


def test_shares_are_of_pretraining_where_there_is_any():
    compute = {"pretrain": 2.0, "sft": 0.01, "reward": 0.5, "ppo_ptx": 0.03}
    columns, rows = compute_table({"compute": compute})
    assert all(len(row) == len(columns) for row in rows)
    assert rows[0][1:] == ["2", "100 %", "3,640", "100 %"]
    assert rows[2][1:] == ["0.5", "25 %", "–", "–"]
    assert rows[-1] == ["SFT and PPO-ptx", "0.04", "2 %", "64.9", "1.78 %"]
    imported = compute_table({"compute": {"sft": 0.01}})[1]
    assert [row[2] for row in imported] == ["–"]
    assert compute_table(json.loads("{}"))[1] == []
