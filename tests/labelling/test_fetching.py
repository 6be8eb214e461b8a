"""What comes back becomes records; what cannot be is named, and nothing is lost."""

import json
import random
import re

import pytest

from instructgpt.data.draws import check_folder
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from instructgpt.evals.judgements import judged_rows
from instructgpt.labelling import items as asking
from instructgpt.labelling.fetching import fetch, read_work
from instructgpt.labelling.interface import Rating, Refused, Work
from instructgpt.labelling.ledger import Ledger
from instructgpt.labelling.plain import PlainDesk
from instructgpt.labelling.room import LABELERS, Room
from tests.labelling import rooms
from tests.labelling.rooms import HELD_OUT, TRAINING, entries, read_lines, send


@pytest.fixture
def room(tmp_path):
    rooms.write_answers(tmp_path)
    rooms.write_compared(tmp_path)
    return rooms.make_room(tmp_path)


@pytest.fixture
def desks(room):
    return rooms.memory_desks(room)


@pytest.fixture
def ranked(room, desks):
    """A room whose desks have done all rankings."""
    items = asking.ranking_items(room.folder.parent, room, labelers_per_prompt=2)
    send(room, desks, items)
    for desk in desks.values():
        desk.do_all()
    return room


def fetched(room, desks):
    return fetch(room, Ledger(room.ledger), desks)


def files(room):
    """All that a fetch wrote, by name."""
    paths = [*room.folder.glob("*.jsonl"), *room.records.iterdir()]
    return {path: path.read_bytes() for path in paths}


def key_of(room, labeler, split="train"):
    return next(
        x.key for x in entries(room) if (x.labeler, x.split) == (labeler, split)
    )


def test_rankings_are_those_of_the_texts_whatever_was_shown_first(ranked, desks):
    found = fetched(ranked, desks)
    assert found.new == len(entries(ranked)) and not found.refused
    orders = {entry.order for entry in entries(ranked)}
    assert len(orders) > 5
    texts = {r["id"]: r for s in ("train", "valid") for r in rooms.answers(s, 6)}
    sizes = {"train": 6, "valid": 3 * 2, "test": 3 * 2}
    for split, size in sizes.items():
        path = ranked.records / f"comparisons.{split}.jsonl"
        rows = list(read_jsonl(path, "comparisons"))
        assert len(rows) == size
        for row in rows:
            record = texts[row["id"]]
            assert row["responses"] == record["responses"]
            assert row["ranks"] == rooms.ranks_of(row["labeler"], row["responses"])
            for name in ("history", "prompt", "customer", "category"):
                assert row[name] == record[name]
            assert row["labeler"] in (HELD_OUT if split == "test" else TRAINING)
    check_folder(ranked.records)


@pytest.mark.parametrize("seed", range(5))
def test_any_order_of_handing_in_gives_the_same_files(ranked, desks, seed):
    fetched(ranked, desks)
    first = files(ranked)
    for path in first:
        if path.name not in ("ledger.jsonl", LABELERS) or path.parent != ranked.folder:
            path.unlink()
    for desk in desks.values():
        for works in desk.works.values():
            works += works[:2]  # doubled
            random.Random(seed).shuffle(works)
    assert not fetched(ranked, desks).refused
    assert files(ranked) == first


def test_a_second_fetch_changes_nothing(ranked, desks):
    fetched(ranked, desks)
    first = files(ranked)
    again = fetched(ranked, desks)
    assert again.new == 0 and files(ranked) == first
    desks["ann"].works.clear()  # what was fetched once stays
    fetched(ranked, desks)
    assert files(ranked) == first


@pytest.mark.parametrize("killed_at", range(0, 18, 3))
def test_a_fetch_killed_in_the_middle_goes_on(ranked, desks, killed_at):
    with rooms.killed_after(killed_at):
        fetched(ranked, desks)
    fetched(ranked, desks)
    assert len(read_work(ranked.work)) == len(entries(ranked))
    after = files(ranked)
    for path in (ranked.work, *ranked.records.iterdir()):
        path.unlink()
    fetched(ranked, desks)
    assert files(ranked) == after


def test_a_desk_that_fails_is_told_and_the_others_are_fetched(ranked, desks):
    desks["ann"].fails = 1
    found = fetched(ranked, desks)
    assert found.failed == {"ann": "desk of ann: the server does not answer"}
    assert {row["labeler"] for row in read_lines(ranked.work)} == {
        *TRAINING,
        *HELD_OUT,
    } - {"ann"}
    desks["ann"].fails = None
    assert not fetched(ranked, desks).failed
    assert len(read_work(ranked.work)) == len(entries(ranked))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            dict(ranks=(1, 2, 3)),
            r"ranks \[1, 2, 3\] are of 3 answers, and 4 were shown",
        ),
        (dict(ranks=(1, 3, 3, 4)), "are no ranking"),
        (dict(ranks=(0, 1, 1, 1)), "are no ranking"),
        (dict(ranks=(True, 1, 1, 1)), "are no ranking"),
        (dict(ranks=()), "are of 0 answers"),
        (dict(key="nonsense"), "no task with this key was sent"),
    ],
)
def test_work_that_is_no_ranking_is_refused_and_the_rest_kept(
    ranked, desks, change, reason
):
    key = key_of(ranked, "ann")
    works = desks["ann"].works["ranking"]
    place = next(i for i, x in enumerate(works) if x.key == key)
    works[place] = works[place]._replace(**change)
    found = fetched(ranked, desks)
    ((labeler, refused),) = found.refused
    assert labeler == "ann" and re.search(reason, refused.reason)
    (row,) = read_lines(ranked.refused)
    assert row == {
        "labeler": "ann",
        "where": f"ranking task {works[place].key}",
        "reason": refused.reason,
    }
    assert len(found.work) == len(entries(ranked)) - 1


def test_another_labelers_task_is_refused_by_name(ranked, desks):
    key = key_of(ranked, "ben")
    desks["dan"].works["ranking"].append(Work(key, ranks=(1, 2, 3, 4)))
    desks["ann"].works["ranking"].append(Refused("project 7, task 3", "was edited"))
    found = fetched(ranked, desks)
    assert dict(found.refused) == {
        "ann": Refused("project 7, task 3", "was edited"),
        "dan": Refused(f"ranking task {key}", "is a task of ben, not of dan"),
    }
    ben = next(x for x in entries(ranked) if x.key == key)
    shown = rooms.ranks_of("ben", ben.task.answers)
    assert list(found.work[key].ranks) == shown


def test_a_task_of_another_page_is_refused(ranked, desks):
    send(
        ranked,
        desks,
        asking.final_items(
            ranked.folder.parent, ranked, number=1, labelers_per_prompt=2
        ),
    )
    (key,) = desks["dan"].tasks["final"]
    desks["dan"].works["ranking"].append(Work(key, ranks=(1, 2, 3)))
    ((_, refused),) = fetched(ranked, desks).refused
    assert "is a task of the page final" in refused.reason


def test_a_held_out_labeler_cannot_be_moved_into_training(ranked, desks):
    """Not by changing the file of labelers after tasks were sent."""
    path = ranked.folder / LABELERS
    text = path.read_text()
    fetched(ranked, desks)
    assert "ann" in (ranked.records / "comparisons.train.jsonl").read_text()
    path.write_text(
        text.replace('"ann", "group": "training"', '"ann", "group": "heldout"')
    )
    found = fetched(Room(ranked.folder.parent), desks)
    reasons = {x.reason.split(";")[0] for _, x in found.refused}
    assert any(
        x.startswith("ann is a held-out labeler, whose work is no") for x in reasons
    )
    assert any("was of the group training when this was sent" in x for x in reasons)
    rows = [r for p in ranked.records.glob("comparisons.*") for r in read_lines(p)]
    assert rows and "ann" not in {row["labeler"] for row in rows}
    path.write_text("".join(line + "\n" for line in text.splitlines()[1:]))
    found = fetched(Room(ranked.folder.parent), desks)
    assert {x.reason for _, x in found.refused} == {
        f"ann is not among the labelers of {LABELERS}"
    }


def test_the_later_of_two_answers_counts(ranked, desks):
    works = desks["ann"].works["ranking"]
    later = works[0]._replace(when="2026-02-01T00:00:00+00:00", ranks=(4, 3, 2, 1))
    works.insert(0, later)
    ((_, refused),) = fetched(ranked, desks).refused
    assert refused.reason == f"handed in twice; that of {later.when} counts"
    assert read_work(ranked.work)[later.key] == later
    works[0] = later._replace(when="2026-02-02T00:00:00+00:00", ranks=(1, 2, 3, 4))
    assert fetched(ranked, desks).new == 1
    assert read_work(ranked.work)[later.key].ranks == (1, 2, 3, 4)


def test_skips_make_no_record_and_tell_why(room, desks):
    items = asking.ranking_items(room.folder.parent, room, labelers_per_prompt=2)
    send(room, desks, items)
    for desk in desks.values():
        desk.do_all(skip=["Prompt 2 of train?"])
    found = fetched(room, desks)
    (skip,) = [x for x in found.work.values() if x.skipped]
    rows = read_lines(room.records / "comparisons.train.jsonl")
    assert [row["id"] for row in rows] == [f"train-{i}" for i in (0, 1, 3, 4, 5)]
    planned = send(room, desks, items, skipped=[skip.key])
    assert [x.item for x in planned.handed_on] == ["train-2"]
    for desk in desks.values():
        desk.do_all()
    fetched(room, desks)
    rows = read_lines(room.records / "comparisons.train.jsonl")
    assert sorted(row["id"] for row in rows) == [f"train-{i}" for i in range(6)]
    (row,) = [x for x in read_lines(room.work) if x["skipped"]]
    assert row["note"] == "unclear" and row["id"] == "train-2"


def test_judgements_name_models_and_keep_answers_apart(room, desks, tmp_path):
    items = asking.final_items(tmp_path, room, labelers_per_prompt=2)
    items += asking.rating_items(tmp_path, room, labelers_per_prompt=1)
    send(room, desks, items)
    for desk in desks.values():
        desk.do_all()
    assert not fetched(room, desks).refused
    path = room.records / "judgements.jsonl"
    rows = judged_rows(path, models=("gpt", "sft", "ppo"))
    assert len(rows) == 3 * 3 * 4 + 3 * 3 * 2
    compared = {
        (r["id"], r["model"]): r["response"]
        for r in read_lines(tmp_path / "evaluate" / "answers.jsonl")
    }
    for row in rows:
        one = row.judgement
        assert row.response == compared[one.id, one.model]
        assert one.likert == 2 * rooms.rank_of(one.labeler, row.response)
        assert one.flags == {"hallucination": one.likert == 2}
        assert one.group == ("heldout" if one.labeler in HELD_OUT else "training")
        assert one.note == "fine"
        if one.sheet:
            assert one.sheet == "rating" and one.rank is None
            continue
        texts = [compared[one.id, m] for m in ("gpt", "sft", "ppo")]
        ranks = rooms.ranks_of(one.labeler, texts)
        assert one.rank == ranks[texts.index(row.response)]


def test_demonstrations_are_the_labelers(room, desks, tmp_path):
    prompts = [{"id": "p", "prompt": "Write.", "customer": "c", "source": "customer"}]
    path = rooms.write_lines(tmp_path / "prompts.jsonl", prompts)
    send(room, desks, asking.demonstration_items(path))
    for desk in desks.values():
        desk.do_all()
    fetched(room, desks)
    path = room.records / "demonstrations.train.jsonl"
    (row,), (raw,) = read_jsonl(path, "demonstrations"), read_lines(path)
    assert (row["source"], row["customer"]) == ("labeler", "c")
    assert row["response"] == f"{raw['labeler']} says"


def test_gold_items_and_repeats_are_checks_and_no_records(room, desks, tmp_path):
    gold = {"prompt": "Gold?", "responses": ["x", "y", "z"], "ranks": [2, 1, 2]}
    path = rooms.write_lines(tmp_path / "gold.jsonl", [gold])
    items = asking.ranking_items(tmp_path, room, labelers_per_prompt=2)
    send(room, desks, [*items, *asking.gold_items(path, room)], repeats=1.0)
    for desk in desks.values():
        desk.do_all()
    fetched(room, desks)
    splits = ("train", "valid", "test")
    rows = [
        r for s in splits for r in read_lines(room.records / f"comparisons.{s}.jsonl")
    ]
    assert len(rows) == 6 + 6 + 6 and "Gold?" not in {r["prompt"] for r in rows}
    work = read_lines(room.work)
    known = [row for row in work if row.get("gold")]
    assert len(known) == 5
    for row in known:
        assert row["gold"] == [[2, 1, 2][i] for i in row["order"]]
    assert sum("repeat_of" in row for row in work) == 18


def test_ratings_that_cannot_be_are_refused(room, desks, tmp_path):
    send(room, desks, asking.final_items(tmp_path, room, labelers_per_prompt=2))
    keys = list(desks["dan"].tasks["final"])
    good = Rating(7, {"hallucination": True})
    for key, ratings in zip(
        keys,
        ((good, good), (good, good, Rating(8)), (good, good, Rating())),
        strict=True,
    ):
        desks["dan"].submit("final", key, Work(key, ranks=(1, 1, 2), ratings=ratings))
    reasons = [x.reason for _, x in fetched(room, desks).refused]
    assert reasons == [
        "2 answers are rated, and 3 were shown",
        "the Likert score is 8, not one of 1 to 7",
        "an answer has neither a Likert score nor flags",
    ]


def test_no_line_of_work_names_a_model_or_shows_an_answer(room, desks, tmp_path):
    send(room, desks, asking.final_items(tmp_path, room, labelers_per_prompt=2))
    for desk in desks.values():
        desk.do_all()
    fetched(room, desks)
    text = room.work.read_text()
    assert not [word for word in ("gpt", "sft", "ppo", "the same") if word in text]


def test_work_that_was_changed_by_hand_is_named(ranked, desks):
    fetched(ranked, desks)
    text = ranked.work.read_text()
    ranked.work.write_text(text.replace('"seconds": 12.5', '"seconds": 1.5', 1))
    with pytest.raises(UserError, match=r"work\.jsonl:1: damaged, or changed by hand"):
        fetched(ranked, desks)


def test_plain_files_give_the_same_as_any_desk(ranked, desks, tmp_path):
    fetched(ranked, desks)
    wanted = read_lines(ranked.records / "comparisons.train.jsonl")
    other = rooms.make_room(tmp_path / "other")
    plain = {name: PlainDesk(other.desks, name) for name in other.groups}
    items = asking.ranking_items(tmp_path, other, labelers_per_prompt=2)
    send(other, plain, items)
    for name, desk in plain.items():
        lines = []
        for row in read_lines(desk.tasks_file("ranking")):
            ranks = rooms.ranks_of(name, row["answers"])
            lines.append({**row, "ranks": ranks, "seconds": 3})
        rooms.write_lines(desk.done_file("ranking"), lines)
    desk = plain["ann"]
    desk.done_file("ranking").write_text(
        desk.done_file("ranking").read_text() + json.dumps({"key": 3}) + "\n{"
    )
    found = fetched(other, plain)
    assert [x.where.rpartition("/")[2].partition(":")[0] for _, x in found.refused] == [
        "ann.ranking.done.jsonl"
    ] * 2
    assert read_lines(other.records / "comparisons.train.jsonl") == wanted


def test_files_of_nobodys_desk_are_refused_by_name(ranked, tmp_path):
    plain = {name: PlainDesk(ranked.desks, name) for name in ranked.groups}
    for name in ("zoe.ranking", "ann.rank", "ann.final", "ranking"):
        rooms.write_lines(ranked.desks / f"{name}.done.jsonl", [{"key": "k"}])
    found = fetched(ranked, plain)
    assert [(who, x.reason.partition(";")[0]) for who, x in found.refused] == [
        ("ann", "ann was sent no final task"),
        ("ann", "there is no page 'rank'"),
        ("ranking", "'ranking' is not among the labelers"),
        ("zoe", "'zoe' is not among the labelers"),
    ]
    assert found.refused[3][1].where == str(ranked.desks / "zoe.ranking.done.jsonl")
