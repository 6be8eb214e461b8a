"""One process a folder: another is refused, and a dead one's lock is free."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from instructgpt import locks
from instructgpt.errors import UserError

REPO = Path(__file__).resolve().parents[1]
HOLD = (
    "import sys, time; from pathlib import Path; from instructgpt import locks; "
    "locks.take(Path(sys.argv[1]), log=print); print('held', flush=True); "
    "time.sleep(60)"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")],
        cwd=REPO,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path, holder):
    says = rf"{tmp_path}: another run is at work .*process {holder.pid} .*--workdir"
    with pytest.raises(UserError, match=says):
        locks.take(tmp_path / "lock", log=pytest.fail)
    holder.kill()
    locks.take(tmp_path / "lock", log=pytest.fail)
    locks.take(tmp_path / "lock", log=pytest.fail)  # ours already
    locks.give_back(tmp_path / "lock")
    locks.give_back(tmp_path / "lock")


def test_what_was_given_back_another_process_takes(tmp_path):
    path = tmp_path / "lock"
    take = [sys.executable, "-c", HOLD.replace("60", "0"), str(path)]
    locks.take(path, log=pytest.fail)
    assert subprocess.run(take, cwd=REPO, capture_output=True).returncode == 1
    locks.give_back(path)
    assert subprocess.run(take, cwd=REPO, capture_output=True).returncode == 0


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    told = []
    locks.take(tmp_path / "lock", log=told.append)
    assert len(told) == 1
    assert f"{tmp_path}: its file system has no locks" in told[0]
