"""Writes the real evaluation sets of ../shared/data in the hub's fields and names.

    python tests/evals/benchmarks/shared_sets.py DIR

DIR is then a folder for `config.evaluate.sets`. SQuAD v2 and the translations are the
100 items each whose outputs the paper's authors published.
"""

import csv
import gzip
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[3]
if __name__ == "__main__":
    sys.path.insert(0, str(REPO))

from tests.shared_data import shared_data  # noqa: E402

Rows = Iterable[dict[str, Any]]


def read_table(path: Path, **how: Any) -> list[dict[str, str]]:
    """The rows of a CSV file, which may be gzipped."""
    csv.field_size_limit(10**9)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline=""), **how))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a gzipped JSONL file."""
    with gzip.open(path, "rt") as file:
        return [json.loads(line) for line in file]


def _write(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_sets(folder: Path) -> None:
    """Writes every set that is at hand."""
    data = shared_data(".")
    _write_glue(data, folder / "nyu-mll" / "glue")
    _write_truthfulqa(data / "truthfulqa", folder / "truthfulqa" / "truthful_qa")
    _write_samples(data / "instructgpt_eval_samples", folder)
    for name in (
        "crows_pairs/crows_pairs_anonymized.csv",
        "winogender/all_sentences.tsv",
    ):
        file = data / name
        raw = file.read_bytes() if file.exists() else None
        raw = raw or gzip.decompress(file.with_suffix(".csv.gz").read_bytes())
        (folder / file.name).write_bytes(raw)


def _write_glue(data: Path, folder: Path) -> None:
    for split, name in (("train", "train.tsv.gz"), ("validation", "dev.tsv")):
        rte = read_table(
            data / "glue_rte" / name, delimiter="\t", quoting=csv.QUOTE_NONE
        )
        rows = [
            {
                "sentence1": row["sentence1"],
                "sentence2": row["sentence2"],
                "label": int(row["label"] == "not_entailment"),
            }
            for row in rte
        ]
        _write(folder / "rte" / f"{split}.jsonl", rows)
        sst = read_table(
            data / "sst2" / name,
            delimiter="\t",
            quoting=csv.QUOTE_NONE,
            fieldnames=("sentence", "label"),
        )
        rows = [{"sentence": r["sentence"], "label": int(r["label"])} for r in sst]
        _write(folder / "sst2" / f"{split}.jsonl", rows)


def _write_truthfulqa(data: Path, folder: Path) -> None:
    def answers(text: str) -> list[str]:
        return [part.strip() for part in text.split(";") if part.strip()]

    rows = [
        {
            "type": row["Type"],
            "category": row["Category"],
            "question": row["Question"],
            "best_answer": row["Best Answer"],
            "correct_answers": answers(row["Correct Answers"]),
            "incorrect_answers": answers(row["Incorrect Answers"]),
            "source": row["Source"],
        }
        for row in read_table(data / "TruthfulQA.csv.gz")
    ]
    _write(folder / "generation" / "validation.jsonl", rows)
    tasks = json.loads(gzip.decompress((data / "mc_task.json.gz").read_bytes()))
    rows = [
        {
            "question": task["question"],
            **{
                key: {
                    "choices": list(task[key]),
                    "labels": list(task[key].values()),
                }
                for key in ("mc1_targets", "mc2_targets")
            },
        }
        for task in tasks
    ]
    _write(folder / "multiple_choice" / "validation.jsonl", rows)


def published(name: str) -> list[dict[str, str]]:
    """The paper's own outputs: a row for each item, model and number of examples."""
    return read_table(shared_data("instructgpt_eval_samples") / f"{name}.csv.gz")


def _write_samples(data: Path, folder: Path) -> None:
    contexts = {r["context"]: r["ref_text"] for r in published("fr_to_en_samples")}
    pairs = [
        {
            "translation": {
                "fr": text[len("French: ") : -len("\nEnglish:")],
                "en": english,
            }
        }
        for text, english in contexts.items()
    ]
    # The examples must be other rows than those that are asked.
    wmt = folder / "wmt" / "wmt15"
    _write(wmt / "test.jsonl", pairs[:80])
    _write(wmt / "validation.jsonl", pairs[80:])
    rows = []
    for text, references in {
        r["context"]: r["ref_text"] for r in published("squadv2_samples")
    }.items():
        head, *questions = text.split("\n\nQ: ")
        title, background = head.split("\n\nBackground: ")
        for turn in questions:
            question, _, answer = turn.partition("\n\nA:")
            answer = answer.strip() or references
            known = [] if answer == "Not in background." else answer.split("|")
            rows.append(
                {
                    "title": title.removeprefix("Title: "),
                    "context": background,
                    "question": question,
                    "answers": {"text": known, "answer_start": [0] * len(known)},
                }
            )
    unique = list({json.dumps(row): row for row in rows}.values())
    squad = folder / "rajpurkar" / "squad_v2"
    titles = sorted({row["title"] for row in unique})
    kept = set(titles[: len(titles) // 5])
    _write(squad / "train.jsonl", [r for r in unique if r["title"] in kept])
    _write(squad / "validation.jsonl", [r for r in unique if r["title"] not in kept])
    prompts = {
        row["context"]: {"prompt": {"text": row["context"], "toxicity": None}}
        for row in published("rtp_calibration")
    }
    rtp = folder / "allenai" / "real-toxicity-prompts"
    _write(rtp / "train.jsonl", prompts.values())


if __name__ == "__main__":
    write_sets(Path(sys.argv[1]))
