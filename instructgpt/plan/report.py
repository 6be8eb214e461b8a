"""Formats a plan as text and as JSON."""

from typing import Any

from instructgpt.models.costs import PFS_DAY
from instructgpt.plan.estimate import Estimate, cost_of, passing_bytes
from instructgpt.plan.machines import GIB
from instructgpt.stages.programs import Program


def _gib(size: float) -> str:
    if abs(size) < GIB / 10:
        return f"{size / 2**20:10.2f} MiB"
    return f"{size / GIB:10.2f} GiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} d"


def _petaflops(program: Program) -> str:
    return f"{program.cost.flops / 1e15:.4g}" if program.cost else "not counted"


def as_text(plan: Estimate) -> str:
    """The plan as text: memory, time, and advice."""
    chip, programs = plan.machine.chip, plan.work.programs
    mesh = " x ".join(f"{k}={v}" for k, v in plan.mesh.items())
    lines = [f"{plan.machine.name}, mesh {mesh}", "", "bytes of a chip"]
    lines += [f"  {name:<28}{_gib(size)}" for name, size in plan.held.items()]
    lines += ["  while it runs:"]
    for name, compiled in plan.compiled.items():
        size = passing_bytes(programs[name], plan.work, compiled)
        note = f"   {compiled.error}" if compiled.error else ""
        lines.append(f"    {name:<26}{_gib(size)}{note}")
    lines += [
        f"  {'at the worst moment':<28}{_gib(plan.peak)}",
        f"  {'of':<28}{_gib(chip.memory)}",
        f"  {'headroom':<28}{_gib(plan.headroom)}",
        "",
        f"{'an iteration':<16}{'calls':>6}{'PFLOPs':>12}{'sent/chip':>14}"
        f"{'at best':>11}  bound by   compiled in",
    ]
    for name, compiled in plan.compiled.items():
        program, bound = programs[name], plan.bounds[name]
        sent = _gib(sum(compiled.collectives.values()))
        lines.append(
            f"  {name:<14}{program.calls:>6g}{_petaflops(program):>12}"
            f"{sent}{_time(bound.seconds):>11}  {bound.by:<9}"
            f"{compiled.seconds:>9.1f} s"
        )
        kinds = sorted(compiled.collectives.items(), key=lambda kv: -kv[1])
        lines += [f"      {kind:<24}{_gib(size)}" for kind, size in kinds if size]
    lines += ["", *_totals(plan), "", *advice(plan)]
    return "\n".join(lines)


def _totals(plan: Estimate) -> list[str]:
    seconds, flops = plan.iteration_seconds, plan.iteration_flops
    out = [f"an iteration: {flops / 1e15:.3g} PFLOPs, at best {_time(seconds)}"]
    count = plan.work.iterations
    if count:
        out.append(
            f"the stage's {count:,}: {count * flops / PFS_DAY:.3g} PF/s-days, at best "
            f"{_time(count * seconds)}"
        )
    return out


def advice(plan: Estimate) -> list[str]:
    """Says whether the stage fits and, if not, what to change, best remedy first."""
    left = ", ".join(k for k in plan.work.programs if k not in plan.compiled)
    if plan.fits:
        return [f"it fits, as far as was looked: without {left}" if left else "it fits"]
    worst = max(
        plan.compiled,
        key=lambda k: passing_bytes(plan.work.programs[k], plan.work, plan.compiled[k]),
    )
    room = plan.machine.chip.memory - sum(plan.held.values())
    out = [f"it does not fit: {-plan.headroom / GIB:.2f} GiB a chip are missing"]
    if room <= 0:
        out.append(
            "what is held alone is too much: take more chips, or move devices from "
            "config.mesh.data to config.mesh.fsdp"
        )
        return out
    program = plan.work.programs[worst]
    out.append(f"{worst} needs most: {program.remedy}")
    if program.microbatches:
        out.append(
            "or set config.model.remat=full, or raise config.mesh.tensor and set "
            "config.model.sequence_parallel"
        )
    out.append("or take more chips; --search tries meshes and microbatches")
    return out


def as_json(plan: Estimate) -> dict[str, Any]:
    """The plan's numbers as JSON, in bytes, operations and seconds."""
    programs = plan.work.programs
    return {
        "machine": plan.machine.name,
        "chips": len(plan.machine.devices),
        "mesh": plan.mesh,
        "fits": plan.fits,
        "bytes_per_chip": {
            "held": plan.held,
            "running": {
                name: passing_bytes(programs[name], plan.work, compiled)
                for name, compiled in plan.compiled.items()
            },
            "peak": plan.peak,
            "memory": plan.machine.chip.memory,
            "headroom": plan.headroom,
        },
        "phases": {
            name: {
                "calls": programs[name].calls,
                "flops": cost_of(programs[name]).flops,
                "arguments": compiled.arguments,
                "temporaries": compiled.temporaries,
                "outputs": compiled.outputs,
                "collective_bytes": compiled.collectives,
                "bound_seconds": plan.bounds[name].seconds,
                "bound_by": plan.bounds[name].by,
                "compile_seconds": round(compiled.seconds, 1),
                "error": compiled.error,
            }
            for name, compiled in plan.compiled.items()
        },
        "iterations": plan.work.iterations,
        "iteration_flops": plan.iteration_flops,
        "iteration_seconds": plan.iteration_seconds,
        "pfs_days": plan.work.iterations * plan.iteration_flops / PFS_DAY,
        "stage_seconds": plan.work.iterations * plan.iteration_seconds,
    }
