"""People's judgements, from a file (paper §3.6, Table 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instructgpt.errors import UserError
from instructgpt.evals.interface import Setting
from instructgpt.evals.judgements import JudgedRow, Judgement, judged_rows
from instructgpt.identity import TO_JUDGE
from instructgpt.paths import resolve


class PeopleJudge:
    """Reads people's judgements of the answers in the workdir's answers.jsonl."""

    def __init__(self, path: Path, rows: Sequence[JudgedRow]):
        self._path, self._rows = path, rows

    @classmethod
    def open(cls, setting: Setting, path: str = "") -> "PeopleJudge":
        """Reads the file, if people have written it.

        Args:
          setting: The comparison.
          path: The file; see `evals.judgements.judged_rows` for its rows.

        Raises:
          UserError: the path is missing, or the file has a row that is no judgement,
            is of an unknown model or is there twice.
        """
        if not path:
            raise UserError(
                "config.judges: name the file of people's judgements, path=FILE"
            )
        file = Path(resolve(path, setting.workdir))
        rows = judged_rows(file, models=setting.models) if file.exists() else []
        return cls(file, rows)

    def judge(
        self,
        records: Sequence[Mapping[str, Any]],
        responses: Mapping[str, Sequence[str]],
    ) -> list[Judgement]:
        """Returns the judgements of the file.

        Raises:
          UserError: there is no file yet, or a row is about another prompt or answer.
        """
        if not self._rows:
            raise UserError(
                f"{self._path}: not found. {TO_JUDGE} in this workdir holds the "
                "answers: have them judged, write a row for each judgement (id, model, "
                "response, and any of likert, flags, rank), and start this again"
            )
        numbers = {record["id"]: i for i, record in enumerate(records)}
        for row in self._rows:
            one = row.judgement
            if one.id not in numbers:
                raise UserError(
                    f"{row.where}: no compared prompt has the id {one.id!r}; take ids "
                    f"from {TO_JUDGE}"
                )
            answer = responses[one.model][numbers[one.id]]
            if row.response is not None and row.response.strip() != answer.strip():
                raise UserError(
                    f"{row.where}: `response` is another answer of {one.model!r} to "
                    f"{one.id!r} than it gave here; judge those of {TO_JUDGE}"
                )
        return [row.judgement for row in self._rows]
