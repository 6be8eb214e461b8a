import base64
import html.parser
import json
import re

import pytest

from instructgpt.errors import UserError
from instructgpt.evals.report import figures
from instructgpt.evals.report.evaluation_page import render_html
from instructgpt.evals.report.plotting import series
from instructgpt.evals.report.writing import (
    format_results_table,
    load_results,
    write_report,
)
from tests.evals.fake_results import make_results, write_results

SECTIONS = {
    "Results",
    "Preference over SFT",
    "Overall quality",
    "What the answers do",
    "Truthfulness",
    "Toxicity",
    "Tasks of language",
    "Reinforcement learning",
    "Alignment tax",
    "Reward model",
    "Which SFT epoch",
    "Losses",
    "Samples",
}


class Page(html.parser.HTMLParser):
    """Headings, addresses and the nesting of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.headings, self.sources, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in ("img", "input", "meta"):  # they have no end tag
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_report_is_one_complete_file(tmp_path):
    report = write_report(write_results(tmp_path))
    assert report == tmp_path / "report.html"
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert set(page.headings) == SECTIONS
    assert not page.open
    assert "<dt>Seed of the world</dt><dd>7</dd>" in text
    # Pictures are inside, and are whole.
    assert len(page.sources) == 11
    for source in page.sources:
        kind, data = source.split(";base64,")
        assert kind == "data:image/svg+xml"
        assert base64.b64decode(data, validate=True).rstrip().endswith(b"</svg>")
    # Nothing is fetched: no script files, no style sheets, no fonts.
    assert not re.search(r"<script\s|<link|@import|url\(", text)
    png = (tmp_path / "figure1.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 5_000


def test_labelers_agreement_stands_beside_the_papers(tmp_path):
    results = make_results()
    results["agreement"] = {
        "gold, people": {
            "without_ties": [0.81, 0.78, 0.84],
            "with_ties": [0.7, 0.6, 0.8],
        },
        "people: training": {
            "without_ties": [0.731, 0.71, 0.75],
            "with_ties": [0.64, 0.62, 0.66],
            "tau": [0.44, 0.41, 0.47],
            "alpha_ranks": [0.51, 0.48, 0.54],
            "paper": [0.726, 0.015],
        },
    }
    text = render_html(results, {})
    section = text.split("<h2>Agreement</h2>")[1].split("<h2>")[0]
    assert "<th>Alpha, ranks</th><th>Paper</th>" in section
    assert "<td>0.44 [0.41, 0.47]</td><td>0.51 [0.48, 0.54]</td>" in section
    assert "<td>0.726 ± 0.015</td>" in section and "Alpha, Likert" not in section
    assert section.count("<img") == 1
    table = format_results_table(results)
    assert "0.726 ± 0.015" in table and "Kendall's tau" in table
    # Two judges alone have no labelers that could be drawn.
    del results["agreement"]["people: training"]
    section = render_html(results, {}).split("<h2>Agreement</h2>")[1].split("<h2>")[0]
    assert "<img" not in section and "Paper" not in section.split("<thead>")[1]
    del results["agreement"]
    assert "<h2>Agreement</h2>" not in render_html(results, {})


def test_same_results_give_the_same_page(tmp_path):
    path = write_results(tmp_path)
    first = write_report(path).read_bytes()
    assert write_report(path).read_bytes() == first


def test_text_of_models_cannot_break_the_page():
    results = make_results()
    results["samples"][0]["responses"]["ppo"][0] = "</article><b>&"
    text = render_html(results, {})
    assert "&lt;/article&gt;&lt;b&gt;&amp;" in text
    assert not Page(text).open


def test_samples_can_be_filtered_by_use_case():
    results = make_results()
    for row, category in zip(results["samples"], ("chat", "a<b", "chat"), strict=True):
        results["samples"] = [*results["samples"][1:], {**row, "category": category}]
    text = render_html(results, {})
    (options,) = re.findall(r"<select>(.*?)</select>", text, re.DOTALL)
    assert re.findall("<option>(.*)</option>", options) == ["A&lt;b", "Chat"]
    kinds = re.findall('<article data-category="(.*?)">', text)
    assert kinds == ["Chat", "A&lt;b", "Chat"]
    results["samples"] = results["samples"][:1]
    assert '<p class="filter">' not in render_html(results, {})


def test_numbers_that_have_no_place_of_their_own_are_shown_by_name():
    results = make_results()
    results["judges"] = {"a<b": {"sft": {"briefer": [0.25, 0.125, 0.375]}}}
    found = {"exact": 0.75, "by_topic": {"<towns>": [0.5, 0.25, 0.75]}}
    results["evaluators"] = {"quiz": {"rl_init": found, "ppo": {"exact": 0.875}}}
    text = render_html(results, {})
    assert not Page(text).open
    assert "<h2>A&lt;b</h2>" in text and "<h2>Quiz</h2>" in text
    assert "<td>By topic: &lt;towns&gt;</td>" in text
    assert "<td>0.50 [0.25, 0.75]</td>" in text
    lines = format_results_table(results).splitlines()
    assert any(line.split() == ["Briefer", "0.25", "[0.12,", "0.38]"] for line in lines)
    # The models of the comparison come first, then what was only measured.
    start = lines.index(next(line for line in lines if line.startswith("Quiz")))
    assert lines[start].split() == ["Quiz", "PPO", "RL", "init"]
    assert lines[start + 2].split() == ["Exact", "0.88", "0.75"]
    assert lines[start + 3].split()[-4:] == ["–", "0.50", "[0.25,", "0.75]"]


def test_a_comparison_by_the_reward_model_alone_says_so():
    results = make_results()
    results["rated_by"] = results["judged_by"] = "reward"
    for model in results["models"].values():
        model["score_win_rate"] = model.pop("win_rate")
        del model["likert"], model["flags"], model["categories"]
    text = render_html(results, {})
    assert set(Page(text).headings) == SECTIONS - {
        *("Overall quality", "What the answers do"),
        *("Reinforcement learning", "Losses"),
    }
    assert "gold judge" not in text
    assert "The reward model&#39;s score decides" in text
    assert "with the reward model&#39;s score (Figures 8" in text
    for row in results["samples"]:
        row["responses"] = {name: [x[0], None] for name, x in row["responses"].items()}
    results["rated_by"] = ""
    assert "answered by each model (Figures 8" in render_html(results, {})


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("pretrain_loss", {"Alignment tax"}),
        ("reward_model", {"Reward model"}),
        ("sft_epochs", {"Which SFT epoch"}),
        ("samples", {"Samples"}),
        ("curves", {"Reinforcement learning", "Losses"}),
        ("meta", set()),
        ("num_prompts", set()),
    ],
)
def test_missing_part_leaves_out_only_its_section(tmp_path, monkeypatch, key, sections):
    # Figures are made but not rendered, which is most of the time.
    monkeypatch.setattr(
        "instructgpt.evals.report.page.to_data_uri", lambda figure: "data:"
    )
    path = write_results(tmp_path)
    results = load_results(path)
    del results[key]
    path.write_text(json.dumps(results))
    page = Page(write_report(path).read_text(encoding="utf-8"))
    assert set(page.headings) == SECTIONS - sections


def test_curves_that_were_not_written_leave_out_their_section(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(make_results()))
    page = Page(write_report(path).read_text(encoding="utf-8"))
    assert set(page.headings) == SECTIONS - {"Reinforcement learning", "Losses"}


@pytest.mark.parametrize(
    "results", [{}, {"models": {}}, {"models": {"sft": {"label": "SFT"}}}]
)
def test_almost_nothing_still_gives_a_page(tmp_path, results):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    page = Page(write_report(path).read_text(encoding="utf-8"))
    assert set(page.headings) <= {"Results"}
    assert not (tmp_path / "figure1.png").exists()
    assert "win" not in format_results_table(results).lower()


def test_missing_or_damaged_results_are_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="not found"):
        write_report(tmp_path / "results.json")
    (tmp_path / "results.json").write_text('{"models":\n{')
    with pytest.raises(UserError, match="line 2"):
        write_report(tmp_path / "results.json")


def test_table_has_a_row_a_model_and_a_row_a_flag():
    lines = format_results_table(make_results()).splitlines()
    assert lines[0].split("  ")[0] == "Model"
    assert [line.split("  ")[0] for line in lines[2:7]] == [
        "GPT",
        "GPT (prompted)",
        "SFT",
        "PPO",
        "PPO-ptx",
    ]
    assert "0.16 [0.12, 0.21]" in lines[2] and "-1.90" in lines[2]
    # SFT against itself is one half by definition and has no interval.
    assert "[0.50" not in lines[4] and "0.50" in lines[4]
    flag = next(line for line in lines if line.startswith("Follows constraints"))
    assert flag.split()[-5:] == ["0.22", "0.28", "0.34", "0.43", "0.44"]


def test_only_the_baseline_is_without_an_interval():
    results = make_results()
    # The same number three times is no sign of it.
    results["models"]["gpt"]["win_rate"] = [0.25, 0.25, 0.25]
    results["models"]["sft"]["likert"] = [4.0, 4.0, 4.0]
    lines = format_results_table(results).splitlines()
    assert "0.25 [0.25, 0.25]" in lines[2]
    assert "  0.50  " in lines[4] and "4.00 [4.00, 4.00]" in lines[4]
    results["baseline"] = "ppo"
    lines = format_results_table(results).splitlines()
    assert "0.50 [0.50, 0.50]" in lines[4] and "  0.66  " in lines[5]


def test_reward_accuracy_shows_both_kinds_of_pairs_and_leaves_out_what_is_not_there():
    results = make_results()
    shown = {text.get_text() for text in figures.reward_accuracy(results).axes[0].texts}
    assert {"0.724", "0.741", "0.726", "0.696", "0.709", "0.773"} <= shown
    # Labelers who ranked alone share no pairs.
    for group in ("train", "heldout"):
        del results["reward_model"][f"shared_pairs_{group}"]
        del results["reward_model"][f"agreement_{group}"]
    shown = {text.get_text() for text in figures.reward_accuracy(results).axes[0].texts}
    assert {"0.724", "0.696"} <= shown and "0.741" not in shown


def test_markdown_table_has_equal_columns():
    tables = format_results_table(make_results(), markdown=True).split("\n\n")
    assert len(tables) == 5
    for table in tables:
        lines = table.splitlines()
        assert len({line.count("|") for line in lines}) == 1
        assert set(lines[1]) <= set("|-: ")


def test_value_that_one_model_lacks_is_a_dash():
    results = make_results()
    del results["models"]["gpt"]["mean_score"], results["models"]["gpt"]["likert"]
    row = format_results_table(results).splitlines()[2]
    assert row.split()[-2:] == ["–", "–"]


def test_figure_shows_the_numbers_of_the_results():
    results = make_results()
    results["models"]["ppo"]["win_rate"] = [0.71, 0.66, 0.75]
    axes = figures.win_rates(results).axes[0]
    assert "0.71" in {text.get_text() for text in axes.texts}
    heights = {round(float(y), 3) for line in axes.lines for y in line.get_ydata()}
    assert {0.71, 0.66, 0.75, 0.5} <= heights


def test_series_leaves_out_what_is_not_a_number():
    rows = [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": None},
        {"step": 3, "valid_loss": 0.25},
        {"step": 4, "loss": float("nan")},
        {"step": 5, "loss": 0.75},
    ]
    steps, values = series(rows, "loss")
    assert steps.tolist() == [1, 5] and values.tolist() == [0.5, 0.75]


def test_an_evaluator_of_ones_own_with_a_key_of_the_worlds_draws_nothing():
    results = make_results()
    results["evaluators"] = {"world_tasks": {"sft": {"mine": 0.5}}}
    text = render_html(results, {})
    assert "<h2>Tasks of language</h2>" in text and "<td>Mine</td>" in text
    assert "Accuracy by task and model" not in text
