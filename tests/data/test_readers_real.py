"""The readers on published files, where these are: exact counts."""

import itertools
from collections import Counter

import pytest

from instructgpt.data.origins.published import find_files, read_set
from instructgpt.data.readers import Report, read_file
from tests.data.reader_files import real_file

OASST = "oasst_en_100_trees/en_100_tree.jsonl.gz"
HARMLESS = "hh_rlhf_harmless_test"
SYNTHETIC = {"synthetic message": 5, "message below one that is left out": 17}
EXPECTED = {
    ("openassistant", OASST, "comparisons"): (
        207,
        {
            **SYNTHETIC,
            "prompt with fewer than two ranked replies": 268,
            "reply without a rank": 1,
        },
    ),
    ("openassistant", OASST, "demonstrations"): (
        252,
        {**SYNTHETIC, "outranked reply": 418, "prompt without a reply": 226},
    ),
    ("openassistant", OASST, "prompts"): (475, SYNTHETIC),
    ("hh_rlhf_harmless", HARMLESS, "comparisons"): (
        2299,
        {
            "empty response": 4,
            "dialogue in which the speakers do not take turns": 9,
        },
    ),
    ("hh_rlhf_harmless", HARMLESS, "demonstrations"): (
        2300,
        {
            "empty response": 4,
            "dialogue in which the speakers do not take turns": 8,
        },
    ),
    ("fine_grained", "fine_grained_rlhf_qa", "comparisons"): (500, {}),
    ("fine_grained", "fine_grained_rlhf_qa", "demonstrations"): (500, {}),
    ("raschka", "raschka_instructions", "demonstrations"): (1100, {}),
    ("self_instruct", "self_instruct", "demonstrations"): (427, {}),
    ("gsm8k", "gsm8k/test.jsonl.gz", "demonstrations"): (1319, {}),
    ("wikitext", "wikitext2_valid_test", "documents"): (120, {}),
}


def read_real(name: str, path: str, kind: str):
    return read_set(name, find_files(name, real_file(path)), kind=kind)


@pytest.mark.parametrize(("name", "path", "kind"), EXPECTED)
def test_counts(name, path, kind):
    found = read_real(name, path, kind)
    assert (len(found.records), found.report.skipped) == EXPECTED[name, path, kind]
    ids = Counter(record["id"] for record in found.records)
    assert max(ids.values()) == 1


def test_openassistant_rankings_by_number_of_replies():
    ranks = [r["ranks"] for r in read_real("openassistant", OASST, "comparisons")[0]]
    sizes = Counter(map(len, ranks))
    assert sizes == {2: 56, 3: 116, 4: 24, 5: 3, 6: 6, 8: 1, 9: 1}
    assert sum(map(len, ranks)) == 624
    assert sum(k * (k - 1) // 2 for k in map(len, ranks)) == 732
    assert all(sorted(r) == list(range(1, len(r) + 1)) for r in ranks)


def test_qa_feedback_pairs_that_follow_from_no_ranking():
    found = read_real("fine_grained", "fine_grained_rlhf_qa", "comparisons")
    assert found.report.noted == {
        "pairs that no one ranking explains, ranked by wins - losses": 22,
        "all responses tied": 12,
    }


def test_the_first_p3_rows():
    report, file = Report(), real_file("p3_t0_train_50k/t0_train_50k.jsonl.xz")
    rows = read_file("p3", file, kind="demonstrations", report=report)
    records = [record for record, _ in itertools.islice(rows, 4000)]
    templates = Counter(record["category"] for record in records)
    assert len(templates) == 20
    assert set(templates.values()) == {200}
    assert not any("<|endoftext|>" in record["response"] for record in records)
    assert report.skipped == {}


def test_splits_are_the_published_ones():
    found = read_real("scitldr", "scitldr", "demonstrations")
    assert Counter(placed.split for placed in found.placed) == {
        "train": 1992,
        "valid": 1453,
        "test": 1967,
    }


def test_books_become_documents():
    found = read_real("plain_text", "jane_austen", "documents")
    texts = {record["id"]: record["text"] for record in found.records}
    assert len(texts) == 7  # six novels and a note on their source
    assert texts["book0:1"].startswith("EMMA\n\nBy Jane Austen")
