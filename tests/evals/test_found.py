"""What evaluators give is checked before anything is kept or forgotten."""

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.evals.found import run_evaluators, run_judges
from instructgpt.evals.interface import Results

RECORDS = [{"id": "0", "prompt": "a"}, {"id": "1", "prompt": "b"}]
BAD = {
    "two of three": (Results({"x": (1.0, 2.0)}), "'x': (1.0, 2.0); give a finite"),
    "words": (Results({"x": "good"}), "'x': 'good'; give a finite number"),
    "nan": (Results({"x": float("nan")}), "'x': nan; give a finite number"),
    "no name": (Results({3: 1.0}), "3: 1.0; give a finite number"),
    "no mapping": (Results([1.0]), "numbers that are no mapping"),
    "rows of numbers": (Results({}, [1, 2]), "row 0: 1; give a dict"),
    "no JSON": (Results({}, [{"a": 1}, {"b": object()}]), "row 1: {'b'"),
    "nan in a row": (Results({}, [{}, {"a": float("nan")}]), "row 1: {'a': nan}"),
    "some ratings": (Results({}, [{"rating": 1}, {}]), "rating in some rows only"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_stored_is_named_by_its_key(case):
    given, says = BAD[case]

    class Mine:
        def run(self, model, records):
            return given

    with pytest.raises(UserError) as error:
        run_evaluators({"mine": Mine()}, None, RECORDS)
    assert str(error.value).startswith("config.evaluators.mine: its run() gives")
    assert says in str(error.value)


def test_numbers_intervals_and_rows_pass():

    good = Results(
        {"a": 1, "b/c": np.float32(0.5), "d": (0.5, 0.25, 0.75)},
        [{"rating": 1}, {"rating": 2}],
    )

    class Mine:
        def run(self, model, records):
            return good

    assert run_evaluators({"mine": Mine()}, None, RECORDS) == {"mine": good}


def test_two_prompts_of_one_id_cannot_be_judged():
    records = [{"id": "0", "prompt": "a"}, {"id": "0", "prompt": "b"}]
    with pytest.raises(UserError, match="two of the compared prompts have the id '0'"):
        run_judges({}, records, {"sft": ["c", "d"]}, baseline="sft")
