"""The four pages that labelers work on: their layout, and their data both ways."""

from instructgpt.labelling.pages.answers import to_result, to_work
from instructgpt.labelling.pages.layout import FEWEST, instruction, layout
from instructgpt.labelling.pages.shown import task_data

__all__ = ["FEWEST", "instruction", "layout", "task_data", "to_result", "to_work"]
