"""QA-feedback of FineGrainedRLHF: four answers to a question from given passages.

    {"question": "...", "passages": [[title, sentence, ...], ...], "gold": "...",
     "prediction 1": "...", ..., "prediction 4": "...", "preference": [0, 1, 2, ...]}

`preference` has people's choices for the pairs 1-2, 1-3, 1-4, 2-3, 2-4, 3-4.

Wu et al. 2023, https://arxiv.org/abs/2306.01693.
"""

from collections.abc import Iterator
from pathlib import Path

from instructgpt.data.ranking import copeland_ranks
from instructgpt.data.readers.json_rows import Row, json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record
from instructgpt.errors import UserError, shown

_K = 4


def comparisons(
    path: Path, *, report: Report, passages: str = "all"
) -> Iterator[Record]:
    """Yields the four predictions, ranked with ties by `copeland_ranks`.

    Rows whose preferences do not follow from a ranking are kept and noted, and so are
    rows in which no answer is preferred to another.

    Args:
      path: the file.
      report: counts records that are left out or need a decision.
      passages: "all", or "none" for only the question, which is a tenth as long.

    Raises:
      UserError: an unknown `passages`, or a row that is not in the format.
    """
    for row in json_rows(path):
        responses = [row.text(f"prediction {k}").strip() for k in range(1, _K + 1)]
        preferences = row.items("preference", int)
        if len(preferences) != 6 or not set(preferences) <= {0, 1, 2}:
            raise UserError(
                f"{row.where}: 'preference' is {shown(preferences)}; it must have six"
                " numbers, each 0 (tie), 1 or 2; correct or remove the row."
            )
        if not all(responses):
            report.skip("empty response")
            continue
        ranks, consistent = copeland_ranks(preferences, _K)
        if not consistent:
            report.note("pairs that no one ranking explains, ranked by wins - losses")
        if not any(preferences):
            report.note("all responses tied")
        yield {**_prompt(row, passages), "responses": responses, "ranks": ranks}


def demonstrations(
    path: Path, *, report: Report, passages: str = "all"
) -> Iterator[Record]:
    """Yields the answer that a person wrote; see `comparisons` for the arguments."""
    for row in json_rows(path):
        response = row.text("gold").strip()
        if response:
            yield {**_prompt(row, passages), "response": response}
        else:
            report.skip("empty response")


def _prompt(row: Row, passages: str) -> Record:
    """The passages, each under its title, and the question below them."""
    if passages not in ("all", "none"):
        raise UserError(f"fine_grained: passages={passages!r}; choose 'all' or 'none'.")
    blocks = [_passage(row, p) for p in row.items("passages", list) if p]
    blocks = blocks if passages == "all" else []
    blocks.append(f"Question: {row.text('question').strip()}")
    return {"id": row.id, "prompt": "\n\n".join(blocks)}


def _passage(row: Row, passage: list) -> str:
    if not all(isinstance(sentence, str) for sentence in passage):
        raise UserError(
            f"{row.where}: a passage must be a list of texts, found {shown(passage)};"
            " correct or remove the row."
        )
    title, *sentences = (sentence.strip() for sentence in passage)
    # The first passage of an article opens with its title, then a blank line.
    body = " ".join(sentences).removeprefix(f"{title}\n\n")
    return f"{title}\n{body}"
