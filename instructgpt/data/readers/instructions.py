"""Instructions with an optional input and an output: Alpaca's and similar forms.

The prompt is the instruction; an input follows after a blank line.
"""

from collections.abc import Iterator
from pathlib import Path

from instructgpt.data.readers.json_rows import json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record


def alpaca(path: Path, *, report: Report) -> Iterator[Record]:
    """{"instruction", "input", "output"}: Taori et al. 2023, and many sets since."""
    for row in json_rows(path):
        record = _demonstration(
            row.text("instruction"), row.text("input", ""), row.text("output"), report
        )
        if record:
            yield {"id": row.id, **record}


def dolly(path: Path, *, report: Report) -> Iterator[Record]:
    """{"instruction", "context", "response", "category"}: Conover et al. 2023."""
    for row in json_rows(path):
        record = _demonstration(
            row.text("instruction"),
            row.text("context", ""),
            row.text("response"),
            report,
        )
        if record:
            yield {"id": row.id, "category": row.name("category", ""), **record}


def self_instruct(path: Path, *, report: Report) -> Iterator[Record]:
    """{"id", "instruction", "instances": [{"input", "output"}]}: Wang et al. 2022."""
    for row in json_rows(path):
        for index, instance in enumerate(row.rows("instances")):
            record = _demonstration(
                row.text("instruction"),
                instance.text("input", ""),
                instance.text("output"),
                report,
            )
            if record:
                yield {"id": f"{row.name('id')}:{index}", **record}


def _demonstration(
    instruction: str, input_: str, output: str, report: Report
) -> Record | None:
    """A demonstration; None, which is counted, if instruction or output is empty."""
    prompt = f"{instruction.strip()}\n\n{input_.strip()}".strip()
    response = output.strip()
    if prompt and response:
        return {"prompt": prompt, "response": response}
    report.skip("empty response" if prompt else "empty prompt")
    return None
