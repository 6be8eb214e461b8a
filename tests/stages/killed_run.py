"""Runs the smoke recipe in a process that kills itself, as a machine that goes away.

    python -m tests.stages.killed_run WORKDIR DATA_DIR [STAGE MOMENT STEP]

Moments: `update`, before the stage's STEP-th update of this process; `save`, when
the checkpoint of STEP has just begun to be written; `commit`, when it is all written
and about to get its name. SIGKILL: nothing is flushed and nothing is closed.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

from instructgpt.checkpoints import Checkpoints
from instructgpt.stages import ppo, pretrain, recipe, reward, sft
from tests.stages.recipe_run import get_config


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_update(stage: str, number: int) -> None:
    def dying(train):
        def run(job: Any, state: Any, *, workdir: Path, **rest: Any) -> Any:
            count = 0

            def update(*args: Any) -> Any:
                nonlocal count
                count += 1
                if count == number:
                    die()
                return job.update(*args)

            if workdir.name == stage:
                return train(
                    dataclasses.replace(job, update=update),
                    state,
                    workdir=workdir,
                    **rest,
                )
            return train(job, state, workdir=workdir, **rest)

        return run

    for module in (pretrain, sft, reward, ppo):
        module.train = dying(module.train)


def die_at_save(stage: str, number: int) -> None:
    save = Checkpoints.save

    def dying(self: Checkpoints, step: int, *args: Any) -> None:
        save(self, step, *args)
        if self.directory.parent.name == stage and step == number:
            die()

    Checkpoints.save = dying


def die_at_commit(stage: str, number: int) -> None:
    for name in ("rename", "replace"):
        move = getattr(os, name)

        def dying(source: Any, target: Any, *args: Any, move=move, **rest: Any):
            if os.fspath(target).endswith(f"{stage}/checkpoints/{number}"):
                die()
            return move(source, target, *args, **rest)

        setattr(os, name, dying)


def main(workdir: str, data_dir: str, *kill: str) -> None:
    if kill:
        stage, moment, number = kill
        arm = {
            "update": die_at_update,
            "save": die_at_save,
            "commit": die_at_commit,
        }[moment]
        arm(stage, int(number))
    recipe.run(get_config(data_dir=data_dir), workdir)


if __name__ == "__main__":
    main(*sys.argv[1:])
