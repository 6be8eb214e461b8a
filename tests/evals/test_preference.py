"""What is computed from judgements: win rates, means, groups."""

import pytest

from instructgpt.errors import UserError
from instructgpt.evals.intervals import mean_interval
from instructgpt.evals.judgements import (
    Judgement,
    as_line,
    check_judgements,
    judged_rows,
    preference,
)
from instructgpt.evals.preference import summarise, win_rate

RECORDS = [
    {
        "id": f"p{i}",
        "prompt": f"prompt {i}",
        "category": "chat" if i == 3 else "open_qa",
        "distribution": "gpt3" if i == 3 else "instructgpt",
    }
    for i in range(4)
]
ANSWERS = {"sft": ["a b"] * 4, "ppo": ["a b c", "d", "e", "f g"]}


def ranks(prompt: str, sft: int, ppo: int, **who) -> list[Judgement]:
    return [
        Judgement(prompt, "sft", rank=sft, **who),
        Judgement(prompt, "ppo", rank=ppo, **who),
    ]


def test_two_answers_are_compared_by_rank_then_score_then_likert():
    def one(**given):
        return Judgement("p0", "sft", **given)

    assert preference(one(rank=1, score=0.1), one(rank=2, score=9.5)) == 1
    assert preference(one(rank=2), one(rank=2)) == 0.5
    assert preference(one(score=0.25, likert=7), one(score=0.5, likert=1)) == 0
    assert preference(one(likert=4, score=3.5), one(likert=2)) == 1
    assert preference(one(rank=1), one(likert=3)) is None


def test_the_win_rate_is_over_prompts_and_a_tie_counts_one_half():
    # Two labelers of the first prompt disagree; both orders of the second agree.
    found = [
        *ranks("p0", 1, 2, labeler="a"),
        *ranks("p0", 2, 1, labeler="b"),
        *ranks("p1", 2, 1, labeler="a", sheet="sft first"),
        *ranks("p1", 2, 1, labeler="a", sheet="ppo first"),
        *ranks("p2", 1, 1, labeler="a"),
        Judgement("p3", "ppo", rank=1, labeler="b"),  # nothing to compare it with
    ]
    rate = win_rate(found, "ppo", baseline="sft")
    assert rate == mean_interval([0.5, 1, 0.5], limits=(0, 1))
    assert win_rate(found, "sft", baseline="sft") == (0.5, 0.5, 0.5)
    assert win_rate(found, "gpt", baseline="sft") is None


def test_the_numbers_of_a_model():
    found = [
        Judgement(
            record["id"],
            name,
            likert=likert,
            score=likert / 2,
            flags={"fails_to_follow_instruction": likert < 4}
            | ({"hallucination": True} if i == 0 else {}),
        )
        for name, values in {"sft": (3, 4, 3, 7), "ppo": (5, 4, 6, 1)}.items()
        for i, (record, likert) in enumerate(zip(RECORDS, values, strict=True))
    ]
    judged = summarise(found, RECORDS, ANSWERS, baseline="sft")
    numbers = judged.models["ppo"].numbers
    # The last prompt is of the GPT-3 distribution, which has a group of its own.
    assert numbers["win_rate"] == mean_interval([1, 0.5, 1], limits=(0, 1))
    assert numbers["likert"] == mean_interval([5, 4, 6], limits=(1, 7))
    assert numbers["score"] == mean_interval([2.5, 2, 3])
    assert numbers["flags/attempts_correct_instruction"][0] == 1
    assert numbers["flags/hallucination"] == mean_interval([1], limits=(0, 1))
    assert numbers["words"] == mean_interval([3, 1, 1])
    assert set(numbers) == {
        *("win_rate", "likert", "score", "words", "categories/open_qa"),
        *("flags/attempts_correct_instruction", "flags/hallucination"),
    }
    groups = judged.groups["distribution"]
    assert groups["gpt3"]["ppo"][0] == 0
    assert groups["instructgpt"]["ppo"] == list(numbers["win_rate"])
    (row, *_) = judged.models["ppo"].rows
    assert row == {"rating": 5, "likert": 5, "score": 2.5, "flags": ["hallucination"]}


def test_held_out_labelers_are_a_group_of_their_own():
    found = [
        *ranks("p0", 1, 2, labeler="a", group="training"),
        *ranks("p0", 2, 1, labeler="b", group="heldout"),
        *ranks("p1", 1, 2, labeler="a", group="training"),
    ]
    judged = summarise(found, RECORDS, ANSWERS, baseline="sft")
    assert judged.models["ppo"].numbers["win_rate"][0] == 0
    groups = judged.groups["labelers"]
    assert groups["heldout"]["ppo"][0] == 1 and groups["training"]["ppo"][0] == 0
    # Prompts of GPT-3 are in no table but those by distribution.
    found += ranks("p3", 2, 1, labeler="a", group="training")
    groups = summarise(found, RECORDS, ANSWERS, baseline="sft").groups
    assert groups["labelers"]["training"]["ppo"][0] == 0
    assert groups["distribution"]["gpt3"]["ppo"][0] == 1
    # Without a rating of each answer there are no rows.
    assert judged.models["ppo"].rows == ()


GOOD = Judgement("p0", "ppo", likert=4)
BAD = {
    "no list": ({"ppo": 1.5}, "gives dict, not a list of the Judgement"),
    "nothing": ([], "gives no judgement"),
    "numbers": ([0.5], "judgement 0: 0.5; give a Judgement"),
    "prompt": ([GOOD._replace(id="x")], "judgement 0: no prompt has the id 'x'"),
    "model": ([GOOD._replace(model="flan")], "unknown model 'flan'; the models are"),
    "twice": ([GOOD, GOOD], "judgement 1: ppo's answer to 'p0' is judged twice"),
    "likert": ([GOOD._replace(likert=8)], "likert is 8; give a number from 1 to 7"),
    "score": ([GOOD._replace(score=float("nan"))], "score is nan; give a finite"),
    "rank": ([GOOD._replace(rank=1.5)], "rank is 1.5; give a whole number"),
    "flags": ([GOOD._replace(flags={"hallucination": 1})], "give true or false by"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_judgement_is_named(case):
    given, says = BAD[case]
    with pytest.raises(UserError) as error:
        check_judgements(given, where="j gives", ids=["p0"], models=["ppo"])
    assert str(error.value).startswith("j gives") and says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_judgements_comes_back(tmp_path):
    given = [
        GOOD._replace(flags={"hallucination": False}, labeler="ann", note="fine"),
        Judgement("p1", "sft", rank=2, labeler="bob", group="heldout", sheet="2"),
    ]
    path = tmp_path / "judgements.jsonl"
    path.write_text("".join(f"{as_line(one)}\n" for one in given))
    rows = judged_rows(path, models=["sft", "ppo"])
    assert [row.judgement for row in rows] == given
    table = tmp_path / "judgements.csv"
    flags = "flags.hallucination,flags"
    table.write_text(
        f"id,model,likert,rank,labeler,{flags}\n"
        'p0,ppo,4.5,,7,true,"{""harmful_advice"": false}"\n'
        "p1,sft,,2.0,,,\n"  # as a table with gaps has a rank
    )
    rows = judged_rows(table, models=["sft", "ppo"])
    found = {"hallucination": True, "harmful_advice": False}
    assert rows[0].judgement == Judgement(
        "p0", "ppo", likert=4.5, labeler="7", flags=found
    )
    assert rows[1].judgement == Judgement("p1", "sft", rank=2)


LINES = {
    "unknown model": ('{"id": "p0", "model": "flan", "rank": 1}', "'flan'; the compa"),
    "doubled": ('{"id": "p", "model": "ppo", "rank": 2}\n' * 2, ":2: ppo's answer to"),
    "answer": ('{"id": "p", "model": "ppo", "rank": 2, "response": 3}', "give a text"),
    "huge": (f'{{"id": "p", "model": "ppo", "rank": 1{"0" * 400}}}', "rank is 1000"),
    "says nothing": ('{"id": "p0", "model": "ppo"}', ":1: says nothing; give likert"),
    "no model": ('{"id": "p0", "rank": 1}', ":1: field 'model' is missing"),
    "misspelt": ('{"id": "p", "model": "ppo", "likret": 3}', "unknown field 'likret'"),
    "out of range": ('{"id": "p", "model": "ppo", "likert": 0}', ":1: likert is 0"),
    "no JSON": ("{", "not valid JSON"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, case):
    text, says = LINES[case]
    path = tmp_path / "judgements.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(UserError) as error:
        judged_rows(path, models=["sft", "ppo"])
    assert str(path) in str(error.value) and says in str(error.value)
    assert "\n" not in str(error.value)
