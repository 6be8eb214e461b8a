"""Customers, prompts and labelers that must not be in two places."""

import json
import re

import pytest

from instructgpt.data.datasets import DataConfig, open_datasets
from instructgpt.data.draws import check_folder
from instructgpt.data.splits import Placed, join_customers
from instructgpt.errors import UserError
from instructgpt.prepare.building import Wanted, prepare
from instructgpt.world import World


def prompt(number, **more):
    return {"id": f"p{number}", "prompt": f"Ask {number}?", **more}


def ranking(number, **more):
    return {**prompt(number, **more), "responses": ["a", "b"], "ranks": [1, 2]}


def answer(number, **more):
    return {**prompt(number, **more), "response": "Yes."}


def write(folder, **files):
    """Files by KIND_SPLIT."""
    folder.mkdir(exist_ok=True)
    for name, rows in files.items():
        kind, _, split = name.rpartition("_")
        path = folder / f"{kind}.{split}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize(
    "files",
    [
        dict(prompts_train=[prompt(1, customer="a")], prompts_valid=[prompt(2)]),
        dict(prompts_train=[prompt(1)], rm_prompts_train=[prompt(2)]),
        # The same text may be asked twice.
        dict(
            prompts_train=[prompt(1, customer="a")],
            rm_prompts_train=[{**prompt(1, customer="a"), "id": "q"}],
        ),
        # Without prompts of the reward model, PPO's are those of both.
        dict(prompts_train=[prompt(1, source="labeler")]),
        # Held-out labelers rank validation prompts.
        dict(
            comparisons_train=[ranking(1, customer="a", labeler="ann")],
            comparisons_valid=[ranking(2, customer="b", labeler="ann")],
            comparisons_test=[ranking(2, customer="b", labeler="dan")],
        ),
        dict(
            prompts_valid=[prompt(3, customer="c")],
            demonstrations_valid=[answer(3, customer="c")],
        ),
    ],
)
def test_what_is_separate_or_cannot_be_known_is_taken(tmp_path, files):
    check_folder(write(tmp_path, **files))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            dict(
                prompts_train=[prompt(1, customer="a"), prompt(2, customer="b")],
                demonstrations_valid=[answer(3, customer="a"), answer(4, customer="b")],
            ),
            r"demonstrations\.valid\.jsonl: 'p3' is by customer 'a' \(and 1 more\), who"
            r" is also in .*prompts\.train\.jsonl: 'p1'; keep",
        ),
        (
            dict(
                prompts_test=[prompt(1, customer="a")],
                prompts_valid=[prompt(2, customer="a")],
            ),
            r"prompts\.test\.jsonl: 'p1' is by customer 'a', who",
        ),
        (
            dict(
                comparisons_train=[ranking(1, customer="a")],
                comparisons_test=[ranking(2, customer="a")],
            ),
            r"comparisons\.test\.jsonl: 'p2' is by customer 'a', who",
        ),
        (
            dict(
                prompts_train=[prompt(i) for i in range(5)],
                rm_prompts_train=[prompt(i) for i in range(5)],
            ),
            r"prompts\.train\.jsonl: 'p0', 'p1', 'p2' and 2 more are also in "
            r".*rm_prompts\.train\.jsonl; the prompts of PPO and of",
        ),
        (
            dict(
                prompts_train=[{"prompt": "Ask 1?"}],
                rm_prompts_train=[{"prompt": "Ask 1?"}],
            ),
            r"prompts\.train\.jsonl: 'prompts\.train:1' is also in",
        ),
        (
            dict(
                prompts_train=[prompt(1), prompt(2, source="labeler")],
                rm_prompts_train=[prompt(3, source="labeler")],
            ),
            r"prompts\.train\.jsonl: 'p2' is by labelers \(source\); PPO's prompts are",
        ),
    ],
)
def test_what_is_in_two_places_is_named(tmp_path, files, message):
    folder = write(tmp_path, **files)
    with pytest.raises(UserError, match=message):
        check_folder(folder)


def test_a_held_out_labeler_is_refused_in_training_alone(tmp_path):
    folder = write(
        tmp_path,
        comparisons_train=[ranking(1, labeler="ann"), ranking(2, labeler="ann+dan")],
        comparisons_test=[ranking(3, labeler="dan")],
    )
    check_folder(folder)
    path = folder / "labelers.jsonl"
    path.write_text(
        '{"name": "ann", "group": "training"}\n{"name": "dan", "group": "heldout"}\n'
    )
    with pytest.raises(
        UserError, match=r"comparisons\.train\.jsonl: 'p2' is by 'dan', a held-out lab"
    ):
        check_folder(folder)
    path.write_text("ann\n")
    with pytest.raises(UserError, match=r"labelers\.jsonl:1: give a labeler's name"):
        check_folder(folder)


def test_the_miniature_world_keeps_them_apart(tmp_path):
    world = World(0)
    files = {}
    for split in ("train", "valid", "test"):
        files[f"prompts_{split}"] = [p.record() for p in world.ppo_prompts(split, 300)]
        files[f"rm_prompts_{split}"] = [p.record() for p in world.rm_prompts(split, 99)]
        files[f"demonstrations_{split}"] = world.demonstrations(split, 99)
    check_folder(write(tmp_path, **files))


CROSSING = dict(
    demonstrations_train=[answer(i, customer=f"c{i}") for i in range(40)],
    demonstrations_valid=[answer(40, customer="c7")],
)


def test_opening_a_folder_checks_it_before_a_set_is_built(tmp_path):
    folder = write(tmp_path / "own", **CROSSING)
    config = DataConfig(
        dir=str(tmp_path / "data"), jsonl=str(folder), max_prompt=9, max_response=9
    )
    for _ in range(2):  # nothing was built the first time
        with pytest.raises(UserError, match=r"valid\.jsonl: 'p40' is by customer 'c7'"):
            open_datasets(config, log=print)
    assert not list((tmp_path / "data").rglob("*.array_record*"))


def test_prepare_keeps_a_customer_in_one_split(tmp_path):
    rows = [answer(i, customer=f"c{i % 30}" * (i < 120)) for i in range(150)]
    folder = write(tmp_path / "given", demonstrations_train=rows)
    wanted = [Wanted("demonstrations", "file", str(folder))]
    prepare(tmp_path / "out", wanted, shares={"valid": 0.2, "test": 0.2}, log=str)
    splits = {"": set()}
    for path in (tmp_path / "out").glob("demonstrations.*"):
        for line in path.read_text().splitlines():
            splits.setdefault(json.loads(line)["customer"], set()).add(path.name)
    assert len(splits.pop("")) == 3
    assert {len(places) for places in splits.values()} == {1}
    assert len(splits) == 30 and len(set.union(*splits.values())) == 3


def test_prepare_refuses_the_same_prompts_for_ppo_and_the_reward_model(tmp_path):
    path = write(tmp_path, prompts_train=[prompt(i) for i in range(30)])
    path = str(path / "prompts.train.jsonl")
    wanted = [Wanted(kind, "file", path) for kind in ("prompts", "rm_prompts")]
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match=re.escape(f"{out}/prompts.train") + ".* are al"
    ):
        prepare(out, wanted, log=str)
    assert not out.exists()


def test_groups_joined_by_customers_are_the_same_in_any_order():
    groups = ["a", "b", "c", "d", "e"]
    customers = ["x", "y", "x", "", "y"]
    placed = [Placed(group, None, frozenset()) for group in groups]
    joined = [x.group for x in join_customers(placed, customers)]
    assert joined == ["a", "b", "a", "d", "b"]
    back = [x.group for x in join_customers(placed[::-1], customers[::-1])]
    assert back[::-1] == joined
    chain = join_customers([*placed, placed[0]], [*customers, "y"])
    assert [x.group for x in chain] == ["a", "a", "a", "d", "a", "a"]


def test_customers_of_published_sets_are_left_in_their_splits(tmp_path):
    rows = {
        name: [{**row, "id": f"openassistant/{row['id']}"} for row in given]
        for name, given in CROSSING.items()
    }
    folder = write(tmp_path, **rows)
    with pytest.raises(UserError, match="customer 'c7'"):
        check_folder(folder)
    (folder / "sources.json").write_text(
        json.dumps({"sets": [{"set": "openassistant", "from": "set"}]})
    )
    check_folder(folder)
