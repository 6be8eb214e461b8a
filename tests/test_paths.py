"""Typed paths are relative to the current folder, paths in configs to the workdir."""

import os
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import evaluate, label, recipe, sft
from instructgpt.errors import UserError
from instructgpt.paths import for_config, from_shell, one_deeper, resolve
from instructgpt.stages import common
from instructgpt.stages.label import LabelConfig
from instructgpt.stages.loading import InitConfig
from instructgpt.stages.recipe import stage_config


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of each test, which is also home."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "here"))
    return tmp_path / "here"


ODD = ("a b", "a[b]c", "ä ö", "-dash", "~", "~tilde", "a:b", "a#b", "%41", "x,y", "a@2")


@pytest.mark.parametrize("typed", [".", "..", "../a/../b", "runs/data", *ODD])
@pytest.mark.parametrize("workdir", ["sft", "runs/mine/sft", "../x", ".", *ODD])
def test_what_is_typed_is_found_again_from_the_workdir(typed, workdir, here):
    where = from_shell(f"./{workdir}")
    held = for_config(from_shell(f"./{typed}"), where)
    assert resolve(held, where) == os.path.abspath(here / typed)
    # And moves with the folder that holds both, if there is one.
    if not os.path.isabs(held):
        moved = resolve(held, f"/elsewhere/{os.path.basename(where)}")
        assert moved.startswith("/elsewhere")


def test_home_urls_and_nothing(here):
    assert from_shell("~/data") == str(here / "data")
    assert resolve("~/data", "/runs/sft") == str(here / "data")
    assert one_deeper("~/data") == str(here / "data")
    assert from_shell("~nobody-of-this-name/x") == f"{here}/~nobody-of-this-name/x"
    for same in ("gs://bucket/data", ""):
        assert for_config(from_shell(same), "/runs/sft") == same
    assert resolve("gs://bucket/data", "/runs/sft") == "gs://bucket/data"
    assert resolve(one_deeper("../6b/reward"), "/runs/1.3b/ppo") == "/runs/6b/reward"


def test_behind_a_link_two_dots_are_what_the_shell_says(here, tmp_path):
    (tmp_path / "there" / "inside").mkdir(parents=True)
    (here / "link").symlink_to(tmp_path / "there" / "inside")
    assert from_shell("link/../data") == str(tmp_path / "there" / "data")
    # Else a link keeps its name.
    assert from_shell("link/data") == str(here / "link" / "data")


def typed(config: ConfigDict, workdir: object = "runs/mine/sft", **values: object):
    """A config as it is after these keys were typed, "__" for dots."""
    given = {key.replace("__", "."): value for key, value in values.items()}
    config.update_from_flattened_dict(given)
    common.take_typed(config, given, from_shell(str(workdir)))
    return config


def test_typed_paths_count_from_here_and_the_config_s_own_from_the_workdir(here):
    workdir = here / "runs" / "mine" / "sft"
    config = typed(
        sft.get_config("smoke"),
        init__path="base",
        data__jsonl="runs/mine/records",
        data__tokenizer="/tok",
    )
    assert config.init.path == str(here / "base")
    assert (
        config.data.to_dict().items()
        >= {
            "jsonl": "../records",  # which moves with the runs
            "tokenizer": "/tok",
            "dir": "../data",  # by default
        }.items()
    )
    data = common.data_of(config, workdir)
    assert (data.dir, data.jsonl) == (
        str(here / "runs/mine/data"),
        str(here / "runs/mine/records"),
    )
    public = common.data_of(sft.get_config("smollm2"), workdir)
    assert public.jsonl == str(here / "runs/mine/records")
    assert public.tokenizer == str(here / "runs/mine/base/tokenizer")


def test_several_paths_and_whole_blocks_count_from_here_too(here):
    config = typed(label.get_config("smoke"), label__policies=("a", "runs/mine/b"))
    assert config.label.policies == (str(here / "a"), "../b")
    block = ConfigDict({"path": "a", "step": 3})
    config = typed(sft.get_config("smoke"), init=block)
    assert config.init.to_dict() == {"path": str(here / "a"), "step": 3}
    config = typed(
        evaluate.get_config("smoke"),
        models__gpt__init__path="a",
        evaluate__curves=("b",),
    )
    assert config.models.gpt.init.path == str(here / "a")
    assert config.evaluate.curves == (str(here / "b"),)


def test_a_recipe_s_stages_are_beside_what_is_typed(here):
    config = typed(
        recipe.get_config("smoke"),
        "runs/mine",
        reward_model="runs/6b/reward",
        stages__sft__data__jsonl="runs/mine/records",
        stages__sft__init__path="base",
    )
    assert config.reward_model == "../6b/reward"
    assert config.stages.sft.data.jsonl == "../records"
    assert config.stages.sft.init.path == str(here / "base")
    path = stage_config(config, "ppo").reward_init.path
    assert resolve(path, here / "runs/mine/ppo") == str(here / "runs/6b/reward")


def test_a_path_that_must_be_given_may_not_be_empty(tmp_path):
    config = typed(sft.get_config("smoke"), data__dir="")
    with pytest.raises(
        UserError, match=r"config\.data\.dir='': give the path of a fol"
    ):
        common.data_of(config, tmp_path)
    with pytest.raises(UserError, match=r"config\.init\.path='': give the path"):
        common.build(InitConfig, {"path": ""}, where="config.init")
    given = {"policies": ("../sft", "")}
    with pytest.raises(UserError, match=r"config\.label\.policies=\('../sft', ''\)"):
        common.build(LabelConfig, given, where="config.label")
