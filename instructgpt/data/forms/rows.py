"""A row of a file whose form is being recognised, and the errors about it."""

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from instructgpt.errors import UserError, shown

_OURS = {
    "documents": "'text'",
    "prompts": "'history' and 'prompt'",
    "rm_prompts": "'history' and 'prompt'",
    "gpt_prompts": "'history' and 'prompt'",
    "demonstrations": "'history', 'prompt' and 'response'",
    "comparisons": "'history', 'prompt', 'responses' and 'ranks'",
}


class Line(NamedTuple):
    """One value of a file of records, parsed but not checked."""

    where: str  # "PATH:LINE" or "PATH[INDEX]", for the start of an error message
    default_id: str  # "NAME:LINE" or "NAME:INDEX", for a record that has none
    value: Any


class LeftOutError(UserError):
    """A row of a known form without what a record needs, such as an empty answer.

    What reads one's own records refuses it; what reads large sets of other people
    counts it and goes on.

    Attributes:
      reason: What such rows have in common, for a table of counts.
    """

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclasses.dataclass(frozen=True)
class FormRow:
    """A row of a file.

    Attributes:
      fields: Its fields, which are not checked.
      kind: Kind of record that is made of it.
      where: Its place, named at the start of a message.
      note: Called with each decision that a reader may want to count.
    """

    fields: dict[str, Any]
    kind: str
    where: str
    note: Callable[[str], None] = lambda reason: None

    def has(self, *names: str) -> bool:
        """Whether one of the fields is there and not null."""
        return any(self.fields.get(name) is not None for name in names)

    def knows(self, *names: str) -> bool:
        """Whether one of the fields is there, if only as null."""
        return any(name in self.fields for name in names)

    def first(self, *names: str) -> str | None:
        """The first of the fields that is there and not null."""
        return next((name for name in names if self.has(name)), None)

    def fail(self, problem: str) -> UserError:
        """An error that names the row and our fields."""
        return UserError(self._message(problem))

    def leave_out(self, reason: str, problem: str) -> LeftOutError:
        """The same, for a row without which the others are still of use."""
        return LeftOutError(reason, self._message(problem))

    def number(self, value: Any, name: str) -> float | None:
        """A number, also one in text as CSV has it; None for null, NaN and "N/A".

        Raises:
          UserError: It is neither.
        """
        if isinstance(value, str):
            if value.strip().lower() in ("", "n/a", "na", "none", "null"):
                return None
            with contextlib.suppress(ValueError):
                value = float(value)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"{name!r} must be a number, found {shown(value)}")
        return None if math.isnan(value) else value

    def listed(self, name: str) -> Any:
        """A field's value; a JSON list in text, as CSV has it, is read."""
        value = self.fields.get(name)
        if isinstance(value, str) and value.lstrip().startswith(("[{", "[[", '["')):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        return value

    def _message(self, problem: str) -> str:
        return (
            f"{self.where}: {problem}; write {self.kind} with the fields"
            f" {_OURS[self.kind]}."
        )
