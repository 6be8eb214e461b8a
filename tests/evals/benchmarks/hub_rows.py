"""Rows of every evaluation set, made by hand in the hub's names and fields."""

import csv
import json
from pathlib import Path
from typing import Any

TOWNS = "Arlen Brigg Corvo Dunmore Elswick Farsley Gorton Hebden Ilkley Jarrow".split()


def _both(row: Any) -> dict[str, list[dict[str, Any]]]:
    """Forty rows of old towns to learn from, and ten of others to be asked."""
    return {
        "train": [row(f"Old {town}", n) for n, town in enumerate(TOWNS * 4)],
        "validation": [row(town, n) for n, town in enumerate(TOWNS)],
    }


def _tested(row: Any) -> dict[str, list[dict[str, Any]]]:
    rows = _both(row)
    return {"validation": rows["train"], "test": rows["validation"]}


def _rte(town: str, n: int) -> dict[str, Any]:
    return {
        "sentence1": f"Ann lives in {town}.",
        "sentence2": f"{town} has {'a person' if n % 2 == 0 else 'no people'}.",
        "label": n % 2,
        "idx": n,
    }


def _sst(town: str, n: int) -> dict[str, Any]:
    words = "a bore " if n % 2 == 0 else "a joy "
    return {"sentence": f"{town} is {words}", "label": n % 2, "idx": n}


def _hellaswag(town: str, n: int) -> dict[str, Any]:
    return {
        "ind": n,
        "activity_label": "Walking",
        "ctx_a": f"A man [title] walks to {town}.",
        "ctx_b": "he",
        "ctx": f"A man walks to {town}. he",
        "endings": [f"arrives [step] {k}" for k in range(4)],
        "label": str(n % 4),
    }


def _wsc(town: str, n: int) -> dict[str, Any]:
    return {
        "text": f"Ann met Joan in {town} when she came home.",
        "span1_index": 0,
        "span2_index": 5 + len(town.split(" ")),
        "span1_text": "Ann" if n % 2 else "Joan",
        "span2_text": "she",
        "label": n % 2,
        "idx": n,
    }


def _drop(town: str, n: int) -> dict[str, Any]:
    date = {"day": "", "month": "", "year": ""}
    return {
        "section_id": f"s{n}",
        "query_id": f"q{n}",
        "passage": f"{town} has {n} gates and Ann has one key.",
        "question": f"How many gates has {town}?",
        "answer": {
            "number": str(n),
            "date": date,
            "spans": [],
            "worker_id": "",
            "hit_id": "",
        },
        "validated_answers": {
            "number": ["", ""],
            "date": [date, date],
            "spans": [[f"{n} gates"], [f"{n}", "gates"]],
            "worker_id": ["", ""],
            "hit_id": ["", ""],
        },
    }


def _squad(town: str, n: int) -> dict[str, Any]:
    """Two questions on each of five passages; every second one has no answer."""
    first = TOWNS[(n - n % 2) % len(TOWNS)]
    place = f"Old {first} {n // 2}" if town.startswith("Old ") else first
    texts = [f"the gates of {place}", place] if n % 2 == 0 else []
    return {
        "id": str(n),
        "title": "Gates",
        "context": f"Ann saw the gates of {place}.",
        "question": "What did Ann see?" if n % 2 == 0 else "What did Joan see?",
        "answers": {"text": texts, "answer_start": [0] * len(texts)},
    }


def _quac(town: str, n: int) -> dict[str, Any]:
    return {
        "dialogue_id": str(n),
        "wikipedia_page_title": town,
        "background": "",
        "section_title": "Gates",
        "context": f"{town} has old gates. CANNOTANSWER",
        "turn_ids": ["0", "1"],
        "questions": ["What has it?", "Who made them?"],
        "followups": [0, 0],
        "yesnos": [0, 0],
        "answers": {
            "texts": [["old gates", "gates"], ["CANNOTANSWER"]],
            "answer_starts": [[0, 0], [0]],
        },
        "orig_answers": {
            "texts": ["old gates", "CANNOTANSWER"],
            "answer_starts": [0, 0],
        },
    }


def _wmt(town: str, n: int) -> dict[str, Any]:
    return {"translation": {"fr": f"Je vis à {town}.", "en": f"I live in {town}."}}


def _cnn(town: str, n: int) -> dict[str, Any]:
    return {
        "article": f"({town}) -- The gates are closed.",
        "highlights": f"{town} is closed.\nThe gates, too.",
        "id": str(n),
    }


def _tldr(town: str, n: int) -> dict[str, Any]:
    return {"post": f"I went to {town} and slept.", "summary": f" slept in {town}"}


def _truthful(town: str, n: int) -> dict[str, Any]:
    return {
        "type": "Adversarial",
        "category": "Myths",
        "question": f"Who built {town}?",
        "best_answer": "Nobody knows",
        "correct_answers": ["Nobody knows", "It is unknown"],
        "incorrect_answers": ["Giants"],
        "source": "",
    }


def _choices(town: str, n: int) -> dict[str, Any]:
    one = {"choices": ["Nobody knows", "Giants"], "labels": [1, 0]}
    many = {"choices": ["Nobody knows", "Unknown", "Giants"], "labels": [1, 1, 0]}
    return {"question": f"Who built {town}?", "mc1_targets": one, "mc2_targets": many}


def _prompt(town: str, n: int) -> dict[str, Any]:
    return {"prompt": {"text": f"The people of {town}", "toxicity": n / 10}}


SETS = {
    "nyu-mll/glue/rte": _both(_rte),
    "nyu-mll/glue/sst2": _both(_sst),
    "Rowan/hellaswag": _both(_hellaswag),
    "aps/super_glue/wsc.fixed": _both(_wsc),
    "EleutherAI/drop": _both(_drop),
    "rajpurkar/squad_v2": _both(_squad),
    "allenai/quac": _both(_quac),
    "wmt/wmt15": _tested(_wmt),
    "abisee/cnn_dailymail": _tested(_cnn),
    "vwxyzjn/summarize_from_feedback_tldr_3_filtered": _tested(_tldr),
    "truthfulqa/truthful_qa/generation": {"validation": _both(_truthful)["validation"]},
    "truthfulqa/truthful_qa/multiple_choice": {
        "validation": _both(_choices)["validation"]
    },
    "allenai/real-toxicity-prompts": {"train": _both(_prompt)["validation"]},
}


def write_sets(folder: Path) -> None:
    """Writes them as a folder for `config.evaluate.sets`."""
    for name, splits in SETS.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, rows in splits.items():
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name / f"{split}.jsonl").write_text(lines)
    sentences = [
        (f"technician.{who}.{n}.{gender}.txt", f"{who} {n} {gender}")
        for who in ("customer", "someone")
        for n in range(10)
        for gender in ("male", "female", "neutral")
    ]
    _write_table(folder / "all_sentences.tsv", ("sentid", "sentence"), sentences, "\t")
    pairs = [(n, f"{town} is bad", f"{town} is good") for n, town in enumerate(TOWNS)]
    columns = ("", "sent_more", "sent_less")
    _write_table(folder / "crows_pairs_anonymized.csv", columns, pairs, ",")


def _write_table(path: Path, columns: Any, rows: Any, separator: str) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=separator)
        writer.writerow(columns)
        writer.writerows(rows)
