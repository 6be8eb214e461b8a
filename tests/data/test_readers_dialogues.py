"""OpenAssistant's trees and Anthropic's pairs of dialogues."""

import pytest

from instructgpt.errors import UserError
from tests.data.reader_files import read, some, write


def message(role: str, text: str, /, *replies: dict, **fields: object) -> dict:
    fields = {"lang": "en", "deleted": False, "review_result": True, **fields}
    return {
        "message_id": f"id of {text}",
        "role": role,
        "text": text,
        "replies": list(replies),
        **fields,
    }


def ask(text: str, /, *replies: dict, **fields: object) -> dict:
    return message("prompter", text, *replies, **fields)


def answer(text: str, /, *replies: dict, **fields: object) -> dict:
    return message("assistant", text, *replies, **fields)


def trees(tmp_path, *roots: dict):
    rows = [{"message_tree_id": r["message_id"], "prompt": r} for r in roots]
    return write(tmp_path / "trees.jsonl", *rows)


def test_a_tree_becomes_dialogues(tmp_path):
    path = trees(
        tmp_path,
        ask(
            "q1",
            answer("a1", ask("q2", answer("a3"), answer("a4"), user_id="u2")),
            answer("a2", ask("q3", replies=None)),
            user_id="u1",
        ),
    )
    fields = ("id", "history", "prompt", "customer")
    assert [some(r, *fields) for r in read("openassistant", path, "prompts")[0]] == [
        {"id": "id of q1", "history": [], "prompt": "q1", "customer": "u1"},
        {"id": "id of q2", "history": ["q1", "a1"], "prompt": "q2", "customer": "u2"},
        {"id": "id of q3", "history": ["q1", "a2"], "prompt": "q3", "customer": ""},
    ]
    outcome = read("openassistant", path, "demonstrations")
    assert [some(r, "id", "prompt", "response") for r in outcome.records] == [
        {"id": "id of a1", "prompt": "q1", "response": "a1"},
        {"id": "id of a2", "prompt": "q1", "response": "a2"},
        {"id": "id of a3", "prompt": "q2", "response": "a3"},
        {"id": "id of a4", "prompt": "q2", "response": "a4"},
    ]
    assert outcome.skipped == {"prompt without a reply": 1}


RANKED = ask(
    "q",
    answer("second", rank=2),
    answer("best", rank=0),
    answer("unranked"),
    answer("also second", rank=2),
    answer("last", rank=5),
)


def test_ranks_are_numbered_from_one_with_ties_and_without_gaps(tmp_path):
    path = trees(tmp_path, RANKED, ask("p", answer("only", rank=0)))
    outcome = read("openassistant", path, "comparisons")
    assert [some(r, "id", "prompt", "responses", "ranks") for r in outcome[0]] == [
        {
            "id": "id of q",
            "prompt": "q",
            "responses": ["second", "best", "also second", "last"],
            "ranks": [2, 1, 2, 3],
        }
    ]
    assert outcome.skipped == {
        "reply without a rank": 1,
        "prompt with fewer than two ranked replies": 1,
    }


def test_the_best_or_all_replies_are_demonstrations(tmp_path):
    path = trees(tmp_path, RANKED)
    best = read("openassistant", path, "demonstrations")
    assert [record["response"] for record in best.records] == ["best"]
    assert best.skipped == {"outranked reply": 4}
    every = read("openassistant", path, "demonstrations", replies="all")
    assert len(every.records) == 5
    assert every.skipped == {}
    with pytest.raises(UserError, match="replies='some'; choose 'best' or 'all'"):
        read("openassistant", path, "demonstrations", replies="some")


@pytest.mark.parametrize(
    ("fields", "options", "reason"),
    [
        ({"deleted": True}, {}, "deleted message"),
        ({"review_result": False}, {}, "message that failed its review"),
        ({"text": " \n"}, {}, "empty message"),
        ({"lang": "de"}, {"lang": "en"}, "message not in 'en'"),
        ({"synthetic": True}, {}, "synthetic message"),
    ],
)
def test_useless_messages_go_with_all_below_them(fields, options, reason, tmp_path):
    below = ask("q2", answer("a2"), answer("a3"))
    path = trees(
        tmp_path,
        ask("q1", answer("gone", below, **fields), answer("a1")),
        ask("root", answer("a4"), **fields),
    )
    for kind, left in (("prompts", ["q1"]), ("demonstrations", ["q1"])):
        outcome = read("openassistant", path, kind, **options)
        assert [record["prompt"] for record in outcome.records] == left
        assert outcome.skipped == {reason: 2, "message below one that is left out": 4}


@pytest.mark.parametrize("kind", ["prompts", "demonstrations", "comparisons"])
def test_trees_that_were_given_up_are_left_out_and_counted(kind, tmp_path):
    states = (None, "ready_for_export", "aborted_low_grade", "growing", "growing")
    rows = [
        {
            "tree_state": state,
            "prompt": ask(f"q{n}", answer("a", rank=0), answer("b", rank=1)),
        }
        for n, state in enumerate(states)
    ]
    outcome = read("openassistant", write(tmp_path / "trees.jsonl", *rows), kind)
    assert [record["prompt"] for record in outcome.records] == [
        "q0",
        "q1",
    ]
    assert outcome.skipped["tree given up, its state 'aborted_low_grade'"] == 1
    assert outcome.skipped["tree given up, its state 'growing'"] == 2


def test_ids_that_are_numbers_are_their_digits(tmp_path):
    tree = ask("q", answer("a", message_id=12), message_id=11, user_id=0)
    path = trees(tmp_path, tree)
    (record,) = read("openassistant", path, "prompts").records
    assert some(record, "id", "customer") == {"id": "11", "customer": "0"}
    (record,) = read("openassistant", path, "demonstrations").records
    assert record["id"] == "12"


def test_deep_trees_are_counted_to_the_end(tmp_path):
    below = ask("end")
    for number in range(100):
        below = ask(f"q{number}", answer(f"a{number}", below))
    path = trees(tmp_path, ask("root", answer("gone", below, deleted=True)))
    outcome = read("openassistant", path, "prompts")
    assert outcome.skipped["message below one that is left out"] == 201


FLAT = {"message_id": "m", "parent_id": "p", "role": "assistant", "text": "Hi."}


@pytest.mark.parametrize("change", [{}, {"parent_id": None}, {"message_id": 7}])
@pytest.mark.parametrize("kind", ["prompts", "comparisons"])
def test_flat_messages_are_told_from_trees(change, kind, tmp_path):
    path = write(tmp_path / "ready.messages.jsonl", {**FLAT, **change})
    with pytest.raises(UserError, match=r"jsonl:1: a message, .*\*\.trees\.jsonl\."):
        read("openassistant", path, kind)


def test_reviews_that_are_open_do_no_harm(tmp_path):
    path = trees(tmp_path, ask("q", review_result=None, deleted=None))
    assert len(read("openassistant", path, "prompts").records) == 1


@pytest.mark.parametrize(
    ("root", "problem"),
    [
        (ask("q", ask("q2")), r"1 prompt\.replies\[0\]: role 'prompter' where the ass"),
        (answer("a"), r"1 prompt: role 'assistant' where the prompter should speak"),
        (
            ask("q", answer("a", rank=0), answer("b", rank="1")),
            r"replies\[1\]: field '",
        ),
        (ask("q", answer("a", text=None)), r"replies\[0\]: field 'text' is missing"),
        (ask("q", replies=[3]), r"1 prompt: replies\[0\] must be an object, found 3"),
    ],
)
def test_what_is_no_tree_is_named(root, problem, tmp_path):
    with pytest.raises(UserError, match=r"trees\.jsonl:.*" + problem):
        read("openassistant", trees(tmp_path, root), "comparisons")


def test_lines_without_a_tree_are_named(tmp_path):
    path = write(tmp_path / "a.jsonl", {"message_id": "m", "text": "flat export"})
    with pytest.raises(UserError, match=r"a\.jsonl:1: a message, .*give the file of t"):
        read("openassistant", path, "prompts")
    path = write(tmp_path / "a.jsonl", {"message_tree_id": "m"})
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'prompt' is missing"):
        read("openassistant", path, "prompts")


def dialogue(*turns: str) -> str:
    """Human and Assistant in turn."""
    return "".join(
        f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns)
    )


def test_a_pair_of_dialogues_becomes_a_comparison(tmp_path):
    pair = {
        "chosen": dialogue("q1", "a1\n\nin two blocks", "q2", "good "),
        "rejected": dialogue("q1", "a1\n\nin two blocks", "q2", "bad"),
    }
    path = write(tmp_path / "pairs.jsonl", pair)
    (record,) = read("hh_rlhf_helpful", path, "comparisons").records
    assert some(record, "id", "history", "prompt", "responses", "ranks") == {
        "id": "pairs:1",
        "history": ["q1", "a1\n\nin two blocks"],
        "prompt": "q2",
        "responses": ["good", "bad"],
        "ranks": [1, 2],
    }
    (record,) = read("hh_rlhf_helpful", path, "demonstrations").records
    assert some(record, "prompt", "response") == {"prompt": "q2", "response": "good"}
    (record,) = read("hh_rlhf_helpful", path, "prompts").records
    assert record["history"] == ["q1", "a1\n\nin two blocks"]


ODD_PAIRS = {
    "dialogues that part before the last turn": (
        dialogue("q", "a", "q2", "good"),
        dialogue("q", "other", "q2", "bad"),
    ),
    "identical responses": (dialogue("q", "a"), dialogue("q", "a ")),
    "empty response": (dialogue("q", "a"), dialogue("q", " ")),
    "empty turn": (dialogue("q", "", "q2", "a"), dialogue("q", "", "q2", "b")),
    "dialogue that does not open with a speaker": ("Hi" + dialogue("q", "a"), ""),
    "dialogue in which the speakers do not take turns": (
        dialogue("q", "a") + "\n\nAssistant: more",
        dialogue("q", "b"),
    ),
}


@pytest.mark.parametrize("reason", ODD_PAIRS)
def test_odd_pairs_are_left_out_and_counted(reason, tmp_path):
    chosen, rejected = ODD_PAIRS[reason]
    good = {"chosen": dialogue("q", "a"), "rejected": dialogue("q", "b")}
    odd = {"chosen": chosen, "rejected": rejected}
    path = write(tmp_path / "pairs.jsonl", odd, good)
    outcome = read("hh_rlhf_harmless", path, "comparisons")
    assert [record["id"] for record in outcome.records] == ["pairs:2"]
    assert outcome.skipped == {reason: 1}


def test_a_dialogue_that_ends_with_the_human_is_left_out(tmp_path):
    odd = {"chosen": dialogue("q", "a", "q2"), "rejected": dialogue("q", "b")}
    path = write(tmp_path / "pairs.jsonl", odd)
    outcome = read("hh_rlhf_harmless", path, "demonstrations")
    assert outcome.records == []
    assert sum(outcome.skipped.values()) == 1


def test_a_bad_rejected_dialogue_does_not_spoil_the_demonstration(tmp_path):
    pair = {"chosen": dialogue("q", "a"), "rejected": ""}
    path = write(tmp_path / "pairs.jsonl", pair)
    assert len(read("hh_rlhf_harmless", path, "demonstrations").records) == 1
    assert len(read("hh_rlhf_harmless", path, "comparisons").records) == 0
