"""The metrics of the task files: known values, the paper's own outputs, a peer's."""

import collections
import math

import datasets
import numpy as np
import pytest
from scipy.stats import spearmanr

from instructgpt.evals.benchmarks.adapter import TokenLogProb
from instructgpt.evals.tasks import scoring
from tests.evals.benchmarks.shared_sets import published

MODELS = [
    f"{method}-{size}"
    for method in ("gpt", "sft", "ppo-noptx", "ppo-ptx")
    for size in ("xl", "6b", "175b")
]
# Table 14 of the paper, in the order of MODELS.
TABLE_14 = {
    ("squadv2_samples", "zeroshot"): "51.97 58.66 64.30 36.88 46.53 57.67 "
    "45.37 47.42 43.68 45.46 47.23 59.85",
    ("squadv2_samples", "fewshot"): "58.86 62.33 69.75 46.62 53.91 65.90 "
    "48.11 52.34 51.95 58.33 63.78 69.93",
    ("fr_to_en_samples", "zeroshot"): "30.65 34.99 38.92 25.56 33.25 36.90 "
    "19.85 25.22 24.16 25.77 30.41 34.28",
    ("fr_to_en_samples", "fewshot"): "31.37 35.49 39.93 24.73 31.76 35.07 "
    "21.65 29.96 26.58 27.67 33.56 36.76",
}


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        ("The Cat!", "cat", 1.0),  # no case, article or punctuation
        ("a black cat", "black dog", 0.5),
        ("cat cat", "cat", 2 / 3),  # a word counts as often as it stands
        ("", "cat", 0.0),
        ("the", "a", 1.0),  # no word in either
        ("U.S.", "us", 1.0),
        ("North Sea", "Not in background.", 0.0),
    ],
)
def test_f1(answer, reference, value):
    assert scoring.f1(answer, reference) == pytest.approx(value)


def test_the_best_reference_counts_and_no_answer_has_its_words():
    doc = {"references": ["Labour", "the Labour party"]}
    found = scoring.score_answer(doc, [" Labour party "])
    assert found == {"f1": 1.0, "em": 1.0}
    none = {"references": [scoring.NO_COMMENT]}
    assert scoring.score_answer(none, ["not in background"])["f1"] == 1.0
    assert scoring.score_answer(none, [""])["f1"] == 0.0


def test_f1_is_that_of_transformers():
    metrics = pytest.importorskip("transformers.data.metrics.squad_metrics")
    rows = published("squadv2_samples")
    for row in rows:
        for reference in row["ref_text"].split("|"):
            ours = scoring.f1(row["sample"], reference)
            assert ours == pytest.approx(metrics.compute_f1(reference, row["sample"]))


def published_scores(name: str, examples: str) -> list[float]:
    """Our score of each model's published outputs, from 0 to 100."""
    rows = collections.defaultdict(list)
    for row in published(name):
        if row["prompt_type"] == examples:
            rows[row["model_type"]].append(row)
    if name == "fr_to_en_samples":
        return [
            scoring.bleu([(r["ref_text"], r["sample"].strip()) for r in rows[model]])
            for model in MODELS
        ]
    return [
        100
        * np.mean(
            [
                scoring.best_f1(r["sample"], r["ref_text"].split("|"))
                for r in rows[model]
            ]
        )
        for model in MODELS
    ]


@pytest.mark.parametrize(("name", "examples"), TABLE_14)
def test_the_papers_own_outputs_score_as_in_table_14(name, examples):
    """A hundred items of each model, where the table has the whole set."""
    table = [float(x) for x in TABLE_14[name, examples].split()]
    ours = published_scores(name, examples)
    print(f"\n{name}, {examples}: the published outputs here, and in Table 14")
    for model, here, there in zip(MODELS, ours, table, strict=True):
        print(f"  {model:<16}{here:8.2f}{there:8.2f}")
    agreement = spearmanr(ours, table).statistic
    apart = np.abs(np.subtract(ours, table)).mean()
    print(f"  rank correlation {agreement:.3f}, mean absolute difference {apart:.2f}")
    assert agreement >= 0.9
    assert apart <= 4


def test_choices_by_token_sum_and_character():
    doc = {"choices": ["yes, of course it is", "no"], "gold": 0}
    results = [(TokenLogProb(-6.0, 6), False), (TokenLogProb(-2.0, 1), True)]
    found = scoring.score_choices(doc, results)
    assert found == {"acc": 0.0, "acc_norm": 1.0, "acc_token": 1.0}
    plain = [(-6.0, False), (-2.0, True)]  # as another adapter gives them
    assert scoring.score_choices(doc, plain) == {"acc": 0.0, "acc_norm": 1.0}


@pytest.mark.parametrize("p", [0.5, 0.9, 0.999, 1e-9])
def test_the_entropy_of_known_probabilities(p):
    results = [(math.log(p), False), (math.log1p(-p), False)]
    bits = -p * math.log2(p) - (1 - p) * math.log2(1 - p)
    found = scoring.score_pair({}, results)
    assert found["entropy"] == pytest.approx(bits, rel=1e-9)
    assert found["first"] == pytest.approx(p)


def test_the_entropy_is_of_normalised_probabilities_however_small():
    results = [(-5000.0, False), (-5000.0, False)]
    assert scoring.score_pair({}, results) == {"entropy": 1.0, "first": 0.5}
    results = [(-5000.0, False), (-1.0, False)]
    assert scoring.score_pair({}, results)["entropy"] == pytest.approx(0)


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        ("the city councilmen", 1, 1.0),
        ("councilmen", 1, 1.0),  # contained in the noun
        ("the city councilmen, who feared violence", 1, 1.0),  # contains it
        ("the demonstrators", 1, 0.0),
        ("the demonstrators", 0, 1.0),
        ("", 1, 0.0),
    ],
)
def test_wsc_is_decided_by_containment(answer, label, right):
    doc = {"span1_text": "The city councilmen", "label": label}
    assert scoring.score_wsc(doc, [answer])["acc"] == right


def test_wsc_marks_the_pronoun():
    doc = {
        "text": "Ann thanked Joan for the help she had given.",
        "span2_text": "she",
        "span2_index": 6,
    }
    text = scoring.wsc_text(doc)
    assert "for the help *she* had given" in text
    assert text.endswith("what does the pronoun “*she*” refer to?\nAnswer:")


def test_mc2_is_a_share_of_probability():
    doc = {"mc2_targets": {"labels": [1, 0, 1]}}
    results = [(math.log(x), False) for x in (0.1, 0.2, 0.1)]
    assert scoring.score_mc2(doc, results)["mc2"] == pytest.approx(0.5)


def test_a_summary_is_scored_by_its_longest_common_words():
    found = scoring.score_tldr({"summary": "cats like warm milk"}, ["a cat likes milk"])
    assert found["rougeL"] == pytest.approx(0.75)  # three of four, after stemming


def test_truthful_answers_lie_nearer_to_true_ones():
    doc = {"correct_answers": ["Nothing happens"], "incorrect_answers": ["You die"]}
    assert scoring.score_truthful(doc, [" Nothing happens to you."]) == {
        "rougeL_acc": 1.0,
        "no_comment": 0.0,
    }
    found = scoring.score_truthful(doc, ["I have no comment."])
    assert found["no_comment"] == 1.0


def test_prompts_are_drawn_evenly_over_their_toxicity():
    rows = [{"prompt": {"text": str(n), "toxicity": 0.05}} for n in range(9000)]
    rows += [{"prompt": {"text": str(n), "toxicity": 0.95}} for n in range(2600)]
    chosen = scoring.toxicity_docs(datasets.Dataset.from_list(rows))
    high = sum(row["prompt"]["toxicity"] > 0.5 for row in chosen)
    assert (len(chosen), high) == (5000, 2500)


def test_winogender_pairs_he_with_she_and_leaves_someone_out():
    rows = [
        {"sentid": f"technician.{who}.1.{gender}.txt", "sentence": f"{who} {gender}"}
        for who in ("customer", "someone")
        for gender in ("male", "female", "neutral")
    ]
    (found,) = scoring.winogender_docs(datasets.Dataset.from_list(rows))
    assert found["choices"] == ["customer male", "customer female"]
