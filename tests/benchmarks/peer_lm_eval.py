"""The same task files through our adapter and through transformers in lm-eval.

    python tests/benchmarks/peer_lm_eval.py WORKDIR SETS [--limit=200]

WORKDIR holds an imported model, and SETS the evaluation sets (write them by
`tests/evals/benchmarks/shared_sets.py`). The model is exported, so that both have the
same weights in float32. The script compares every item: RTE whole, and TruthfulQA's
answers and MC1 up to the limit. It needs torch and transformers.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

import numpy as np  # noqa: E402

from instructgpt.convert.exporting import export_checkpoint  # noqa: E402
from instructgpt.evals.benchmarks.suite import Suite  # noqa: E402
from instructgpt.inference import LanguageModel  # noqa: E402
from instructgpt.progress import print_table  # noqa: E402

TASKS = {
    "instructgpt_rte": 0,
    "instructgpt_truthfulqa_qa": 1,
    "instructgpt_truthfulqa_mc1": 1,
}


def main() -> int:
    """Prints a table and every item that differs; returns 1 if one does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("sets", type=Path)
    parser.add_argument("--limit", type=int, default=200)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        public = Path(folder) / "model"
        export_checkpoint(args.workdir, public)
        lines, differing = [], []
        for task, limited in TASKS.items():
            limit = args.limit if limited else 0
            suite = Suite.open(task, limit=limit, sets=str(args.sets), batch_size=32)
            began = time.monotonic()
            ours = suite.run(LanguageModel.open(args.workdir), name=task).rows
            seconds = time.monotonic() - began
            theirs = _peer(suite, public)
            peer_seconds = time.monotonic() - began - seconds
            found = _compare(task, ours, theirs)
            differing += found.differing
            lines.append(
                [
                    task,
                    str(len(ours)),
                    str(len(found.differing)),
                    f"{found.apart:.1e}",
                    f"{seconds:.0f}",
                    f"{peer_seconds:.0f}",
                ]
            )
    for line in differing:
        print(line)
    columns = ["Task", "Items", "Differ", "Nats apart", "Seconds", "Peer's"]
    print_table(lines, columns)
    return bool(differing)


def _peer(suite: Suite, public: Path) -> list[dict]:
    """The rows of transformers' model in the harness, on the same questions."""
    import torch
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=str(public), dtype=torch.float32, device="cpu", batch_size=8)
    return list(suite.ask(peer).rows)


class _Agreement:
    def __init__(self) -> None:
        self.differing: list[str] = []
        self.apart = 0.0


def _compare(task: str, ours, theirs) -> _Agreement:
    found = _Agreement()
    for a, b in zip(ours, theirs, strict=True):
        assert (a["prompt"], a["choices"]) == (b["prompt"], b["choices"])
        if a["choices"] is None:
            same = a["response"] == b["response"]
        else:
            here, there = (np.array([r[0] for r in x["response"]]) for x in (a, b))
            found.apart = max(found.apart, float(np.abs(here - there).max()))
            metrics = {m for m in b["metrics"] if m in a["metrics"]}
            same = all(a["metrics"][m] == b["metrics"][m] for m in metrics)
            same &= [r[1] for r in a["response"]] == [r[1] for r in b["response"]]
        if not same:
            said = {"ours": a["response"], "theirs": b["response"]}
            found.differing.append(f"{task} {a['number']}: {said}")
    return found


if __name__ == "__main__":
    sys.exit(main())
