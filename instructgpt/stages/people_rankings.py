"""People's rankings of the answers that a label stage wrote (paper §3.4)."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from instructgpt.data.records import Record, check_line, parse_lines, record_lines
from instructgpt.errors import UserError

# Splits of files -> splits of a label stage's set. Held-out labelers rank for the test
# split, and for no other.
SPLITS = {"train": "train", "valid": "valid", "test": "heldout"}


def rankings_file(folder: Path, split: str) -> Path:
    """The file of a split's rankings in the folder of what people gave."""
    return folder / f"comparisons.{split}.jsonl"


def read_rankings(
    folder: Path, answers: Mapping[str, Sequence[Record]]
) -> dict[str, list[Record]]:
    """Reads people's rankings, in the order in which the label stage has the answers.

    Args:
      folder: Holds comparisons.SPLIT.jsonl, of the training split at least.
      answers: The rows that were to be ranked, with `responses`, by train and valid.

    Returns:
      Comparisons by train, valid and heldout; without those that have no file.

    Raises:
      UserError: "PATH:LINE: what is wrong": a ranking of other answers than were
        written, or of a labeler who ranked for training and is held out too.
    """
    found: dict[str, list[Record]] = {}
    labelers: dict[str, set[str]] = {}
    for split, name in SPLITS.items():
        path = rankings_file(folder, split)
        if not path.exists():
            continue
        rows = {
            row["id"]: row for row in answers["train" if name == "train" else "valid"]
        }
        found[name] = []
        with closing(parse_lines(path)) as lines:
            for line in record_lines(lines, "comparisons"):
                record = check_line(line, "comparisons")
                _check_labeler(record["labeler"], labelers, name, line.where)
                found[name].append(_in_order(record, rows, line.where))
    return found


def _check_labeler(
    labeler: str, labelers: dict[str, set[str]], split: str, where: str
) -> None:
    """Raises UserError if a held-out labeler has ranked for training too."""
    labelers.setdefault(split, set()).add(labeler)
    if split == "heldout" and labeler and labeler in labelers.get("train", ()):
        raise UserError(
            f"{where}: labeler {labeler!r} has ranked training prompts too, so the "
            "ranking is not a held-out labeler's; move it to comparisons.valid.jsonl"
        )


def _in_order(record: Record, rows: Mapping[str, Record], where: str) -> Record:
    """The ranking with its answers in the order of the label stage's row.

    Raises:
      UserError: no row has the record's id, or it has another prompt or other answers.
    """
    row = rows.get(record["id"])
    if row is None:
        raise UserError(
            f"{where}: no prompt of this split that was to be ranked has the id "
            f"{record['id']!r}; take ids from the label stage's answers.SPLIT.jsonl"
        )
    turns = [*row.get("history", ()), row["prompt"]]
    if [*record["history"], record["prompt"]] != turns:
        raise UserError(f"{where}: another prompt than {record['id']!r} has")
    if sorted(record["responses"]) != sorted(row["responses"]):
        raise UserError(
            f"{where}: other answers than the {len(row['responses'])} that were written"
            f" for {record['id']!r}; rank those, all of them"
        )
    # Equal texts keep their order, so that each has a rank of its own.
    given: dict[str, list[int]] = {}
    for text, rank in zip(record["responses"], record["ranks"], strict=True):
        given.setdefault(text, []).append(rank)
    ranks = [given[text].pop(0) for text in row["responses"]]
    kept = {key: row.get(key, "") for key in ("customer", "category")}
    return {**record, **kept, "responses": row["responses"], "ranks": ranks}


def rankings_by_prompt(rows: Sequence[Record]) -> list[list[list[int]]]:
    """The ranks that the labelers of each prompt gave: [prompts][labelers][K]."""
    out: dict[str, list[list[int]]] = {}
    for row in rows:
        out.setdefault(row["id"], []).append(row["ranks"])
    return list(out.values())


def to_do(folder: Path, run: Path, counts: Mapping[str, int]) -> str:
    """One line that says what is missing, and how to get it.

    Args:
      folder: Where the rankings are looked for.
      run: The recipe's workdir.
      counts: The number of prompts to rank, by split.
    """
    number = " and ".join(f"{count} {split}" for split, count in counts.items())
    return (
        f"answers to {number} prompts are ready for people to rank. Send them with "
        f"`python -m instructgpt.label send {run}` (`start` and `setup` come before; "
        f"see --help) and `fetch` the rankings, or write them by hand to "
        f"{rankings_file(folder, 'train')}, each line an answers line with `ranks` and "
        "`labeler`; then start this again"
    )
