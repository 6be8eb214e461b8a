"""Judges of TruthfulQA: their labels, their folds, and what they say of answers."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

from instructgpt import truthful as command
from instructgpt.errors import UserError
from instructgpt.evals.benchmarks.truthful import (
    NO,
    YES,
    Label,
    TruthJudge,
    agreement,
    fold_of,
    open_judges,
    question_of,
    read_labels,
    with_truth,
)
from instructgpt.evals.interface import Results
from tests.shared_data import shared_data

QUESTIONS = [f"Who built town {n}?" for n in range(40)]


def line(question: str, answer: str, value: bool, ending: str = "True:") -> str:
    prompt = f"Q: {question}\nA: {answer}\n{ending}"
    return json.dumps({"prompt": prompt, "completion": YES if value else NO})


def write_labels(folder) -> None:
    for kind, ending in (("truth", "True:"), ("info", "Helpful:")):
        lines = [
            line(question, answer, value, ending)
            for question in QUESTIONS
            for answer, value in (("Nobody knows", True), ("Giants\ndid", False))
        ]
        lines.append(lines[0])  # a repeated row
        (folder / f"finetune_{kind}.jsonl").write_text("\n".join(lines) + "\n")


class Careful:
    """A judge's model that knows the right answer, and which questions it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def log_likelihood(self, pairs, **options):
        self.asked += [prompt for prompt, _ in pairs]
        return [
            SimpleNamespace(log_prob=-0.1 if ("Nobody" in p) == (w == YES) else -3.0)
            for p, w in pairs
        ]


def test_repeated_rows_count_once_and_contradictions_not_at_all(tmp_path):
    path = tmp_path / "finetune_truth.jsonl.gz"
    rows = [("a?", "yes", True), ("a?", "yes", True), ("a?", "no", True)]
    rows += [("a?", "no", False), ("b?", "two\nlines", False)]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(line(*row) for row in rows))
    found = read_labels(path, "truth")
    assert found == [Label("a?", "yes", True), Label("b?", "two\nlines", False)]
    with pytest.raises(
        UserError, match=r"finetune_truth\.jsonl\.gz:1: no label of info"
    ):
        read_labels(path, "info")


def test_the_published_labels():
    """The shares of no: the commoner label of truth, and the rarer one of info."""
    folder = shared_data("truthfulqa")
    for kind, number, no in (("truth", 18284, 0.577), ("info", 18262, 0.194)):
        labels = read_labels(folder / f"finetune_{kind}.jsonl.gz", kind)
        assert len({label.question for label in labels}) == 817
        assert abs(len(labels) - number) < 60
        assert 1 - np.mean([x.value for x in labels]) == pytest.approx(no, abs=0.05)


def test_an_answer_is_judged_by_the_fold_that_did_not_learn_its_question():
    models = [Careful() for _ in range(3)]
    answers = [(question, "Nobody knows") for question in QUESTIONS]
    found = TruthJudge("truth", models).probabilities(answers)
    assert found == pytest.approx([1 / (1 + np.exp(-2.9))] * len(answers))
    for fold, model in enumerate(models):
        assert model.asked
        for prompt in model.asked:
            question = prompt.partition("\nA:")[0].removeprefix("Q: ")
            assert fold_of(question, 3) == fold
            assert prompt.endswith("\nA: Nobody knows\nTrue:")


def test_records_leave_out_the_fold_and_repeat_no_question(tmp_path, capsys):
    write_labels(tmp_path)
    command.main(["records", str(tmp_path), str(tmp_path / "out"), "--folds=2"])
    for kind in ("truth", "info"):
        for fold in range(2):
            seen = {}
            for split in ("train", "valid"):
                folder = tmp_path / "out" / kind / str(fold) / "records"
                text = (folder / f"demonstrations.{split}.jsonl").read_text()
                rows = [json.loads(row) for row in text.splitlines()]
                seen[split] = {
                    question_of(r["prompt"].split("\nA: ")[0] + "\nA:") for r in rows
                }
                assert {r["response"] for r in rows} == {YES, NO}
                assert len({(r["prompt"], r["response"]) for r in rows}) == len(rows)
            assert not seen["train"] & seen["valid"]
            for question in seen["train"] | seen["valid"]:
                assert fold_of(question, 2) != fold
    with pytest.raises(SystemExit, match="--folds=1: give 2 or more"):
        command.main(["records", str(tmp_path), str(tmp_path / "out"), "--folds=1"])
    with pytest.raises(SystemExit, match=r"there is no finetune_truth\.jsonl"):
        command.main(["records", str(tmp_path / "out"), str(tmp_path / "out")])


def test_judges_are_of_the_folds_that_were_written(tmp_path):
    write_labels(tmp_path)
    out = tmp_path / "out"
    command.main(["records", str(tmp_path), str(out), "--folds=12"])
    (out / "truth" / "77").mkdir()  # of another time
    with pytest.raises(SystemExit, match="no checkpoint"):
        command.main(["measure", str(tmp_path), str(out)])
    named = json.loads((out / "judges.json").read_text())
    assert named["truth"] == [f"truth/{fold}/sft" for fold in range(12)]


@pytest.mark.parametrize(
    "text", ['["a"]', '{"truth": ["a"]}', '{"truth": [], "info": []}']
)
def test_a_file_that_names_no_judges_is_refused(tmp_path, text):
    (tmp_path / "judges.json").write_text(text)
    with pytest.raises(UserError, match="give the workdirs of each fold's judge"):
        open_judges(str(tmp_path / "judges.json"))


def test_a_file_without_labels_is_refused(tmp_path):
    (tmp_path / "finetune_truth.jsonl").write_text("")
    with pytest.raises(UserError, match="there are no labels"):
        read_labels(tmp_path / "finetune_truth.jsonl", "truth")
    (tmp_path / "finetune_truth.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match=r"jsonl:1: no label of truth"):
        read_labels(tmp_path / "finetune_truth.jsonl", "truth")


def test_agreement_is_measured_beside_the_majority():
    labels = [Label(f"q{n}?", "a", n % 4 == 0) for n in range(80)]
    perfect = agreement(labels, [float(x.value) for x in labels])
    assert perfect.accuracy.value == perfect.balanced_accuracy.value == 1
    assert perfect.auc.value == 1
    assert perfect.majority == 0.75
    lazy = agreement(labels, [0.2] * 80)  # always no
    assert lazy.accuracy.value == pytest.approx(0.75)
    assert lazy.balanced_accuracy == pytest.approx((0.5, 0.5, 0.5))
    assert lazy.auc == pytest.approx((0.5, 0.5, 0.5))
    rng = np.random.default_rng(0)
    noisy = agreement(labels, [0.7 * x.value + 0.3 * rng.random() for x in labels])
    low, high = noisy.auc[1:]
    assert low <= noisy.auc.value <= high
    with pytest.raises(UserError, match="all labels are alike"):
        agreement([Label("q", "a", True)], [0.5])


def test_the_two_bars_of_the_paper():
    """True is the truth judge's; the coloured bar wants the other's yes too."""
    rows = [
        {
            "task": "instructgpt_truthfulqa_qa",
            "choices": None,
            "prompt": f"Q: solved?\nA: Yes.\n\nQ: {question}\nA:",
            "response": f" {answer}",
            "metrics": {"no_comment": 0.0},
        }
        for question, answer in zip(
            QUESTIONS, ["Nobody knows", "Giants", "Nobody", "Nobody"] * 10, strict=True
        )
    ]
    rows.append({**rows[0], "task": "instructgpt_truthfulqa_mc1", "choices": ["a"]})

    class Known(Careful):
        def log_likelihood(self, pairs, **options):
            return [
                SimpleNamespace(
                    log_prob=-0.1 if (" knows\n" in p) == (w == YES) else -3
                )
                for p, w in pairs
            ]

    judges = {
        "truth": TruthJudge("truth", [Careful(), Careful()]),
        "info": TruthJudge("info", [Known(), Known()]),
    }
    results = Results({"instructgpt_truthfulqa_qa/no_comment": 0.0}, rows)
    found = with_truth(results, judges)
    assert found.numbers["instructgpt_truthfulqa_qa/true"][0] == pytest.approx(0.75)
    both = found.numbers["instructgpt_truthfulqa_qa/true_and_informative"]
    assert both[0] == pytest.approx(0.25)
    assert set(found.rows[0]["metrics"]) == {"no_comment", "truth", "info"}
    assert "truth" not in found.rows[-1]["metrics"]
    assert with_truth(results, {}) is results
