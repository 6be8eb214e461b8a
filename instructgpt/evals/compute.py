"""Compute of a recipe's training stages in petaflop/s-days (paper §5.1).

Counted are the operations of matrix products, a multiplication and an addition as two,
in forward passes and gradients, of all models that a stage runs. Padding counts, and
work that a remat policy does again does not, nor evaluation.
"""

from collections.abc import Mapping

from instructgpt.evals.report.plotting import MODELS, Curve, Results, title

METRIC = "pfs_days"  # of a metrics.jsonl: the run's compute so far
# Stages -> petaflop/s-days that the paper gives of its models of 175B (§5.1).
PAPER = {"pretrain": 3640.0, "sft": 4.9, "ppo_ptx": 60.0}
_COMPARED = ("sft", "ppo_ptx")  # which the paper adds up to 1.8 % of pretraining


def spent(rows: Curve) -> float | None:
    """Petaflop/s-days of a run until its last metrics; None if they do not say."""
    return next((row[METRIC] for row in reversed(rows) if row.get(METRIC)), None)


def spent_by_stage(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Petaflop/s-days of each stage whose metrics say them."""
    found = {name: spent(rows) for name, rows in curves.items()}
    return {name: value for name, value in found.items() if value is not None}


def compute_table(results: Results) -> tuple[list[str], list[list[str]]]:
    """Columns and rows: each stage's compute beside the paper's, and their shares.

    The last row is the ratio that the paper gives: SFT and PPO-ptx to pretraining.
    """
    compute: dict[str, float] = dict(results.get("compute") or {})
    columns = [
        *("Stage", "PF/s-days", "of pretraining"),
        *("paper, 175B", "paper, of pretraining"),
    ]
    if not compute:
        return columns, []
    rows = [
        [_label(name), *_cells(value, compute), *_cells(PAPER.get(name), PAPER)]
        for name, value in compute.items()
    ]
    if all(name in compute for name in _COMPARED):
        ours, paper = (
            sum(values[name] for name in _COMPARED) for values in (compute, PAPER)
        )
        names = " and ".join(map(_label, _COMPARED))
        rows.append([names, *_cells(ours, compute), *_cells(paper, PAPER)])
    return columns, rows


def _label(stage: str) -> str:
    return MODELS[stage].label if stage in MODELS else title(stage)


def _cells(value: float | None, of: Mapping[str, float]) -> list[str]:
    """A compute, and its share of that of pretraining."""
    if value is None:
        return ["–", "–"]
    whole = of.get("pretrain")
    return [f"{value:,.4g}", f"{100 * value / whole:.3g} %" if whole else "–"]
