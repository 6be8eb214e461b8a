"""Measures how the cost of an SFT update grows with sizes.

    python tests/benchmarks/scaling.py [--out=scaling.png --width=512 ...]

Width, depth, batch and length are changed, one at a time. `relative` is a point's
operations a second over those of the base: 1 where time follows the operations. All
points are timed in turns, so that a machine's moods meet all of them, and the fastest
of a point's turns counts. The time to compile is that of the gradient, by depth.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.cli import keep_memory  # noqa: E402
from instructgpt.evals.report import plotting  # noqa: E402
from instructgpt.models.costs import forward  # noqa: E402
from instructgpt.models.transformer import Transformer  # noqa: E402
from instructgpt.state import params_layout  # noqa: E402
from instructgpt.steps.sft import make_sft_loss  # noqa: E402
from instructgpt.steps.update import gradients  # noqa: E402
from tests.benchmarks import jobs, run  # noqa: E402

AXES = ("width", "layers", "batch", "seq")
FACTORS = (0.5, 1, 2, 4)
DEPTHS = (2, 4, 8, 16, 32)
BASE = dict(width=512, heads=8, layers=2, batch=8, seq=256, iterations=3, vocab=8192)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    run.add_sizes(parser, run.SIZES | BASE)
    parser.add_argument("--out", default="", help="where to draw a picture")
    parser.set_defaults(scan_layers=True)  # as models of any depth are trained
    return parser.parse_args(argv)


def changed(args: argparse.Namespace, axis: str, factor: float) -> argparse.Namespace:
    """The sizes with one of them times a factor; heads keep their width."""
    values = vars(args) | {axis: int(getattr(args, axis) * factor)}
    if axis == "width":
        values["heads"] = max(int(args.heads * factor), 1)
    values["context"] = max(args.context, values["seq"])
    return argparse.Namespace(**values)


def operations(args: argparse.Namespace) -> float:
    """Operations of an update, masked pairs of a query and a key included."""
    count = args.batch * args.seq
    config = jobs.Bench(args).config()
    return 3 * forward(config, tokens=count, seen=args.seq, predicted=count).flops


def times(args: argparse.Namespace) -> dict[tuple[str, float], float]:
    """Seconds of an update at every point."""
    points = {(a, f): changed(args, a, f) for a in AXES for f in FACTORS}
    calls = {point: jobs.sft(sizes).run for point, sizes in points.items()}
    best = dict.fromkeys(calls, float("inf"))
    for turn in range(args.iterations + 1):
        for point, call in calls.items():
            start = time.perf_counter()
            jax.block_until_ready(call())
            if turn:  # the first compiles
                best[point] = min(best[point], time.perf_counter() - start)
    return best


def compile_seconds(args: argparse.Namespace, layers: int) -> float:
    """Seconds to compile the SFT gradient at this depth, without a cache."""
    sizes = argparse.Namespace(**vars(args) | dict(layers=layers))
    bench = jobs.Bench(sizes)
    model = Transformer(bench.config())
    loss = make_sft_loss(model, leading_padding=False)
    batch = bench.texts(args.batch, args.seq)
    params = params_layout(model, bench.mesh)
    step = jax.jit(lambda p, b: gradients(loss, p, b, bench.key)[0])
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with jax.set_mesh(bench.mesh):
            start = time.perf_counter()
            step.lower(params, batch).compile()
        return time.perf_counter() - start
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)


@plotting.styled
def draw(
    relative: dict[str, dict[float, float]], compiled: dict[int, float]
) -> plotting.Figure:
    """A panel of each size, and one of the compiler."""
    fig = plotting.Figure(figsize=(9.6, 2.4))
    panels = fig.subplots(1, len(relative) + 1)
    for panel, (axis, values) in zip(panels, relative.items(), strict=False):
        panel.axhspan(0.85, 1.15, color=plotting.GRID)
        panel.plot(list(values), list(values.values()), "o-", color="#0072b2")
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(values), [f"×{x:g}" for x in values])
        panel.set_ylim(0, 1.5)
        panel.set_title({"seq": "length", "layers": "depth"}.get(axis, axis))
    panels[0].set_ylabel("operations a second,\nrelative to ×1")
    panels[-1].plot(list(compiled), list(compiled.values()), "o-", color="#d55e00")
    panels[-1].set_xscale("log", base=2)
    panels[-1].set_xticks(list(compiled), list(map(str, compiled)))
    panels[-1].set_ylim(0, 1.3 * max(compiled.values()))
    panels[-1].set_title("compilation, s")
    panels[-1].set_xlabel("layers")
    return fig


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measures, prints lines of JSON and draws."""
    args = parse(argv)
    print(json.dumps({"device": run.device_name(args), "dtype": args.dtype}))
    best = times(args)
    relative: dict[str, dict[float, float]] = {axis: {} for axis in AXES}
    for (axis, factor), seconds in best.items():
        speed = operations(changed(args, axis, factor)) / seconds
        base = operations(args) / best[axis, 1]
        relative[axis][factor] = round(speed / base, 3)
    compiled = {n: round(compile_seconds(args, n), 2) for n in DEPTHS}
    for axis in AXES:
        print(json.dumps({"axis": axis, "relative": relative[axis]}))
    print(json.dumps({"compile_seconds_by_depth": compiled}), flush=True)
    if args.out:
        Path(args.out).write_bytes(plotting.to_png(draw(relative, compiled)))
    return {"relative": relative, "compiled": compiled}


if __name__ == "__main__":
    keep_memory()  # as instructgpt.main does
    main()
