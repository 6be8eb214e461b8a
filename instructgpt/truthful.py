"""Makes and measures judges of TruthfulQA; launch/truthful_judges.sh is the whole.

    python -m instructgpt.truthful records LABELS OUT [--folds=2] [--number=N]
    python -m instructgpt.truthful measure LABELS OUT

LABELS is the folder of the published labels, finetune_truth.jsonl and
finetune_info.jsonl, which may be gzipped. `records` writes OUT/KIND/FOLD/records, of
the questions that are not in the fold, and the `sft` stage then trains each judge in
OUT/KIND/FOLD/sft. `measure` compares the judges with the labels of questions that they
were not trained on, prints a table, and writes OUT/judges.json, which
--config.evaluate.judges names.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from instructgpt.errors import UserError
from instructgpt.evals.benchmarks.truthful import (
    ENDINGS,
    Agreement,
    Label,
    agreement,
    demonstrations,
    fold_of,
    open_judges,
    read_labels,
)
from instructgpt.identity import read_json, write_json
from instructgpt.outputs import in_one_line, new_file
from instructgpt.paths import from_shell
from instructgpt.progress import print_table

_FOLDS = "folds.json"  # in the folder of the judges: how many there are of each kind
_VALID = 0.05  # share of the training questions that are for validation


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one of the two parts; a user's mistake ends in one line."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.truthful",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", choices=("records", "measure"))
    parser.add_argument("labels", help="folder of the published labels")
    parser.add_argument("out", help="folder of the judges")
    parser.add_argument("--folds", type=int, default=2, help="judges of each kind")
    parser.add_argument(
        "--number", type=int, default=0, help="labels that train a judge; 0: all"
    )
    args = parser.parse_args(argv)
    labels, out = Path(from_shell(args.labels)), Path(from_shell(args.out))
    try:
        if args.part == "records":
            write_records(labels, out, folds=args.folds, number=args.number)
        else:
            measure(labels, out)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args.labels)}")


def write_records(labels: Path, out: Path, *, folds: int, number: int) -> None:
    """Writes the demonstrations from which each fold's judge learns.

    Args:
      labels: The folder of the published labels.
      out: The folder of the judges.
      folds: Judges of each kind, 2 or more.
      number: Labels that train a judge, drawn at random; 0: all.

    Raises:
      UserError: the labels are missing or there are too few folds.
    """
    if folds < 2:
        raise UserError(
            f"--folds={folds}: give 2 or more, as no judge may judge what "
            "it was trained on"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / _FOLDS, {"folds": folds})
    for kind in ENDINGS:
        found = _labels(labels, kind)
        for fold in range(folds):
            learnt = [x for x in found if fold_of(x.question, folds) != fold]
            train, valid = _split(learnt, number, seed=fold)
            folder = out / kind / str(fold) / "records"
            folder.mkdir(parents=True, exist_ok=True)
            for split, part in (("train", train), ("valid", valid)):
                lines = map(json.dumps, demonstrations(part, kind))
                with new_file(folder / f"demonstrations.{split}.jsonl") as partial:
                    partial.write_text("".join(f"{line}\n" for line in lines))
            print(f"{folder}: {len(train)} labels to learn from, {len(valid)} to watch")


def _split(
    labels: Sequence[Label], number: int, *, seed: int
) -> tuple[list[Label], list[Label]]:
    """Training and validation labels, of different questions."""
    rng = random.Random(seed)
    questions = sorted({label.question for label in labels})
    watched = set(rng.sample(questions, max(1, int(_VALID * len(questions)))))
    train = [label for label in labels if label.question not in watched]
    valid = [label for label in labels if label.question in watched]
    rng.shuffle(train)
    return train[: number or None], valid[: max(1, number // 10) if number else None]


def measure(labels: Path, out: Path) -> dict[str, Agreement]:
    """Prints and writes how well the judges agree with people.

    Raises:
      UserError: a judge is missing.
    """
    remedy = "python -m instructgpt.truthful records"
    folds = range(read_json(out / _FOLDS, remedy=remedy)["folds"])
    write_json(
        out / "judges.json",
        {kind: [f"{kind}/{fold}/sft" for fold in folds] for kind in ENDINGS},
    )
    judges = open_judges(str(out / "judges.json"))
    found = {}
    for kind, judge in judges.items():
        mine = _labels(labels, kind)
        answers = [(label.question, label.answer) for label in mine]
        found[kind] = agreement(mine, judge.probabilities(answers, name=kind))
    _print(found)
    write_json(
        out / "agreement.json", {k: value._asdict() for k, value in found.items()}
    )
    return found


def _labels(folder: Path, kind: str) -> list[Label]:
    for name in (f"finetune_{kind}.jsonl", f"finetune_{kind}.jsonl.gz"):
        if (folder / name).exists():
            return read_labels(folder / name, kind)
    raise UserError(f"{folder}: there is no finetune_{kind}.jsonl, nor one gzipped")


def _print(found: dict[str, Agreement]) -> None:
    def three(interval: Sequence[float]) -> str:
        value, low, high = interval
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    rows = [
        [
            kind,
            str(a.answers),
            f"{a.majority:.3f}",
            three(a.accuracy),
            three(a.balanced_accuracy),
            three(a.auc),
        ]
        for kind, a in found.items()
    ]
    columns = ["Judge", "Answers", "Majority", "Accuracy", "Balanced", "AUC"]
    print_table(rows, columns)


if __name__ == "__main__":
    main()
