"""Eight labelers at once, whose servers are killed while they work."""

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from instructgpt.labelling import server
from instructgpt.labelling.interface import Task, Work
from instructgpt.labelling.seats import Seat
from instructgpt.labelling.studio import StudioDesk
from tests.labelling.real_studio import needs_label_studio

pytestmark = [needs_label_studio, pytest.mark.slow, pytest.mark.long]
LABELERS, TASKS = 8, 500


def tasks_of(labeler):
    texts = tuple(f"answer {j}" for j in range(4))
    numbers = range(TASKS)[labeler::LABELERS]
    return [Task(f"k{n}", "ranking", (), f"prompt {n}", texts) for n in numbers]


def work_on(task):
    number = int(task.key[1:])
    if number % 50 == 7:
        return Work(task.key, skipped=True, seconds=float(number))
    ranks = (1, 1 + number % 2, 2, 3) if number % 2 else (4, 3, 2, 1)
    return Work(task.key, ranks=ranks, seconds=float(number))


def label(seat: Seat, labeler: int) -> None:
    desk = StudioDesk(seat, title="many")
    desk.setup()
    tasks = tasks_of(labeler)
    for start in range(0, len(tasks), 20):  # sent in parts, each twice
        desk.put("ranking", tasks[: start + 20])
        desk.put("ranking", tasks[: start + 20])
        for task in tasks[start : start + 20]:
            desk.submit("ranking", task.key, work_on(task))


def kill(folder, done: threading.Event) -> int:
    """Kills one server after the other and starts them again, until all is done."""
    kills = 0
    while not done.wait(3.0):
        for lock in sorted((folder / "server").glob("labeler-*/.lock")):
            os.kill(json.loads(lock.read_text())["process"], signal.SIGKILL)
            kills += 1
            time.sleep(0.2)
        server.start(folder, {})
    return kills


def test_nothing_is_lost_or_doubled_though_the_servers_are_killed(tmp_path):
    folder = tmp_path / "labelling"
    names = {f"labeler-{i}": "training" for i in range(LABELERS)}
    done = threading.Event()
    try:
        seats = server.start(folder, names)
        with ThreadPoolExecutor(LABELERS + 1) as pool:
            killer = pool.submit(kill, folder, done)
            try:
                list(pool.map(label, seats, range(LABELERS)))
            finally:
                done.set()
            assert killer.result() >= LABELERS
        for number, seat in enumerate(seats):
            tasks = {task.key: task for task in tasks_of(number)}
            for _ in range(2):
                found = StudioDesk(seat, title="many").finished("ranking", tasks)
                given = [work._replace(when="") for work in found]
                wanted = {key: work_on(task) for key, task in tasks.items()}
                assert len(given) == len(wanted)
                assert {work.key: work for work in given} == wanted
    finally:
        server.stop(folder)
