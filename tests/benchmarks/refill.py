"""Measures the gain of refilling the sampler's slots if responses differ in length.

    python tests/benchmarks/refill.py [--responses=256 --slots=32 ...]

A model of random weights; so many of its tokens end a response that lengths are about
geometric, with a mean of one fifth of the maximum. The same prompts go through static
batches of as many rows as there are slots, each as long as its longest response, and
through slots that are refilled; both in turns, medians. The tokens must be the same.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.batches import PromptBatch  # noqa: E402
from instructgpt.cli import keep_memory  # noqa: E402
from instructgpt.generation import make_sampler  # noqa: E402
from instructgpt.models.transformer import Transformer  # noqa: E402
from instructgpt.sampling import Samples, SamplingConfig  # noqa: E402
from tests.benchmarks import jobs, run  # noqa: E402

SIZES = run.SIZES | dict(responses=256, slots=32, refill=0)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    run.add_sizes(parser, SIZES)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> dict[str, object]:
    """Runs both and prints one line of JSON."""
    args = parse(argv)
    bench = jobs.Bench(args)
    model = Transformer(bench.config(training=False))
    params = bench.state(model).params
    ends = tuple(range(4, 4 + max(args.vocab * 5 // args.response, 1)))
    count, size = args.responses, args.slots
    prompts = bench.prompts(count, args.prompt)
    parts = [
        PromptBatch(*(x[i : i + size] for x in prompts)) for i in range(0, count, size)
    ]

    def sampler(slots: int, refill: int = 0):
        config = SamplingConfig(args.response, slots=slots, refill=refill)
        return make_sampler(model, config=config, stop_ids=ends, pad_id=0)

    static, refilled = sampler(0), sampler(size, args.refill)

    def in_batches() -> Samples:
        outs = [static(params, bench.put(part), bench.key) for part in parts]
        return Samples(*(np.concatenate(x) for x in zip(*outs, strict=True)))

    def in_slots() -> Samples:
        return jax.device_get(refilled(params, bench.put(prompts), bench.key))

    seconds: dict[str, list[float]] = {"static": [], "refilled": []}
    for i in range(args.iterations + 1):
        for name, call in (("static", in_batches), ("refilled", in_slots)):
            start = time.perf_counter()
            with jax.set_mesh(bench.mesh):
                out = call()
            if i:  # the first compiles
                seconds[name].append(time.perf_counter() - start)
            if name == "static":
                want = out
    lengths = np.asarray(want.valid).sum(axis=-1)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    line = {
        "device": run.device_name(args),
        "responses": count,
        "slots": size,
        "mean_length": round(float(lengths.mean()), 1),
        "max_length": int(lengths.max()),
        **{f"{name}_s": round(value, 3) for name, value in medians.items()},
        "ratio": round(medians["refilled"] / medians["static"], 3),
        "same_tokens": bool(np.array_equal(out.tokens, want.tokens)),
        "max_log_prob_gap": float(np.abs(out.log_probs - want.log_probs).max()),
    }
    print(json.dumps(line), flush=True)
    return line


if __name__ == "__main__":
    keep_memory()  # as instructgpt.main does
    main()
