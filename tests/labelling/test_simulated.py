"""Simulated labelers give at desks what they give when they are called directly."""

import dataclasses
import itertools
import random
import threading
from types import SimpleNamespace

import pytest

from instructgpt.errors import UserError
from instructgpt.evals.agreement.pairs import agreement_interval
from instructgpt.evals.judgements import judged_rows
from instructgpt.labelling import items as asking
from instructgpt.labelling.fetching import fetch
from instructgpt.labelling.ledger import Ledger
from instructgpt.labelling.plain import PlainDesk
from instructgpt.labelling.room import Room
from instructgpt.labelling.simulated import Simulated, ranks_of, simulate
from instructgpt.stages import label
from instructgpt.world import Task, judge, rank_alone
from tests.labelling import rooms, world_room


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return world_room.make(tmp_path_factory.mktemp("world"))


@pytest.fixture
def room(made, tmp_path):
    return world_room.world_labelers(tmp_path, made[1])


def run(made, room, desks, items, **options):
    rooms.send(room, desks, items, seed=world_room.SEED, **options)
    ledger = Ledger(room.ledger)
    done = simulate(ledger, desks, Simulated(made[0]))
    found = fetch(room, ledger, desks)
    assert not found.refused and not found.failed
    assert sum(done.values()) == len(ledger.entries) == len(found.work)
    return found


def test_fetched_rankings_are_the_label_stages_own(made, room, tmp_path):
    """All but the kinds of records, and the agreement that the stage reports."""
    workdir, world = made
    desks = {name: PlainDesk(room.desks, name) for name in room.groups}
    run(made, room, desks, asking.ranking_items(workdir, room))
    config = SimpleNamespace(seed=world_room.SEED, name="label")
    context = SimpleNamespace(config=config, workdir=tmp_path / "stage")
    answers = {
        split: rooms.read_lines(workdir / "label" / f"answers.{split}.jsonl")
        for split in ("train", "valid")
    }
    settings = label.LabelConfig(policies=("sft",), max_responses=9)
    report = label._rank(context, settings, world.labelers(), answers)
    for ours, theirs in (("train", "train"), ("valid", "valid"), ("test", "heldout")):
        rows = rooms.read_lines(room.records / f"comparisons.{ours}.jsonl")
        wanted = context.workdir / f"comparisons.{theirs}.jsonl"
        assert rows == rooms.read_lines(wanted)
        if ours != "train":
            ranks = {}
            for row in rows:
                ranks.setdefault(row["id"], []).append(row["ranks"])
            found = agreement_interval(list(ranks.values()))
            assert list(found) == report[f"agreement_{theirs}"]


def test_ranks_depend_on_no_order_and_on_nobody_else(made):
    workdir, world = made
    labelers = world.labelers()
    rows = rooms.read_lines(workdir / "label" / "answers.train.jsonl")
    several, alone, all_ranks = [], [], set()
    for row in rows:
        ranks = ranks_of(labelers, row, seed=1)
        several.append(ranks)
        alone.append([ranks_of([one], row, seed=1)[0] for one in labelers])
        order = random.Random(0).sample(range(5), 5)
        shown = {**row, "responses": [row["responses"][i] for i in order]}
        for one, its in zip(ranks_of(labelers, shown, seed=1), ranks, strict=True):
            assert one == [its[i] for i in order]
        assert all(its[0] == its[4] for its in ranks)  # the same text twice
        all_ranks |= {tuple(its) for its in ranks}
    assert several == alone and len(all_ranks) > 20
    assert several != [ranks_of(labelers, row, seed=2) for row in rows]
    assert several != [ranks_of(labelers, row, seed=1, again=True) for row in rows]
    assert several != [ranks_of(labelers, row, seed=1, final=True) for row in rows]


@pytest.mark.parametrize(
    "responses", list(itertools.permutations(["Yes.", " Yes. ", "No."]))
)
def test_answers_that_differ_in_blanks_tie_in_any_order(made, responses):
    _, world = made
    prompt = world.rm_prompts("train", 1)[0]
    (ranks,) = rank_alone(world.labelers()[:1], prompt, responses, seed="x")
    by_text = dict(zip(responses, ranks, strict=True))
    assert by_text["Yes."] == by_text[" Yes. "]
    task = Task.from_json(prompt.record()["task"])
    (again,) = rank_alone(world.labelers()[:1], task, ["No.", "Yes."], seed="x")
    assert again == [by_text["No."], by_text["Yes."]]


def test_final_judgements_are_the_gold_judges_and_name_models(made, room):
    workdir, world = made
    desks = {name: rooms.MemoryDesk(name) for name in room.groups}
    run(made, room, desks, asking.final_items(workdir, room, labelers_per_prompt=2))
    path = room.records / "judgements.jsonl"
    rows = judged_rows(path, models=("sft", "ppo", "copy"))
    assert len(rows) == 11 * 3 * 4
    prompts = [*world.ppo_prompts("test", 8), *world.gpt_prompts("test", 3)]
    tasks = {p.record()["id"]: p.record()["task"] for p in prompts}
    ranks = {}
    labelers = {one.name: one for one in world.labelers()}
    for one in Ledger(room.ledger).entries.values():
        record = {**one.record, "task": tasks[one.item]}
        (given,) = ranks_of(
            [labelers[one.labeler]], record, seed=world_room.SEED, final=True
        )
        for model, rank in zip(one.models, given, strict=True):
            ranks[one.item, one.labeler, model] = rank
    for row in rows:
        one = row.judgement
        found = judge(world, tasks[one.id], row.response)
        assert one.likert == found.likert
        assert one.flags.items() <= found.flags.items()
        assert one.rank == ranks[one.id, one.labeler, one.model]
    for id_, labeler, model in list(ranks):
        if model == "copy":
            assert ranks[id_, labeler, "copy"] == ranks[id_, labeler, "sft"]


def test_a_second_look_has_noise_of_its_own(made, room):
    workdir, _ = made
    desks = {name: rooms.MemoryDesk(name) for name in room.groups}
    found = run(made, room, desks, asking.ranking_items(workdir, room), repeats=1.0)
    entries = Ledger(room.ledger).entries
    same = [
        entry.in_order(found.work[entry.key].ranks)
        == entries[entry.repeat_of].in_order(found.work[entry.repeat_of].ranks)
        for entry in entries.values()
        if entry.repeat_of
    ]
    assert len(same) == 56 and sum(same) < 28


def test_two_labelers_of_one_taste_have_noise_of_their_own(made):
    workdir, world = made
    one = world.labelers()[0]
    other = dataclasses.replace(one, name="another")
    rows = rooms.read_lines(workdir / "label" / "answers.train.jsonl")
    ranks = [ranks_of([one, other], row, seed=0) for row in rows]
    assert sum(a == b for a, b in ranks) < 10


def test_demonstrations_and_ratings(made, room, tmp_path):
    workdir, world = made
    prompts = [p.record() for p in world.prompts("train", 5)]
    path = rooms.write_lines(tmp_path / "prompts.jsonl", prompts)
    items = asking.demonstration_items(path)
    items += asking.rating_items(workdir, room, number=2)
    desks = {name: rooms.MemoryDesk(name) for name in room.groups}
    found = run(made, room, desks, items)
    assert sum(bool(one.response) for one in found.work.values()) == 5
    assert sum(len(one.ratings) for one in found.work.values()) == 2 * 3 * 2


def test_eight_work_at_once_and_go_on_where_they_stopped(made, room):
    workdir, _ = made
    busy, most, lock = 0, 0, threading.Lock()
    full = threading.Barrier(8, timeout=20)

    class Desk(rooms.MemoryDesk):
        def submit(self, page, key, work):
            nonlocal busy, most
            with lock:
                busy += 1
                most = max(most, busy)
            if not self.works:
                full.wait()
            super().submit(page, key, work)
            with lock:
                busy -= 1

    desks = {name: Desk(name) for name in list(room.groups)[:8]}
    some = Room(room.folder.parent / "eight")
    some.add(dict.fromkeys(desks, "training"))
    items = asking.ranking_items(workdir, some)[:20]
    rooms.send(some, desks, items, seed=world_room.SEED)
    ledger, simulated = Ledger(some.ledger), Simulated(made[0])
    first = simulate(ledger, desks, simulated, number=1)
    assert first == dict.fromkeys(desks, 1) and most == 8
    rest = simulate(ledger, desks, simulated)
    assert sum(rest.values()) == len(ledger.entries) - 8
    works = [one for d in desks.values() for one in d.works["ranking"]]
    assert sorted(x.key for x in works) == sorted(ledger.entries)


def test_only_the_worlds_own_rooms_are_simulated(made, tmp_path):
    with pytest.raises(UserError, match="only the miniature world has simulated"):
        Simulated(tmp_path)
    room = rooms.make_room(tmp_path)
    with pytest.raises(UserError, match=r"labeler 'ann' of .* is none of the world's"):
        Simulated(made[0]).check(room)
