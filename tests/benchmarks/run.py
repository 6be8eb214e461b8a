"""How fast the steps and the sampler are, and how far from this machine's limit.

    python tests/benchmarks/run.py [sft] [reward] [sample] [ppo] [--width=256 ...]

Random tokens and weights; nothing ends early. On a CPU each core is a device with rows
of its own, unless JAX_NUM_CPU_DEVICES says otherwise. Each job prints one line of JSON:
the median seconds, its rate, and `roofline`: the least time that its operations and
bytes take at this machine's own rates (measured first, in the same run), over the
median.
--profile adds where the time goes, --memory what is in memory (PPO holds four models).
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.cli import keep_memory  # noqa: E402
from tests.benchmarks import jobs  # noqa: E402

SIZES = dict(
    layers=4,
    width=256,
    heads=4,
    vocab=8192,
    context=512,
    batch=16,
    seq=256,
    prompts=8,
    K=9,
    reward_prompt=128,
    reward_response=64,
    samples=32,
    prompt=128,
    response=128,
    episodes=64,
    minibatch=16,
    ppo_prompt=64,
    ppo_response=64,
    ptx=0,  # pretraining rows of `seq` tokens a minibatch; 0: plain PPO
    iterations=4,
    seed=0,
)
WARMUP = 2


def add_sizes(parser: argparse.ArgumentParser, sizes: dict[str, int]) -> None:
    """What every benchmark of a model takes."""
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--dtype", default="float32", help="compute dtype")
    parser.add_argument("--devices", type=int, default=0, help="how many; 0: all")
    parser.add_argument("--remat", default="none", help="of the updates")
    parser.add_argument("--fused", action="store_true", help="fused attention")
    parser.add_argument("--scan_layers", action="store_true", help="in a loop")
    parser.add_argument("--logit_chunk", type=int, default=0, help="tokens; 0: auto")


def device_name(args: argparse.Namespace) -> str:
    """The number and the kind of the devices that a benchmark uses."""
    return f"{args.devices or jax.device_count()} x {jax.devices()[0].device_kind}"


class Rates(NamedTuple):
    """What the machine does at best."""

    flops_per_second: float  # of a large matrix product, in the compute dtype
    bytes_per_second: float  # of a large copy, read and written


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("jobs", nargs="*", help=f"of {', '.join(jobs.JOBS)}; all")
    add_sizes(parser, SIZES)
    parser.add_argument("--profile", action="store_true", help="time, by part")
    parser.add_argument("--memory", action="store_true", help="bytes, by part")
    parser.add_argument("--rate_size", type=int, default=0, help="see measure_rates")
    args = parser.parse_args(argv)
    args.jobs = args.jobs or list(jobs.JOBS)
    unknown = set(args.jobs) - jobs.JOBS.keys()
    if unknown:
        parser.error(f"no job {', '.join(sorted(unknown))}; known: {[*jobs.JOBS]}")
    return args


def seconds_of(function: Callable[[], Any], *, count: int) -> list[float]:
    """Wall times of `count` calls, after some that do not count."""
    out = []
    for i in range(WARMUP + count):
        start = time.perf_counter()
        jax.block_until_ready(function())
        if i >= WARMUP:
            out.append(time.perf_counter() - start)
    return out


def use_cores() -> None:
    """Makes each core of the CPU a device: cores that share every product wait more.

    To be called before JAX looks for devices.
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
        number = int(os.environ.get("JAX_NUM_CPU_DEVICES", cores))
        jax.config.update("jax_num_cpu_devices", number)


def measure_rates(dtype: str, size: int = 0) -> Rates:
    """Measures products and copies of matrices [size, size].

    The default size is too large for any cache and small enough for any machine. One
    call makes several, because starting a program on a GPU takes as long as a product.
    """
    on_cpu = jax.default_backend() == "cpu"
    size, repeats = size or (2048 if on_cpu else 8192), 4 if on_cpu else 16
    # Random numbers: a GPU multiplies ones faster than it does anything real.
    matrix = jax.random.normal(jax.random.key(0), (size, size)) / size**0.5
    matrix = matrix.astype(dtype)
    product = jax.jit(
        lambda x: jax.lax.fori_loop(0, repeats, lambda _, y: y @ x, x),
    )
    products = min(seconds_of(lambda: product(matrix), count=8))
    # Onto itself, so that fresh memory is no part of it.
    values = jnp.zeros((16 if on_cpu else 8, size, size))
    shift = jax.jit(
        lambda x: jax.lax.fori_loop(0, repeats, lambda _, y: y + 1.0, x),
        donate_argnums=0,
    )

    def copy() -> jax.Array:
        nonlocal values
        values = shift(values)
        return values

    copies = min(seconds_of(copy, count=8))
    return Rates(repeats * 2 * size**3 / products, repeats * 2 * values.nbytes / copies)


def report(job: jobs.Job, seconds: list[float], rates: Rates) -> dict[str, Any]:
    """The line of a job."""
    median = statistics.median(seconds)
    bound = job.cost.seconds(**rates._asdict())
    return {
        "system": "instructgpt",
        "job": job.name,
        "median_s": round(median, 4),
        "n": len(seconds),
        job.unit: round(job.amount / median, 4),
        "gflops": round(job.cost.flops / median / 1e9, 1),
        "roofline": round(bound / median, 3),
    }


def profile(job: jobs.Job, rates: Rates) -> Iterator[str]:
    """Each part on its own: its time, its share and its roofline."""
    times = {
        name: statistics.median(seconds_of(part, count=4))
        for name, (part, _) in job.parts.items()
    }
    costs = {name: cost for name, (_, cost) in job.parts.items()}
    for name, (whole, part, cost) in job.rest.items():
        times[name], costs[name] = times[whole] - times[part], cost
        del times[whole]
    total = sum(times.values())
    for name, seconds in times.items():
        bound = costs[name].seconds(**rates._asdict())
        yield (
            f"  {name:<15}{seconds * 1e3:9.1f} ms {seconds / total:6.1%}"
            f"   roofline {bound / seconds:.3f}"
        )


def memory(job: jobs.Job) -> Iterator[str]:
    """What is held all the time, and what each part needs besides its arguments."""
    for name, tree in job.held.items():
        size = sum(x.nbytes for x in jax.tree.leaves(tree) if hasattr(x, "nbytes"))
        yield f"  {name:<20}{size / 2**20:10.1f} MiB held"
    for name, (part, _) in job.parts.items():
        needs = part.memory()
        yield (
            f"  {name:<20}{needs.temp_size_in_bytes / 2**20:10.1f} MiB temporaries"
            f"{needs.output_size_in_bytes / 2**20:10.1f} MiB outputs"
        )


def main(argv: list[str] | None = None) -> None:
    """Runs the jobs."""
    args = parse(argv)
    rates = measure_rates(args.dtype, args.rate_size)
    print(
        json.dumps(
            {
                "device": device_name(args),
                "dtype": args.dtype,
                "gflops": round(rates.flops_per_second / 1e9, 1),
                "gb_per_s": round(rates.bytes_per_second / 1e9, 1),
            }
        ),
        flush=True,
    )
    for name in args.jobs:
        job = jobs.JOBS[name](args)
        if args.memory:  # before a run gives what is held away
            print("\n".join(memory(job)), flush=True)
        seconds = seconds_of(job.run, count=args.iterations)
        print(json.dumps(report(job, seconds, rates)), flush=True)
        if args.profile:
            print("\n".join(profile(job, rates)), flush=True)


if __name__ == "__main__":
    keep_memory()  # as instructgpt.main does
    use_cores()
    main()
