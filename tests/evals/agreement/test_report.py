"""The page, the picture, the numbers and the text on labelers' agreement."""

import json

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.evals.agreement import alpha, report
from instructgpt.evals.agreement.report import (
    agreement_report,
    format_agreement,
    measure,
    render_agreement,
)
from instructgpt.evals.agreement.rows import Ranked
from tests.evals.agreement.simulated import Someone, people, work


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    faults = ("rushes", "order", "careless")
    crew = [
        *people(5, rng),
        *(Someone(f"bad_{fault}", fault=fault) for fault in faults),
        *people(3, rng, group="heldout", name="guest"),
    ]
    return work(rng, crew, prompts=80, each=4, gold=10, repeats=4)


def test_the_report_is_written(rows, tmp_path):
    folder = tmp_path / "new" / "folder"
    found = agreement_report(rows, folder)
    assert {path.name for path in folder.iterdir()} == {
        "agreement.html",
        "agreement.json",
        "agreement.png",
    }
    assert json.loads((folder / "agreement.json").read_text()) == found
    assert "NaN" not in (folder / "agreement.json").read_text()
    assert "Infinity" not in (folder / "agreement.json").read_text()
    assert (folder / "agreement.png").read_bytes().startswith(b"\x89PNG")
    assert agreement_report(rows, folder) == found  # the same again


def test_the_page_answers_each_question(rows):
    page = render_agreement(measure(rows))
    for question in (
        "Do labelers agree?",
        "On which use cases?",
        "Who agrees with the others?",
        "Who is flagged?",
        "Does somebody drift?",
        "Are gold items right, and repeats alike?",
        "Does somebody rush?",
        "Does somebody follow the displayed order?",
        "Who ties, who skips?",
    ):
        assert f"<h2>{question}</h2>" in page
    assert page.count("<img") == 8  # one a question, but for flags
    assert "0.726 ± 0.015" in page and "0.773 ± 0.013" in page
    assert "<td>bad_rushes</td><td>rushes</td>" in page
    assert "<td>bad_order</td><td>follows the displayed order</td>" in page


def test_the_text_has_the_same_numbers(rows):
    found = measure(rows)
    text = format_agreement(found)
    value, low, high = found["groups"]["training"]["without_ties"]
    assert f"{value:.3f} [{low:.3f}, {high:.3f}]" in text
    assert "bad_rushes: rushes" in text
    assert "Flagged:\nnobody" in format_agreement(measure(rows[:1]))


def test_a_name_is_shown_as_it_is(rows):
    named = [x._replace(labeler="<b>&amp;", category="$x_1$<i>") for x in rows[:30]]
    page = render_agreement(measure([*named, *rows[30:]]))
    assert "<b>&amp;" not in page and "&lt;b&gt;&amp;amp;" in page
    assert "<i>" not in page.split("</style>")[1].replace("<i></i>", "")


def test_one_labeler_alone_has_a_page_without_agreement(tmp_path):
    (tmp_path / "agreement.png").write_bytes(b"old")
    found = agreement_report([Ranked("p", "a", (1, 2)), Ranked("q", "a")], tmp_path)
    assert found["counts"]["shared"] == 0 and found["labelers"]["a"]["skipped"] == 1
    assert not (tmp_path / "agreement.png").exists()
    page = (tmp_path / "agreement.html").read_text()
    assert "Who ties, who skips?" in page and "Does somebody rush?" not in page


def test_mistakes_end_before_anything_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "none"
    with pytest.raises(UserError, match="no rankings"):
        agreement_report([], folder)
    monkeypatch.setattr(alpha, "has_krippendorff", lambda: False)
    with pytest.raises(UserError, match="needs the package krippendorff"):
        report.agreement_report([Ranked("p", "a", (1, 2))], folder)
    assert not folder.exists()
