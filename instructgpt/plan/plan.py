"""Makes a plan from a config and the name of a machine."""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.models.config import GPT3_SIZES, PUBLIC_SIZES
from instructgpt.plan.estimate import Estimate, estimate
from instructgpt.plan.fewest import fewest
from instructgpt.plan.machines import SLICES, Machine, gpus, tpu
from instructgpt.plan.report import as_json, as_text
from instructgpt.plan.search import search
from instructgpt.plan.work import check_planned, describe
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import find
from instructgpt.stages.blocks import build
from instructgpt.stages.programs import Models

SIZES = GPT3_SIZES | PUBLIC_SIZES


@dataclasses.dataclass(frozen=True)
class Request:
    """The flags of a plan: machine, models and programs."""

    variant: str = ""  # variant of the config, which gives the models' sizes
    topology: str = ""  # a TPU slice, or a kind, to find its smallest slice that fits
    devices: int = 0  # number of GPUs, instead of a topology
    gpu: str = "h100"
    memory: float = 0.0  # memory of a GPU in GiB; 0: that of its kind
    model: str = ""  # name of a size; "": the variant's
    reward_model: str = ""  # name of a size; "": 6b for the paper's, else the model's
    phases: tuple[str, ...] = ()  # functions to compile; empty: all
    search: bool = False


def plan_stage(
    config: ConfigDict, request: Request, *, log: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """Plans a stage; returns the plan as text and as JSON.

    Args:
      config: The stage's config, which is not changed.
      request: The machine, models and programs.
      log: Called with a message on each step.

    Raises:
      UserError: a flag, a size or a mesh is not valid.
    """
    check_planned(config)
    if request.search and request.phases:
        raise UserError("--search looks at whole stages; leave --phases out")
    if request.topology in SLICES:
        return _plan_fewest(config, request, log)
    machine = find_machine(request)
    models = find_models(config, request)

    def run(config: ConfigDict, phases: tuple[str, ...] = ()) -> Estimate:
        return _plan(config, models, machine, log, phases=phases)

    if not request.search:
        plan = run(config, request.phases)
        return as_text(plan), as_json(plan)
    update, parts_key = _find_update(config, models, machine)
    found = search(
        config,
        run,
        chips=len(machine.devices),
        update=update,
        parts_key=parts_key,
        log=log,
    )
    plan = run(found.config)
    text = f"{found.table}\n\n{as_text(plan)}"
    return text, {**as_json(plan), "settings": found.settings, "tried": found.tried}


def _plan_fewest(
    config: ConfigDict, request: Request, log: Callable[[str], None]
) -> tuple[str, dict[str, Any]]:
    """Plans for the smallest slice of a kind of TPU that the stage fits on."""
    if request.search or request.phases:
        raise UserError(
            f"--topology={request.topology} plans the whole stage for one slice after "
            "another; give one, such as v5p:4x4x8, with --search or --phases"
        )
    models = find_models(config, request)
    first = f"{request.topology}:{SLICES[request.topology][0]}"
    find_machine(dataclasses.replace(request, topology=first))  # fails without compiler

    def run(topology: str) -> Estimate:
        machine = tpu(topology)
        return _plan(config, models, machine, log, until_full=True)

    found = fewest(request.topology, run, log=log)
    plan = as_json(found.plan)
    return f"{found.table}\n\n{as_text(found.plan)}", {**plan, "tried": found.tried}


def _plan(
    config: ConfigDict,
    models: Models,
    machine: Machine,
    log: Callable[[str], None],
    **options: Any,
) -> Estimate:
    """Plans for one machine; see `estimate` for the options."""
    mesh = make_mesh(
        build(MeshConfig, config.mesh, where="config.mesh"), devices=machine.devices
    )
    with jax.set_mesh(mesh):
        work = describe(config, models, mesh)
        return estimate(work, machine, mesh, log=log, **options)


def find_machine(request: Request) -> Machine:
    """Builds the machine that the flags name."""
    if bool(request.topology) == bool(request.devices):
        raise UserError(
            "give either --topology=v5p:4x4x8, a TPU slice, or --devices=8, so many "
            "GPUs"
        )
    if request.topology:
        return tpu(request.topology)
    # If JAX has already started, `gpus` raises an error that says so.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", request.devices)
    return gpus(request.devices, kind=request.gpu, memory=request.memory)


def _find_update(
    config: ConfigDict, models: Models, machine: Machine
) -> tuple[str, str]:
    """The program that microbatches make smaller, and the config key of these.

    Raises:
      UserError: the stage has no such program.
    """
    mesh = make_mesh(MeshConfig(), devices=machine.devices[:1])  # one divides all sizes
    with jax.set_mesh(mesh):
        work = describe(config, models, mesh)
    if not work.update:
        raise UserError(
            f"--search: config.stage={config.stage!r} names no program that "
            "microbatches make smaller"
        )
    return work.update, work.programs[work.update].microbatches


def find_models(config: ConfigDict, request: Request) -> Models:
    """Configs of the models that a stage starts from, by the flags' or variant's size.

    Raises:
      UserError: a required name of a size is missing or unknown.
    """
    model = request.model or request.variant
    paper = request.variant in ("1.3b", "6b", "175b")
    names = {
        "model": model,
        "reward_model": request.reward_model or ("6b" if paper else model),
    }
    needed = find(config.stage).models
    for flag in dict.fromkeys(needed.values()):
        if names[flag] not in SIZES:
            raise UserError(
                f"--{flag}: the config's variant {request.variant!r} names no size of "
                f"model; give one of {', '.join(SIZES)}"
            )
    return {block: SIZES[names[flag]] for block, flag in needed.items()}
