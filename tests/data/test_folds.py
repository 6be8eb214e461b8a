"""Rankings are cut by labelers, and no measured prompt is trained on."""

import numpy as np
import pytest

from instructgpt.data.folds import cut_fold, labeler_groups
from instructgpt.errors import UserError


def row(prompt, labeler, history=()):
    return {
        "id": f"{prompt} {labeler}",
        "prompt": prompt,
        "history": list(history),
        "labeler": labeler,
    }


def rankings(counts, *, prompts=10**6):
    """Each labeler with so many rankings, of distinct prompts up to a number."""
    names = [name for name, count in counts.items() for _ in range(count)]
    return [row(f"p{i % prompts}", name) for i, name in enumerate(names)]


def rng(seed=0):
    return np.random.default_rng(seed)


def test_groups_have_about_equal_data():
    counts = dict(
        zip("abcdefghij", (40, 35, 30, 25, 20, 15, 12, 10, 8, 5), strict=True)
    )
    groups = labeler_groups(rankings(counts), 5, rng=rng())
    assert sorted(name for group in groups for name in group) == sorted(counts)
    sizes = [sum(counts[name] for name in group) for group in groups]
    assert sum(sizes) == 200 and all(35 <= size <= 45 for size in sizes)


def test_labelers_with_equally_many_are_shuffled():
    found = {
        str(labeler_groups(rankings(dict.fromkeys("abcdef", 3)), 3, rng=rng(seed)))
        for seed in range(5)
    }
    assert len(found) > 1


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (rankings({"a": 2, "": 1}), "'p2 ' has no labeler; give each"),
        (rankings({"a": 2, "b+c": 1}), r"mean of several labelers, b\+c"),
        (rankings({"a": 2, "b": 3}), "of 2 labelers, and 3 groups.*num_folds=2"),
    ],
)
def test_rankings_that_cannot_be_cut_are_refused(rows, match):
    with pytest.raises(UserError, match=match):
        labeler_groups(rows, 3, rng=rng())


def test_a_fold_measures_no_prompt_that_it_trains_on():
    rows = rankings(dict.fromkeys("abcde", 60), prompts=90)  # prompts come 3 or 4 times
    rows += [row("p0", name, ["earlier", "turn"]) for name in "abcde"]
    fold = cut_fold(rows, {"e"}, share=0.2, rng=rng())

    def prompts(part):
        return {(*r["history"], r["prompt"]) for r in part}

    assert {r["labeler"] for r in fold.train} == set("abcd")
    assert {r["labeler"] for r in fold.same} <= set("abcd")
    assert {r["labeler"] for r in fold.other} == {"e"}
    assert not prompts(fold.train) & (prompts(fold.same) | prompts(fold.other))
    share = len(prompts(fold.same)) / len(prompts(fold.same) | prompts(fold.train))
    assert share == pytest.approx(0.2, abs=0.02)
    # All rankings of the other labelers are in one of the two sets.
    assert len(fold.train) + len(fold.same) == 4 * 61


def test_a_prompt_is_one_with_its_history():
    rows = [row("p", name, [f"turn {i}", "x"]) for i in range(9) for name in "ab"]
    fold = cut_fold(rows, {"b"}, share=0.3, rng=rng())
    assert [len(part) for part in fold] == [6, 3, 3]


def test_a_fold_without_anything_to_measure_is_refused():
    rows = rankings({"a": 4, "b": 4}, prompts=4)
    for share in (0.01, 1.0):
        with pytest.raises(UserError, match=r"rankings of 1 prompts: .*measured"):
            cut_fold(rows[:1] * 2 + rows[4:5], {"b"}, share=share, rng=rng())
