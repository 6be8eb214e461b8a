import io
import json

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.metrics import MetricWriter, mean_metrics, read_metrics
from instructgpt.progress import (
    Progress,
    format_duration,
    format_number,
    format_table,
    print_table,
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_mean_metrics_divides_once():
    steps = [
        {"loss": (np.float32(0.5), np.int32(1)), "score": (1.5, 2)},
        {"loss": (9.0, 3)},
        {"loss": (0.0, 0)},
    ]
    means = mean_metrics(steps)
    # By hand: 9.5 / 4, and not the mean of the steps' means, (0.5 + 3) / 2.
    assert means == {"loss": pytest.approx(2.375), "score": pytest.approx(0.75)}


def test_mean_metrics_leaves_out_a_mean_of_nothing():
    steps = [{"loss": (0.0, 0), "score": (1.0, 2)}] * 2
    assert mean_metrics(steps) == {"score": 0.5}


def test_writer_keeps_fractions_and_reads_back(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": np.float32(0.25)})
        writer.write(np.int64(2), {"loss": float("nan"), "score": 1})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[0]["loss"] == 0.25 and rows[0]["time"] > 0
    assert rows[1]["loss"] is None and rows[1]["score"] == 1.0
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_disabled_writer_leaves_no_files(tmp_path):
    with MetricWriter(tmp_path, enabled=False) as writer:
        writer.resume(3)
        writer.write(1, {"loss": 0.5})
        writer.show_scalars(1, {"win_rate": 0.5})
        writer.show_table(1, "samples", ("prompt",), [("Hi",)])
        writer.show_figure(1, "picture", b"")
    assert not list(tmp_path.iterdir())


def test_resume_drops_later_steps(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": step / 2})
    # A kill in the middle of a write leaves half a line.
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    with MetricWriter(tmp_path) as writer:
        writer.resume(3)
        writer.write(4, {"loss": 7.5})
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [
        (1, 0.5),
        (2, 1.0),
        (3, 1.5),
        (4, 7.5),
    ]
    assert not list(tmp_path.glob("*.tmp"))


def test_damaged_line_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2"):
        read_metrics(path)


def test_progress_in_a_log_is_throttled_and_ends_with_the_time():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress("sft", 100, seconds=5, stream=stream, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] += 1.0
        progress.update(step, {"loss": 2.34567}, tokens_per_second=12_345)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[1] == ("sft          6/100  loss 2.346  12.3k tokens/s  ETA 1m34s")
    assert lines[-1].endswith("took 1m40s")


def test_progress_counts_speed_from_the_restored_step():
    now = [0.0]
    stream = io.StringIO()
    progress = Progress("ppo", 100, start=50, stream=stream, clock=lambda: now[0])
    now[0] = 10.0
    progress.update(60, {})
    assert stream.getvalue().split() == ["ppo", "60/100", "ETA", "40s"]


def test_progress_on_a_terminal_rewrites_its_line():
    stream = Terminal()
    progress = Progress("reward", 2, seconds=0, stream=stream, clock=lambda: 0.0)
    progress.update(1, {"accuracy": 0.625, "a_longer_metric": 0.5})
    progress.update(2, {"accuracy": 0.75})
    progress.close()
    _, first, second = stream.getvalue().split("\r")
    assert "0.625" in first and "0.750" in second
    assert len(second.rstrip("\n")) >= len(first)
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.000"),
        (0.5, "0.500"),
        (-1.23456, "-1.235"),
        (12.345, "12.35"),
        (1234.5, "1234.5"),
        (64, "64"),
        (3e-5, "3.00e-05"),
        (1.5e7, "1.50e+07"),
        (float("nan"), "nan"),
    ],
)
def test_format_number(value, text):
    assert format_number(value) == text


def test_format_duration():
    assert [format_duration(s) for s in (0.4, 59.6, 200, 7260)] == [
        "0s",
        "1m00s",
        "3m20s",
        "2h01m",
    ]


def test_table_is_aligned():
    table = format_table([["SFT", 0.5], ["PPO-ptx", 12.25]], ["model", "win rate"])
    assert table.splitlines() == [
        "model    win rate",
        "-------  --------",
        "SFT         0.500",
        "PPO-ptx     12.25",
    ]
    # Numbers that are text already, with an interval or missing.
    table = format_table([["0.5 [0, 1]"], [None]], ["rate"])
    assert table.splitlines()[2:] == ["0.5 [0, 1]", "         –"]
    with pytest.raises(ValueError, match="2 values"):
        format_table([["SFT"]], ["model", "win rate"])


def test_table_on_a_terminal_does_not_run_into_the_progress_line():
    stream = Terminal()
    Progress("sft", 2, stream=stream, clock=lambda: 0.0).update(1, {"loss": 0.5})
    print_table([["a"]], ["prompt"], stream=stream)
    assert stream.getvalue().endswith("ETA 0s\nprompt\n------\na\n")


def test_lines_are_plain_json(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, {"loss": float("inf")})
    text = (tmp_path / "metrics.jsonl").read_text()
    json.loads(text, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize("line", ["{", "[1]", '{"loss": 1}', "\xff", '{"step": null}'])
def test_a_line_that_is_no_row_of_metrics_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 2.0}\n'
    path.write_bytes(good + line.encode("latin-1") + b"\n" + good)
    with pytest.raises(
        UserError, match=r"metrics\.jsonl, line 2: not JSON with a step"
    ):
        read_metrics(path)
    path.write_bytes(good + line.encode("latin-1"))  # cut short by a kill
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}]
