"""Stages killed and stopped end with the bits of those that never were.

Each launch is a process of its own: it takes up the stage that was killed, finishes it,
and is killed in the next one. `kills.py` does so in every stage, at drawn moments.
"""

import random
import shutil
import signal
from collections import Counter

import pytest

from tests.faults import kills, launches
from tests.faults.dying import Moment
from tests.faults.same_end import differences
from tests.stages.processes import environment
from tests.stages.recipe_run import MESH, Finished, finished, unfinished

STAGES = ("ppo", "evaluate")
MOMENTS = [
    Moment("os.mkdir ppo/checkpoints/1.orbax-checkpoint-tmp"),  # as it is begun
    Moment("update ppo 2", number=signal.SIGTERM),  # which saves 3
    Moment("os.rename ppo/checkpoints/3.orbax-checkpoint-tmp"),  # as it is deleted
    Moment("os.rename evaluate/finished.json"),
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_same_end_after_kills_and_stops(run, tmp_path, monkeypatch):
    for name, value in environment(8).items():
        monkeypatch.setenv(name, value)
    workdir, ledger = unfinished(run, tmp_path / "recipe", STAGES), tmp_path / "ledger"
    flags = [
        *(*kills.RECIPE, f"--workdir={workdir}"),
        *(
            f"--config.stages.{stage}.mesh.{axis}={size}"
            for stage in STAGES
            for axis, size in MESH.items()
        ),
    ]
    for i in range(len(MOMENTS) + 1):
        ended = launches.launch(flags, ledger, MOMENTS[i:])
        assert launches.wrong_ending(ended) == "", ended.text
        assert ended.moment == (MOMENTS[i] if i < len(MOMENTS) else None), ended.text
    assert differences(run.workdir, workdir) == []


def test_a_difference_is_seen(run, tmp_path):
    def changed(name, text):
        path = copy / name
        before = path.read_text()
        path.write_text(text(before))
        found = differences(run.workdir, copy)
        path.write_text(before)
        return found

    copy = tmp_path / "copy"
    shutil.copytree(run.workdir, copy)
    lines = "ppo/metrics.jsonl"
    assert changed(lines, lambda text: text.replace("1", "2", 1)) == [
        f"{lines} differs"
    ]
    labels = "label/labels.json"
    assert changed(labels, lambda text: text.replace("1", "2", 1)) == [
        f"{labels} differs"
    ]
    (copy / "sft" / "more").touch()
    assert differences(run.workdir, copy) == ["sft/more is left over"]
    (copy / "sft" / "more").unlink()
    shutil.rmtree(copy / "ppo" / "checkpoints")
    steps = sorted(p.name for p in (run.workdir / "ppo" / "checkpoints").iterdir())
    assert differences(run.workdir, copy) == [
        f"ppo/checkpoints/{step} is missing" for step in steps
    ]


LEDGER = [
    "open .lock",
    "update sft 1",
    "os.mkdir sft/checkpoints/1.orbax-checkpoint-tmp/params",
    "update sft 2",
    "os.rename sft/checkpoints/1",
    "os.remove sft/checkpoints/1/x",
    "os.rename sft/finished.json",
    "open label/.answers.train.jsonl.partial",
    "update sft 1",
]


def test_moments_are_in_order_and_of_all_kinds():
    drawn = Counter()
    for seed in range(60):
        moments = kills.draw_moments(LEDGER, random.Random(seed), count=3)
        events = [moment.event for moment in moments]
        assert events == sorted(set(events), key=LEDGER.index)
        assert all(moment.number == signal.SIGKILL for moment in moments)
        drawn.update(map(kills.kind_of, events))
    assert drawn.keys() == set(kills.KINDS)
    assert sum(drawn.values()) == 180 and min(drawn.values()) > 10


@pytest.mark.parametrize(
    ("code", "number", "text", "wrong"),
    [
        (-9, signal.SIGKILL, "", ""),
        (1, signal.SIGKILL, "error: no", "exit code 1"),
        (-9, signal.SIGKILL, "Traceback (most recent call last):", "a traceback"),
        (143, signal.SIGTERM, "stopped; what is whole stays: start", ""),
        (143, signal.SIGTERM, "", "does not say that it was stopped"),
        (-15, signal.SIGTERM, "", "exit code -15"),
        (0, None, "", ""),
        (1, None, "error: no", "exit code 1"),
    ],
)
def test_a_wrong_ending_is_seen(code, number, text, wrong):
    moment = None if number is None else Moment("update sft 1", number=number)
    assert launches.wrong_ending(launches.Ended(code, text, moment)) == wrong
