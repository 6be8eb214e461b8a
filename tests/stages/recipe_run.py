"""The whole recipe at `smoke`, run once a session for every test that needs it.

Eight fake devices, cut 2 x 2 x 2, so that every stage is sharded along every axis.
"""

import functools
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from ml_collections import ConfigDict

from configs import recipe as recipe_config
from instructgpt.stages import recipe
from tests.faults import same_end
from tests.stages.compile_spy import compilations
from tests.stages.read_spy import reads_of_config_fields

MESH = dict(data=2, fsdp=2, tensor=2)


class Finished(NamedTuple):
    """A recipe that ran to its end."""

    workdir: Path
    unread: dict[str, set[str]]  # fields of config classes that nothing looked at
    compiled: dict[str, list[int]]  # by job: programs compiled in each update
    seconds: float


def get_config(*, data_dir: str = "../data") -> ConfigDict:
    """The smoke recipe on eight devices."""
    config = recipe_config.get_config("smoke")
    for stage in config.stages.values():
        stage.mesh.update(MESH)
        stage.data.dir = data_dir
    return config


@functools.cache
def _run(root: Path) -> Finished:
    workdir = root / "recipe"
    began = time.monotonic()
    with reads_of_config_fields() as unread, compilations() as compiled:
        recipe.run(get_config(), workdir)
    return Finished(workdir, unread, compiled, time.monotonic() - began)


def finished(factory: pytest.TempPathFactory) -> Finished:
    """The recipe of this session; the first call runs it. Leave it as it is."""
    return _run(factory.getbasetemp())


def link_stages(run: Finished, folder: Path) -> None:
    """Puts the finished stages where one that is run in this folder looks for them."""
    folder.mkdir(exist_ok=True)
    for stage in run.workdir.iterdir():
        if not (folder / stage.name).exists():
            (folder / stage.name).symlink_to(stage)


def unfinished(run: Finished, workdir: Path, stages: Sequence[str]) -> Path:
    """A copy of the recipe's workdir as if some of its stages had not been run."""
    shutil.copytree(run.workdir, workdir)
    for stage in stages:
        shutil.rmtree(workdir / stage)
    return workdir


def newest_checkpoint(stage: Path) -> Path:
    steps = (stage / "checkpoints").glob("[0-9]*")
    return max((p for p in steps if p.name.isdigit()), key=lambda p: int(p.name))


def load_checkpoint(stage: Path) -> dict:
    """All that the newest checkpoint holds: parameters, optimiser, iterator, key."""
    return same_end.load_checkpoint(newest_checkpoint(stage))
