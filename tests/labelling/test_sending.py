"""Who is sent what: evenly, blinded, once, whatever happens in between."""

from collections import Counter

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling import items as asking
from instructgpt.labelling.ledger import Ledger
from instructgpt.labelling.sending import deliver, plan
from instructgpt.labelling.spreading import spread
from tests.labelling import rooms
from tests.labelling.rooms import HELD_OUT, TRAINING, entries, lying, send


@pytest.fixture
def room(tmp_path):
    rooms.write_answers(tmp_path, train=7, valid=4)
    rooms.write_compared(tmp_path)
    return rooms.make_room(tmp_path)


@pytest.fixture
def desks(room):
    return rooms.memory_desks(room)


def ranking(room, **options):
    options = {"labelers_per_prompt": 2, **options}
    return asking.ranking_items(room.folder.parent, room, **options)


def test_training_prompts_go_to_one_and_validation_prompts_to_several(room, desks):
    send(room, desks, ranking(room))
    asked = Counter((one.split, one.item, one.group) for one in entries(room))
    train = {("train", f"train-{i}", "training"): 1 for i in range(7)}
    valid = {
        ("valid", f"valid-{i}", group): 2
        for i in range(4)
        for group in ("training", "heldout")
    }
    assert asked == train | valid
    pairs = [(one.labeler, one.item) for one in entries(room)]
    assert len(set(pairs)) == len(pairs)
    for one in entries(room):
        assert (one.labeler in HELD_OUT) == (one.group == "heldout")
        assert one.split == "valid" or one.labeler in TRAINING
    for split in ("train", "valid"):
        busy = Counter(x.labeler for x in entries(room) if x.split == split)
        own = [busy[name] for name in TRAINING]
        assert max(own) - min(own) <= 1


def test_the_desk_sees_shuffled_answers_and_no_model(room, desks):
    send(
        room, desks, asking.final_items(room.folder.parent, room, labelers_per_prompt=2)
    )
    tasks = [t for d in desks.values() for t in d.tasks["final"].values()]
    assert len(tasks) == 3 * 4
    orders = set()
    for one in entries(room):
        task = desks[one.labeler].tasks["final"][one.key]
        assert sorted(task.answers) == sorted(
            ["the same", "the same", f"another {one.item[-1]}"]
        )
        assert one.models == ("gpt", "sft", "ppo")
        orders.add(one.order)
        for word in ("gpt", "sft", "ppo", "test-", one.labeler):
            assert word not in str(task)
    assert len(orders) > 1


def test_sending_again_sends_only_what_is_new(room, desks):
    send(room, desks, ranking(room, number=2))
    first = lying(desks)
    again = send(room, desks, ranking(room, number=2))
    assert not again.entries and lying(desks) == first
    send(room, desks, ranking(room))
    assert set(first) < set(lying(desks))
    whole = {(x.item, x.labeler, x.order, x.key) for x in entries(room)}
    assert not any(desk.put_twice for desk in desks.values())
    other = rooms.make_room(room.folder.parent / "other")
    other_desks = rooms.memory_desks(other)
    send(other, other_desks, ranking(room))
    assert {(x.item, x.labeler, x.order, x.key) for x in entries(other)} == whole


def test_another_seed_asks_others(room, desks, tmp_path):
    other = rooms.make_room(tmp_path / "other")
    send(room, desks, ranking(room), seed=0)
    send(other, rooms.memory_desks(other), ranking(room), seed=1)
    one, two = ({(x.item, x.labeler) for x in entries(r)} for r in (room, other))
    assert one != two


def test_who_is_asked_is_what_the_label_stage_draws(room, desks):
    items = ranking(room)
    send(room, desks, items, seed=5)
    for split, group, each in (
        ("train", "training", 1),
        ("valid", "training", 2),
        ("valid", "heldout", 2),
    ):
        ids = [item.name for item in items if item.split == split]
        names = spread(
            ids, room.of_group(group), each=each, seed=5, split=split, group=group
        )
        for item, wanted in zip(ids, names, strict=True):
            found = [
                x.labeler for x in entries(room) if (x.item, x.group) == (item, group)
            ]
            assert found == wanted


@pytest.mark.parametrize("killed_at", [0, 1, 40, 700, 3000, 9000])
def test_a_send_killed_while_it_writes_the_ledger(room, desks, killed_at, tmp_path):
    whole = rooms.make_room(tmp_path / "whole")
    send(whole, rooms.memory_desks(whole), ranking(room), repeats=0.5)
    ledger = Ledger(room.ledger)
    ledger.add(plan(ranking(room), room, ledger, repeats=0.5).entries)
    content = room.ledger.read_bytes()
    assert len(content) > killed_at
    room.ledger.write_bytes(content[:killed_at])
    send(room, desks, ranking(room), repeats=0.5)
    assert {x.key for x in entries(room)} == {x.key for x in entries(whole)}
    assert {x.key: x for x in entries(room)} == {x.key: x for x in entries(whole)}
    assert sorted(lying(desks)) == sorted(x.key for x in entries(room))


@pytest.mark.parametrize("killed_at", [0, 1, 5, 11, 20])
def test_a_send_killed_while_it_fills_desks(room, desks, killed_at, monkeypatch):
    monkeypatch.setattr("instructgpt.labelling.sending.AT_ONCE", 2)
    ledger = Ledger(room.ledger)
    ledger.add(plan(ranking(room), room, ledger).entries)
    with rooms.killed_after(killed_at):
        deliver(ledger, desks)
    assert len(lying(desks)) == killed_at
    send(room, desks, ranking(room))
    assert sorted(lying(desks)) == sorted(x.key for x in entries(room))


def test_a_desk_that_fails_does_not_keep_the_others_waiting(room, desks):
    desks["ann"].fails = 1
    ledger = Ledger(room.ledger)
    ledger.add(plan(ranking(room), room, ledger).entries)
    sent = deliver(ledger, desks)
    assert sum(sent.counts.values()) == len(ledger.placed) > 0
    assert sent.failed == {"ann": "desk of ann: the server does not answer"}
    waiting = [x for x in entries(room) if x.key not in Ledger(room.ledger).placed]
    assert {one.labeler for one in waiting} == {"ann"}
    desks["ann"].fails = None
    send(room, desks, ranking(room))
    assert sorted(lying(desks)) == sorted(x.key for x in entries(room))


def test_a_skipped_task_goes_on_twice_at_most(room, desks, tmp_path):
    room.add({"fay": "training", "gil": "training"})
    desks |= {name: rooms.MemoryDesk(name) for name in ("fay", "gil")}
    items = ranking(room, number=1)[:1]
    send(room, desks, items)
    skipped, asked = [], []
    for turn in range(3):
        (entry,) = [x for x in entries(room) if x.key not in skipped]
        skipped.append(entry.key)
        asked.append(entry.labeler)
        planned = send(room, desks, items, skipped=skipped)
        assert len(planned.handed_on) == (turn < 2)
        assert [x.key for x in planned.given_up] == [entry.key] * (turn == 2)
    assert len(set(asked)) == 3 and set(asked) <= {*TRAINING, "fay", "gil"}
    assert len(entries(room)) == 3


def test_a_skipped_task_stays_in_its_group_and_is_told_when_nobody_is_left(room, desks):
    items = [x for x in ranking(room) if x.split == "valid"][:1]
    send(room, desks, items)
    mine = next(x for x in entries(room) if x.group == "heldout")
    planned = send(room, desks, items, skipped=[mine.key])
    assert planned.given_up == [mine] and not planned.entries


def test_gold_items_go_to_everybody_and_repeats_to_the_same(room, desks, tmp_path):
    gold = {"prompt": "Gold?", "responses": ["x", "y", "z"], "ranks": [2, 1, 2]}
    path = rooms.write_lines(tmp_path / "gold.jsonl", [gold])
    items = [*ranking(room), *asking.gold_items(path, room)]
    send(room, desks, items, repeats=0.5)
    assert not send(room, desks, items, repeats=0.5).entries
    known = [x for x in entries(room) if x.gold]
    assert sorted(x.labeler for x in known) == sorted(TRAINING + HELD_OUT)
    assert {x.gold for x in known} == {(2, 1, 2)}
    by_key = {x.key: x for x in entries(room)}
    repeats = [x for x in entries(room) if x.repeat_of]
    assert 3 <= len(repeats) <= 20
    for one in repeats:
        first = by_key[one.repeat_of]
        assert (one.labeler, one.record) == (first.labeler, first.record)
        assert not first.repeat_of and not first.gold
    for desk in desks.values():  # a second look comes after all first ones
        shown = list(desk.tasks["ranking"])
        order = [(bool(by_key[key].repeat_of), key) for key in shown]
        assert order == sorted(order)


def test_ratings_are_of_one_answer_each(room, desks):
    send(room, desks, asking.rating_items(room.folder.parent, room))
    assert len(entries(room)) == 3 * 3 * 2
    assert all(len(x.order) == 1 and len(x.models) == 1 for x in entries(room))


def test_demonstrations_are_of_training_labelers(room, desks, tmp_path):
    path = rooms.write_lines(tmp_path / "prompts.jsonl", [{"prompt": "Write."}] * 2)
    items = asking.demonstration_items(path)
    send(room, desks, items)
    assert {x.labeler for x in entries(room)} <= set(TRAINING)
    assert [x.task.answers for x in entries(room)] == [(), ()]
    path = rooms.write_lines(tmp_path / "prompts.valid.jsonl", [{"prompt": "Write."}])
    assert asking.demonstration_items(path)[0].split == "valid"


def test_what_cannot_be_sent_is_named(room, desks):
    workdir = room.folder.parent
    with pytest.raises(UserError, match=r"wants 3 labelers of the group 'heldout', wh"):
        send(room, desks, ranking(room, labelers_per_prompt=3))
    with pytest.raises(UserError, match="--repeats=2: give a share from 0 to 1"):
        send(room, desks, ranking(room), repeats=2)
    rows = rooms.answers("train", 2)
    rooms.write_lines(workdir / "label" / "answers.train.jsonl", [rows[0], rows[0]])
    with pytest.raises(UserError, match="'train-0': two records have this id"):
        send(room, desks, ranking(room))
    rooms.write_lines(
        workdir / "label" / "answers.train.jsonl", [{**rows[0], "responses": ["a"]}]
    )
    with pytest.raises(UserError, match=r"'train-0': has 1 answers"):
        send(room, desks, ranking(room))
    rooms.write_lines(workdir / "label" / "answers.train.jsonl", [{"id": 1}])
    with pytest.raises(UserError, match=r"answers\.train\.jsonl:1: field 'prompt' is"):
        ranking(room)
    assert not room.ledger.exists() and not lying(desks)


def test_new_answers_to_the_same_prompt_need_another_round(room, desks):
    send(room, desks, ranking(room))
    rows = rooms.answers("train", 7)
    rows[3]["responses"][0] = "a new one"
    rooms.write_lines(room.folder.parent / "label" / "answers.train.jsonl", rows)
    with pytest.raises(UserError, match=r"'train-3': its .* round 1; give --round=2"):
        send(room, desks, ranking(room))
    first = len(entries(room))
    send(room, desks, ranking(room), round_number=2)
    assert len(entries(room)) == 2 * first
    assert len(set(lying(desks))) == 2 * first


def test_a_labeler_without_a_desk_is_named(room, desks):
    del desks["ann"]
    with pytest.raises(UserError, match="'ann' has tasks and no desk"):
        send(room, desks, ranking(room))
