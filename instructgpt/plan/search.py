"""Tries meshes, microbatches and remat policies, and keeps the fastest that fits."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.plan.estimate import Estimate
from instructgpt.plan.machines import GIB

_TENSOR = (1, 2, 4, 8, 16)
_PARTS = (1, 2, 4, 8, 16, 32)
_REMAT = ("dots", "full")
_MOST = 16  # largest number of settings that are compiled


class Found(NamedTuple):
    """The best setting of a search."""

    config: ConfigDict
    settings: dict[str, Any]  # values by config key
    tried: list[dict[str, Any]]
    table: str


def search(
    config: ConfigDict,
    run: Callable[[ConfigDict, tuple[str, ...]], Estimate],
    *,
    chips: int,
    update: str,
    parts_key: str,
    log: Callable[[str], None],
) -> Found:
    """Compiles the update under each setting, and returns the fastest that fits.

    The update needs the most memory and most of the time. For each mesh and remat
    policy microbatches are doubled until it fits, because fewer are never slower.

    Args:
      config: The stage's config, which is not changed.
      run: Plans a config for some of its programs.
      chips: Number of chips of the mesh.
      update: Name of the program that is compiled.
      parts_key: The config key of its number of microbatches.
      log: Called with a message on each setting.

    Raises:
      UserError: no setting that was tried fits.
    """
    tried: list[dict[str, Any]] = []
    best: tuple[float, dict[str, Any]] | None = None
    for tensor in (t for t in _TENSOR if chips % t == 0):
        for remat in _REMAT:
            for parts in _PARTS:
                if len(tried) >= _MOST:
                    break
                settings = {
                    "mesh.data": 1,
                    "mesh.fsdp": chips // tensor,
                    "mesh.tensor": tensor,
                    "model.remat": remat,
                    "model.sequence_parallel": tensor > 1,
                    parts_key: parts,
                }
                plan = _try(
                    with_settings(config, settings), run, settings, tried, log, update
                )
                if plan is None:
                    break  # more parts do not divide either
                if plan.fits:
                    if best is None or plan.iteration_seconds < best[0]:
                        best = plan.iteration_seconds, settings
                    break
    table = "\n".join(_lines(tried))
    if best is None:
        raise UserError(f"none of these settings fits; take more chips\n{table}")
    return Found(with_settings(config, best[1]), best[1], tried, table)


def _try(
    config: ConfigDict,
    run: Callable[[ConfigDict, tuple[str, ...]], Estimate],
    settings: dict[str, Any],
    tried: list[dict[str, Any]],
    log: Callable[[str], None],
    update: str,
) -> Estimate | None:
    log(", ".join(f"{k}={v}" for k, v in settings.items()))
    try:
        plan = run(config, (update,))
    except UserError as error:
        tried.append({**settings, "error": str(error)})
        return None
    tried.append(
        {
            **settings,
            "peak": plan.peak,
            "fits": plan.fits,
            "bound_seconds": plan.bounds[update].seconds,
            "bound_by": plan.bounds[update].by,
        }
    )
    return plan


def with_settings(config: ConfigDict, settings: dict[str, Any]) -> ConfigDict:
    """A copy of the config with these keys set."""
    config = copy.deepcopy(config)
    with config.unlocked():
        for key, value in settings.items():
            block, _, name = key.partition(".")
            config[block][name] = value
    return config


def _lines(tried: list[dict[str, Any]]) -> Iterator[str]:
    yield f"{'fsdp':>6}{'tensor':>8}{'remat':>7}{'parts':>7}{'GiB/chip':>10}  at best"
    for row in tried:
        parts = next(v for k, v in row.items() if k.endswith("microbatches"))
        text = (
            f"{row['mesh.fsdp']:>6}{row['mesh.tensor']:>8}{row['model.remat']:>7}"
            f"{parts:>7}"
        )
        if "error" in row:
            yield f"{text}  {row['error']}"
            continue
        yield (
            f"{text}{row['peak'] / GIB:>10.3g}  {row['bound_seconds']:.3g} s by "
            f"{row['bound_by']}{'' if row['fits'] else ', does not fit'}"
        )
