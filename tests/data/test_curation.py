"""Each curation rule by hand, few-shot instructions, and the ledger."""

import itertools
import json
import random
import tracemalloc

import pytest

from instructgpt.data.curation import Ledger, Rules, Unit, curate, read_units
from instructgpt.data.curation.rules import choose_split, hash64, prefix
from instructgpt.errors import UserError

TRAIN = (1.0, 0.0, 0.0)


def unit(
    text: str,
    customer: str = "",
    *,
    name: str = "",
    split: str = "",
    response: str = "",
) -> Unit:
    record = {"id": name or text, "history": [], "prompt": text, "customer": customer}
    if response:
        record["response"] = response
    return Unit("a.jsonl:1", record["id"], customer, text, [record], split)


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.fixture
def fates(ledger):
    """A function from units and thresholds to (split, reason, detail) of each."""

    def run(*units, identify=None, measure=len, **thresholds):
        rules = Rules(**{"fractions": TRAIN, **thresholds})
        outcomes = curate(
            units, rules, ledger=ledger, identify=identify, measure=measure
        )
        return [(o.split, o.reason, o.detail) for o in outcomes]

    return run


KEPT = ("train", "", "")


def test_texts_that_share_their_first_characters_are_duplicates(fates):
    assert fates(
        unit("abcdefgh one", name="1"),
        unit("abcdefgh two", name="2"),
        unit("abcdefg", name="3"),  # shorter than the prefix: equal or different
        unit("abcdefg", name="4"),
        unit("abcdefgX", name="5"),
        unit("abcdefgh", name="6"),
        prefix_chars=8,
    ) == [
        KEPT,
        ("train", "duplicate", "of 1"),
        KEPT,
        ("train", "duplicate", "of 3"),
        KEPT,
        ("train", "duplicate", "of 1"),
    ]


def test_white_space_does_not_tell_texts_apart_but_case_does(fates):
    assert fates(
        unit("a b c", name="1"), unit("\n a\t\tb  c ", name="2"), unit("A b c")
    ) == [KEPT, ("train", "duplicate", "of 1"), KEPT]


@pytest.mark.parametrize("chars", [1, 2, 3, 7, 50])
def test_the_prefix_is_that_of_the_whole_normalised_text(chars):
    rng = random.Random(chars)
    for _ in range(200):
        text = "".join(rng.choices("ab \n", k=rng.randrange(1, 40)))
        assert prefix(text, chars) == " ".join(text.split())[:chars]


def test_the_cap_counts_units_that_were_kept_and_spares_labelers(fates):
    assert fates(
        unit("a", "x", name="1"),
        unit("a", "x", name="2"),
        unit("b", "x", name="3"),
        unit("c", "x", name="4"),
        unit("c", "y", name="5"),  # what the cap removed is no original
        *(unit(text) for text in "defg"),
        cap=2,
    ) == [
        KEPT,
        ("train", "duplicate", "of 1"),
        KEPT,
        ("train", "cap", "customer has 2"),
        KEPT,
        *[KEPT] * 4,
    ]


def test_the_cap_is_the_papers_unless_told_otherwise(fates):
    units = [unit(str(i), "x") for i in range(300)]
    assert [reason for _, reason, _ in fates(*units)].count("cap") == 100


def test_all_units_of_a_customer_are_in_one_split(fates):
    names = [f"c{i}" for i in range(300)]
    units = [unit(f"{name} {i}", name) for i in range(3) for name in names]
    splits = [split for split, _, _ in fates(*units, fractions=(0.5, 0.3, 0.2))]
    assert splits[:300] == splits[300:600] == splits[600:]
    shares = [splits.count(split) / 900 for split in ("train", "valid", "test")]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.08)


def test_the_seed_changes_the_split_and_nothing_else_does(fates, tmp_path):
    units = [unit(f"t{i}", f"c{i}" if i % 2 else "") for i in range(200)]
    even = (0.5, 0.5, 0.0)
    first = fates(*units, fractions=even)
    results = {}
    for seed in (0, 1):
        ledger = Ledger(tmp_path / str(seed))
        rules = Rules(fractions=even, seed=seed)
        outcomes = list(curate(reversed(units), rules, ledger=ledger))
        results[seed] = [(o.split, o.reason, o.detail) for o in outcomes][::-1]
        ledger.close()
    assert results[0] == first
    changed = [a != b for a, b in zip(first, results[1], strict=True)]
    assert 30 < sum(changed[::2]) < 70  # of labelers: by their text
    assert 30 < sum(changed[1::2]) < 70  # of customers


def test_splits_are_ranges_of_the_hash():
    fractions = (0.5, 0.0, 0.5)
    assert choose_split(-(2**63), fractions) == "train"
    assert choose_split(-(2**12), fractions) == "train"
    assert choose_split(0, fractions) == "test"
    assert choose_split(2**63 - 1, fractions) == "test"
    assert choose_split(2**63 - 1, (1 - 1e-9, 0.0, 0.0)) == "train"
    assert hash64("a") == hash64("a") != hash64("a", seed=1)


def test_personal_data_is_removed_from_the_training_split_only(fates):
    mail = "write to jo@example.com"
    assert fates(unit(mail)) == [("train", "pii", "email")]
    assert fates(unit(mail), fractions=(0.0, 1.0, 0.0)) == [("valid", "", "")]
    assert fates(unit("b", response=mail)) == [("train", "pii", "email")]
    # What was removed for it is neither an original nor counted.
    assert fates(unit(f"c {mail}", "x"), unit("c", "x"), cap=1) == [
        ("train", "pii", "email"),
        KEPT,
    ]
    comparison = unit("d")
    comparison.records[0]["responses"] = ["fine", mail]
    assert fates(comparison) == [("train", "pii", "email")]


def test_lengths_in_characters_and_in_tokens(fates):
    assert fates(
        unit("ab"), unit("abc"), unit("abcd"), unit("abcde"), min_chars=3, max_chars=4
    ) == [
        ("train", "length", "2 characters, at least 3"),
        KEPT,
        KEPT,
        ("train", "length", "5 characters, at most 4"),
    ]
    assert fates(
        unit("u v"), unit("u v w"), measure=lambda t: len(t.split()), max_tokens=2
    ) == [KEPT, ("train", "length", "3 tokens, at most 2")]


def test_languages_are_filtered_when_asked(fates):
    def identify(text):
        return text[:2]

    assert fates(
        unit("en a"), unit("de b"), unit("fr c"), identify=identify, languages=("en",)
    ) == [KEPT, ("train", "language", "de"), ("train", "language", "fr")]
    assert fates(unit("xx a"), identify=identify) == [KEPT]


CROSSING = (
    unit("a", "x", name="1", split="test"),
    unit("b jo@example.com", "x", name="2", split="train"),
    unit("c", "x", name="3", split="train"),
    unit("d", "y", name="4", split="train"),
    unit("a", "y", name="5", split="train"),
    unit("e", "", name="6", split="valid"),
)


def test_a_customer_in_two_splits_is_moved_to_the_first(fates):
    assert fates(*CROSSING) == [
        ("test", "", ""),
        ("test", "", ""),  # and no longer has to be free of personal data
        ("test", "", ""),
        KEPT,
        ("train", "duplicate", "of 1"),
        ("valid", "", ""),
    ]


def test_a_customer_in_two_splits_is_dropped_from_the_second(fates):
    assert fates(*CROSSING, cross_split="drop") == [
        ("test", "", ""),
        ("train", "cross_split", "customer is in test"),
        ("train", "cross_split", "customer is in test"),
        KEPT,
        ("train", "duplicate", "of 1"),
        ("valid", "", ""),
    ]


@pytest.mark.parametrize(
    ("thresholds", "problem"),
    [
        ({"cap": 0}, "cap=0: give a number of at least 1"),
        ({"prefix_chars": -1}, "prefix_chars=-1"),
        ({"fractions": (0.5, 0.5)}, "give one for each of train, valid, test"),
        ({"fractions": (0.5, 0.6, 0.0)}, "and 1 together"),
        ({"fractions": (1.5, -0.5, 0.0)}, "at least 0"),
        ({"fractions": (float("nan"), 0.5, 0.5)}, "at least 0"),
        ({"cross_split": "keep"}, "'move' or 'drop'"),
    ],
)
def test_thresholds_that_cannot_be_meant(thresholds, problem):
    with pytest.raises(UserError, match=problem):
        Rules(**thresholds)


def test_the_ledger_counts_customers(ledger):
    for split, customer in [("train", 1), ("train", 1), ("train", 2), ("test", 3)]:
        assert ledger.count(customer, split, cap=2)
    assert not ledger.count(1, "train", cap=2)
    counts = ledger.customer_counts()
    assert counts == {"train": (2, 1.5, 2), "test": (1, 1.0, 1)}
    assert (ledger.split_of(3), ledger.split_of(4)) == ("test", None)


def test_memory_does_not_grow_with_the_rows(ledger):
    """Python's own memory: SQLite's page cache is bounded by its setting."""

    def units(number):
        return (unit(f"text number {i} of many", f"c{i // 5}") for i in range(number))

    def peak(number):
        tracemalloc.reset_peak()
        kept = sum(not o.reason for o in curate(units(number), Rules(), ledger=ledger))
        return tracemalloc.get_traced_memory()[1], kept

    tracemalloc.start()
    small, kept = peak(500)
    large, more = peak(5000)
    tracemalloc.stop()
    assert (kept, more) == (500, 4500)
    assert large < small + 20_000


FEW_SHOT = {
    "id": "sentiment",
    "instruction": "Good or bad?",
    "pairs": [["So happy", "good"], ["Late again", "bad"], ["Rain", "bad"]],
    "category": "classification",
}


def few_shot(tmp_path, *lines):
    path = tmp_path / "shots.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return list(read_units(path, kind="demonstrations"))


def test_k_pairs_become_k_demonstrations_with_the_others_in_context(tmp_path):
    (found,) = few_shot(tmp_path, FEW_SHOT)
    assert (found.id, found.where) == ("sentiment", f"{tmp_path}/shots.jsonl:1")
    first, second, third = found.records
    assert first == {
        "id": "sentiment/0",
        "history": [],
        "prompt": "Good or bad?\n\nQuery: Late again\nResponse: bad\n\n"
        "Query: Rain\nResponse: bad\n\nQuery: So happy\nResponse:",
        "response": "good",
        "customer": "",
        "source": "labeler",
        "category": "classification",
        "style": "few_shot",
    }
    assert (second["id"], second["response"]) == ("sentiment/1", "bad")
    assert second["prompt"] == (
        "Good or bad?\n\nQuery: So happy\nResponse: good\n\n"
        "Query: Rain\nResponse: bad\n\nQuery: Late again\nResponse:"
    )
    assert third["prompt"].endswith(
        "Query: Late again\nResponse: bad\n\nQuery: Rain\nResponse:"
    )


def test_an_instruction_is_one_unit(tmp_path, ledger):
    """Its examples share a long prefix, yet are no duplicates, and count once."""
    plain = {"prompt": "p", "response": "r", "customer": "x"}
    again = {**FEW_SHOT, "id": "again", "customer": "x"}
    mine = {**again, "id": "mine", "instruction": "Which?"}
    found = few_shot(tmp_path, FEW_SHOT, again, mine, plain, {**plain, "prompt": "q"})
    rules = Rules(cap=2, prefix_chars=20, fractions=TRAIN)
    outcomes = list(curate(found, rules, ledger=ledger))
    assert [o.reason for o in outcomes] == ["", "duplicate", "", "", "cap"]
    assert [len(o.unit.records) for o in outcomes] == [3, 3, 3, 1, 1]
    assert outcomes[2].unit.records[0]["source"] == "customer"
    assert len(outcomes[0].lengths) == 3


def test_an_instruction_with_personal_data_in_any_pair_is_removed(tmp_path, ledger):
    pairs = [*FEW_SHOT["pairs"], ["a", "jo@example.com"]]
    found = few_shot(tmp_path, {**FEW_SHOT, "pairs": pairs})
    (outcome,) = curate(found, Rules(fractions=TRAIN), ledger=ledger)
    assert (outcome.reason, outcome.detail) == ("pii", "email")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"instruction": " "}, "'instruction' must be a text that is not empty"),
        ({"instruction": None}, "'instruction' must be a text that is not empty"),
        ({"pairs": {}}, "'pairs' must be a list of two or more pairs"),
        ({"pairs": [["a", "b"]]}, "a single one is a demonstration"),
        ({"pairs": [["a", "b"], ["c"]]}, "pair 1 of 'pairs' must be two texts"),
        ({"pairs": [["a", ""], ["c", "d"]]}, "pair 0 of 'pairs'"),
        ({"pairs": [["a", "b"], ["c", 1]]}, "pair 1 of 'pairs'"),
        ({"pairs": [["a", "\ud800"], ["c", "d"]]}, "must be text"),
        ({"customer": 3.5}, "'customer' must be text"),
    ],
)
def test_bad_instructions_are_named(change, problem, tmp_path):
    with pytest.raises(UserError, match=rf"shots\.jsonl:2: .*{problem}"):
        few_shot(tmp_path, FEW_SHOT, {**FEW_SHOT, **change})


def test_instructions_are_demonstrations_and_nothing_else(tmp_path):
    few_shot(tmp_path, FEW_SHOT)
    with pytest.raises(UserError, match=r"shots\.jsonl:1: field 'prompt' is missing"):
        list(read_units(tmp_path / "shots.jsonl", kind="prompts"))


def test_the_history_of_a_dialogue_is_part_of_its_text(tmp_path):
    path = tmp_path / "a.jsonl"
    turns = [[], ["hi", "hello"], ["hi", "hello"]]
    lines = [{"prompt": p, "history": h} for p, h in zip("aab", turns, strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = [u.text for u in read_units(path, kind="prompts")]
    assert texts == ["a", "hi\nhello\na", "hi\nhello\nb"]
    assert all(a != b for a, b in itertools.pairwise(texts))
