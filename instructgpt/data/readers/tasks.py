"""Sets of one task, or of many tasks in templates, as prompts and responses."""

import re
from collections.abc import Iterator
from pathlib import Path

from instructgpt.data.readers.json_rows import json_rows
from instructgpt.data.readers.report import Report
from instructgpt.data.records import Record

_END = "<|endoftext|>"
_CALCULATION = re.compile(r"<<[^<>]*>>")


def p3(path: Path, *, report: Report) -> Iterator[Record]:
    """{"prompt", "completion", "template"}: Sanh et al. 2021, the paper's T0 data.

    The end-of-text mark is left out, and the template becomes the category. If a row
    has no template, the file holds a single one and is named after it.
    """
    for row in json_rows(path):
        prompt = row.text("prompt").strip()
        response = row.text("completion").removesuffix(_END).strip()
        template = row.name("template", path.name.split(".jsonl")[0])
        if prompt and response:
            yield {
                "id": row.id,
                "prompt": prompt,
                "response": response,
                "category": template,
            }
        else:
            report.skip("empty response" if prompt else "empty prompt")


def gsm8k(path: Path, *, report: Report) -> Iterator[Record]:
    """{"question", "answer"}: Cobbe et al. 2021; the answer ends in "#### NUMBER".

    Calculator annotations, as in "48/2 = <<48/2=24>>24", are left out.
    """
    for row in json_rows(path):
        response = _CALCULATION.sub("", row.text("answer")).strip()
        if response:
            prompt = row.text("question").strip()
            yield {"id": row.id, "prompt": prompt, "response": response}
        else:
            report.skip("empty response")


def scitldr(path: Path, *, report: Report) -> Iterator[Record]:
    """{"source": [sentence, ...], "target": [summary, ...]}: Cachola et al. 2020.

    The prompt is the abstract with a cue; every summary gives a demonstration.
    """
    for row in json_rows(path):
        abstract = " ".join(sentence.strip() for sentence in row.items("source", str))
        for index, summary in enumerate(row.items("target", str)):
            if summary.strip():
                yield {
                    "id": f"{row.name('paper_id')}:{index}",
                    "prompt": f"{abstract.strip()}\n\nTL;DR:",
                    "response": summary.strip(),
                    "category": "summarization",
                }
            else:
                report.skip("empty response")
