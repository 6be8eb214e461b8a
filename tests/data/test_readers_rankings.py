"""Comparisons from pairwise choices: QA feedback and summaries of posts."""

import itertools

import pytest

from instructgpt.data.ranking import copeland_ranks, dense_ranks
from instructgpt.errors import UserError
from tests.data.reader_files import read, some, write

PAIRS = list(itertools.combinations(range(4), 2))


def test_ranks_are_dense():
    assert dense_ranks([5, 0, 0, 7]) == [2, 1, 1, 3]


def all_rankings():
    return [
        r for r in itertools.product(range(1, 5), repeat=4) if dense_ranks(r) == [*r]
    ]


@pytest.mark.parametrize("ranks", all_rankings())
def test_preferences_that_follow_from_a_ranking_give_it_back(ranks):
    preferences = [
        1 if ranks[a] < ranks[b] else 2 if ranks[a] > ranks[b] else 0 for a, b in PAIRS
    ]
    assert copeland_ranks(preferences, 4) == ([*ranks], True)


@pytest.mark.parametrize(
    ("preferences", "ranks"),
    [
        # 1 beats 2 beats 3 beats 1, and all beat 4.
        ([1, 2, 1, 1, 1, 1], [1, 1, 1, 2]),
        # 1 ties with 2 and 2 with 3, but 1 beats 3; all beat 4.
        ([0, 1, 1, 0, 1, 1], [1, 2, 3, 4]),
        # Only 1 beats 2, all else ties.
        ([1, 0, 0, 0, 0, 0], [1, 3, 2, 2]),
    ],
)
def test_preferences_that_follow_from_no_ranking_are_ranked_by_wins(preferences, ranks):
    assert copeland_ranks(preferences, 4) == (ranks, False)


def feedback(**fields: object) -> dict:
    return {
        "question": "Who? ",
        "passages": [["Ada", "Ada\n\nAda wrote.", "She did. "], ["Bo", "Bo read."]],
        "gold": "Ada wrote. ",
        **{f"prediction {k}": f"answer {k} " for k in range(1, 5)},
        "preference": [1, 1, 0, 0, 2, 2],
        **fields,
    }


PROMPT = "Ada\nAda wrote. She did.\n\nBo\nBo read.\n\nQuestion: Who?"


def test_qa_feedback_gives_four_ranked_answers_and_the_gold_one(tmp_path):
    path = write(tmp_path / "dev.json", [feedback()])
    outcome = read("fine_grained", path, "comparisons")
    assert [some(r, "id", "prompt", "responses", "ranks") for r in outcome.records] == [
        {
            "id": "dev:0",
            "prompt": PROMPT,
            "responses": [f"answer {k}" for k in range(1, 5)],
            "ranks": [1, 2, 2, 1],
        }
    ]
    assert (outcome.skipped, outcome.noted) == ({}, {})
    (record,) = read("fine_grained", path, "demonstrations").records
    assert some(record, "prompt", "response") == {
        "prompt": PROMPT,
        "response": "Ada wrote.",
    }
    (record,) = read("fine_grained", path, "prompts").records
    assert record["prompt"] == PROMPT


def test_qa_feedback_may_be_asked_without_its_passages(tmp_path):
    path = write(tmp_path / "dev.json", [feedback()])
    for kind in ("comparisons", "demonstrations"):
        outcome = read("fine_grained", path, kind, passages="none")
        assert outcome.records[0]["prompt"] == "Question: Who?"
    with pytest.raises(UserError, match="passages='few'; choose 'all' or 'none'"):
        read("fine_grained", path, "comparisons", passages="few")


def test_qa_feedback_says_what_it_decided_and_left_out(tmp_path):
    rows = [
        feedback(preference=[1, 2, 1, 1, 1, 1]),
        feedback(preference=[0] * 6),
        feedback(**{"prediction 3": " "}),
        feedback(passages=[]),
    ]
    path = write(tmp_path / "dev.json", rows)
    outcome = read("fine_grained", path, "comparisons")
    assert [r["ranks"] for r in outcome.records[:2]] == [[1, 1, 1, 2], [1, 1, 1, 1]]
    assert outcome.noted == {
        "pairs that no one ranking explains, ranked by wins - losses": 1,
        "all responses tied": 1,
    }
    assert outcome.skipped == {"empty response": 1}
    assert outcome.records[-1]["prompt"] == "Question: Who?"
    path = write(tmp_path / "gold.json", [feedback(gold=""), feedback()])
    assert read("fine_grained", path, "demonstrations").skipped == {"empty response": 1}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"preference": [1, 1, 1]}, "'preference' is .* must have six numbers"),
        ({"preference": [1, 1, 1, 1, 1, 3]}, ".* each 0 .tie., 1 or 2; correct"),
        ({"preference": [1, 1, 1, 1, 1, "1"]}, r"preference\[5\] must be a whole num"),
        ({"prediction 4": None}, "field 'prediction 4' is missing"),
        ({"passages": [["Ada", 3]]}, "a passage must be a list of texts"),
        ({"passages": ["Ada"]}, r"passages\[0\] must be a list"),
    ],
)
def test_what_is_no_qa_feedback_is_named(fields, problem, tmp_path):
    path = write(tmp_path / "dev.json", [feedback(), feedback(**fields)])
    with pytest.raises(UserError, match=rf"dev\.json\[1\]: {problem}"):
        read("fine_grained", path, "comparisons")


def summaries(first: str, second: str, **fields: object) -> dict:
    return {
        "info": {"id": "t3", "post": "Long.", "title": "T", "subreddit": "tifu"},
        "summaries": [
            {"text": first, "policy": "ref", "note": None},
            {"text": second, "policy": "sup4", "note": "unclear"},
        ],
        "choice": 1,
        "worker": "w",
        "batch": "batch9",
        "split": "train",
        "extra": {"confidence": 8},
        **fields,
    }


def test_summaries_become_comparisons_with_their_worker_and_split(tmp_path):
    path = write(
        tmp_path / "batch9.json",
        summaries(" short", "shorter"),
        summaries("x", "y", choice=0, split="valid1"),
        summaries("x", "y", split="valid2", info={"title": "T", "article": "News."}),
    )
    outcome = read("summarize_feedback", path, "comparisons")
    fields = ("id", "prompt", "responses", "ranks", "labeler")
    assert some(outcome.records[0], *fields) == {
        "id": "batch9:1",
        "prompt": "SUBREDDIT: r/tifu\n\nTITLE: T\n\nPOST: Long.\n\nTL;DR:",
        "responses": ["short", "shorter"],
        "ranks": [2, 1],
        "labeler": "w",
    }
    assert outcome.records[1]["ranks"] == [1, 2]
    assert outcome.records[2]["prompt"] == "TITLE: T\n\nARTICLE: News.\n\nTL;DR:"
    assert outcome.splits == ["train", "valid", "test"]
    prompts = read("summarize_feedback", path, "prompts")
    assert len(prompts.records) == 2
    assert prompts.splits == ["train", "test"]


def test_useless_summaries_are_left_out_and_counted(tmp_path):
    rows = [summaries("x", "x "), summaries("", "x"), summaries("x", "y")]
    outcome = read(
        "summarize_feedback", write(tmp_path / "b.json", *rows), "comparisons"
    )
    assert [record["id"] for record in outcome.records] == ["b:3"]
    assert outcome.skipped == {"identical responses": 1, "empty response": 1}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"choice": 2}, "2 summaries and choice 2; give two"),
        ({"summaries": [{"text": "x"}]}, "1 summaries and choice 1; give two"),
        ({"choice": True}, "field 'choice' must be a whole number"),
        ({"summaries": [{"text": "x"}, {}]}, r"summaries\[1\]: field 'text' is miss"),
        ({"split": "dev"}, "split 'dev'; it must be one of train, valid1, valid2"),
        ({"info": {"title": "T"}}, "info: field 'post' is missing"),
        ({"worker": None}, "field 'worker' is missing"),
    ],
)
def test_what_is_no_comparison_of_summaries_is_named(fields, problem, tmp_path):
    path = write(tmp_path / "b.json", summaries("x", "y", **fields))
    with pytest.raises(UserError, match=rf"b\.json:1:? {problem}"):
        read("summarize_feedback", path, "comparisons")
