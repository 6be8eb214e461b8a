"""Every field of every block of every stage can be given on the command line."""

import dataclasses
import functools
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import recipe as recipe_config
from instructgpt.errors import UserError
from instructgpt.paths import resolve
from instructgpt.ranges import AtLeast, Named, OneOf, limited_fields
from instructgpt.stages import find, recipe
from instructgpt.stages.blocks import build, overrides
from instructgpt.stages.opening import take_typed
from tests import tiny

# ml_collections loads a config file by what Python will give up.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

REPO = Path(__file__).resolve().parents[2]
FILES = (*recipe_config.get_config("smoke").stages, "best_of", "folds", "flan")
FLAGS = [(file, variant) for file in FILES for variant in ("smoke", "6b")]

# Values that go together with the others of their block: of a model, and of rankings.
CHOSEN = {
    "misplaced": 1,
    "vocab_size": 640,
    "padded_vocab_size": 60_000,
    "num_kv_heads": 1,
    "rotary_dim": 2,
    "rotary_table": (1.5, 2.5),
    "rotary_scaling": "linear",
    "num_heads": 8,
    "head_dim": 6,
    "width": 64,
}
# And what else must be set for a field to be taken.
BESIDE = {
    "rotary_table": {"rotary_scaling": "table", "rotary_dim": 4},
    "vocab_size": {"padded_vocab_size": 0},
    "num_heads": {"num_kv_heads": 0},
    "head_dim": {"rotary_dim": 0},
}


def parse(config: str, *given: str) -> ConfigDict:
    """A config as the programs read it."""
    values, line = flags.FlagValues(), ["main", f"--config={config}", *given]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=line)
    values(line)
    return values.config


def text_of(value: Any) -> str:
    return str(value) if not isinstance(value, bool) else str(value).lower()


def another(cls: type, name: str, old: Any) -> Any:
    """A value that a field may hold, other than its own."""
    hint = typing.get_type_hints(cls)[name]
    limit = limited_fields(cls).get(name)
    if name in CHOSEN:
        return CHOSEN[name]
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return {int: (3, 4, 5), float: (0.25, 0.5), str: ("../a", "../b")}[inner]
    if isinstance(limit, OneOf):
        return next(word for word in limit.known if word != old)
    if isinstance(limit, Named) or hint is str:
        return "../elsewhere"
    if hint is bool:
        return not old
    if isinstance(limit, AtLeast) or hint is int:
        return 8 if old == 7 else 7
    return 0.75 if old == 0.5 else 0.5


def fields_of(config: ConfigDict) -> Iterator[tuple[str, type, str]]:
    """(block, its class, field) of all blocks of a stage."""
    for block, cls in find(config.stage).classes_in(config).items():
        for field in dataclasses.fields(cls):
            if not dataclasses.is_dataclass(field.type) and field.name != "init":
                yield block, cls, field.name


def block_of(config: ConfigDict, block: str) -> ConfigDict:
    return functools.reduce(lambda part, name: part[name], block.split("."), config)


def built_with(config: ConfigDict, block: str, cls: type, name: str, value: Any) -> Any:
    """The block's dataclass, where this field alone is not what it was."""
    values = block_of(config, block).to_dict()
    if block == "model" and "init" in config:
        of_checkpoint = dataclasses.asdict(tiny.config())
        changed = overrides(config.model).to_dict()
        values = {**of_checkpoint, **changed}
    beside = BESIDE.get(name, {}) if block == "model" else {}
    values |= beside | {name: value}
    return build(cls, values, where=f"config.{block}")


@pytest.mark.parametrize(("file", "variant"), FLAGS)
def test_every_field_is_set_by_its_flag_and_reaches_its_dataclass(file, variant):
    path = f"{REPO}/configs/{file}.py:{variant}"
    before = parse(path)
    wanted = {
        (block, name): another(cls, name, block_of(before, block)[name])
        for block, cls, name in fields_of(before)
    }
    assert len(wanted) > 30 or before.stage in ("label", "select")
    given = [f"--config.{b}.{n}={text_of(v)}" for (b, n), v in wanted.items()]
    after = parse(path, *given)
    classes = find(after.stage).classes_in(after)
    for (block, name), value in wanted.items():
        found = block_of(after, block)[name]
        assert found == value and type(found) is type(value), f"{block}.{name}"
        built = built_with(before, block, classes[block], name, found)
        assert getattr(built, name) == value, f"{block}.{name}"


def test_a_recipe_s_stages_take_the_same_flags():
    path = f"{REPO}/configs/recipe.py:smoke"
    after = parse(
        path,
        "--config.stages.sft.init.step=3",
        "--config.stages.ppo.model.rotary_scaling=linear",
        "--config.stages.ppo.rollout.truncation_score=-1",
        "--config.stages.reward.optimizer.b2=0.9",
        "--config.seed=4",
    )
    assert after.stages.sft.init.step == 3
    assert after.stages.ppo.model.rotary_scaling == "linear"
    assert after.stages.ppo.rollout.truncation_score == -1.0
    assert after.stages.reward.optimizer.b2 == 0.9
    assert after.seed == 4


def test_a_recipe_s_own_blocks_reach_every_stage(tmp_path):
    path = f"{REPO}/configs/recipe.py:smoke"
    given = {
        "data.jsonl": "mine",
        "data.max_prompt": 37,
        "data.documents": (5, 4, 3),
        "model.compute_dtype": "bfloat16",
        "mesh.tensor": 2,
    }
    config = parse(path, *(f"--config.{k}={text_of(v)}" for k, v in given.items()))
    take_typed(config, given, tmp_path / "run")
    mine = str(Path("mine").absolute())
    before = parse(path)
    for name in config.order:
        was, now = recipe.stage_config(before, name), recipe.stage_config(config, name)
        assert resolve(now.data.jsonl, tmp_path / "run" / name) == mine
        wanted = was.to_dict()
        wanted["data"] |= dict(jsonl=now.data.jsonl, max_prompt=37, documents=(5, 4, 3))
        wanted["mesh"] |= dict(tensor=2)
        if "model" in wanted:
            wanted["model"] |= dict(compute_dtype="bfloat16")
        assert now.to_dict() == wanted
    assert recipe.shared_values(before) == {}


def test_a_mistake_in_a_recipe_s_own_block_names_that_block(tmp_path):
    config = parse(f"{REPO}/configs/recipe.py:smoke", "--config.data.template=none")
    config.stages.label.data.max_prompt = -1
    with pytest.raises(UserError, match=r"config\.stages\.label\.data\.max_prompt"):
        recipe.run(config, tmp_path)
    config.data.max_prompt = -2
    with pytest.raises(UserError, match=r"^config\.data\.max_prompt=-2"):
        recipe.run(config, tmp_path)


def test_what_is_not_set_of_a_model_is_the_checkpoint_s():
    config = parse(f"{REPO}/configs/sft.py:smoke", "--config.model.width=64")
    assert overrides(config.model).to_dict() == {"residual_dropout": 0.2, "width": 64}
    assert config.to_dict()["model"]["num_layers"] is None


def switches() -> list[str]:
    """What the table of choices says how to set: "sft.loss_on=\\"all\\""."""
    text = (REPO / "configs" / "README.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")][2:]
    spans = [span for line in table for span in re.findall(r"`([^`]+)`", line)]
    return [span for span in spans if re.match(r"[a-z_]+\.[a-z_*]", span)]


@pytest.mark.parametrize("switch", switches())
def test_every_switch_of_the_readme_exists_and_can_be_set(switch):
    if switch.endswith((".py", ".md")):
        return
    key, _, value = switch.partition("=")
    block, _, name = key.partition(".")
    holders = [f for f in FILES if block in parse(f"{REPO}/configs/{f}.py:mini")]
    assert holders, switch
    for file in holders:
        config = parse(f"{REPO}/configs/{file}.py:mini")
        cls = find(config.stage).classes()[block]
        names = [f.name for f in dataclasses.fields(cls)] if name == "*" else [name]
        for field in names:
            given = value.strip('"') or another(cls, field, config[block][field])
            flag = f"--config.{block}.{field}={text_of(given)}"
            found = parse(f"{REPO}/configs/{file}.py:mini", flag)[block][field]
            assert found == given, switch


def test_the_table_of_switches_is_read():
    assert {"ppo.gae_lambda", 'sft.loss_on="all"'} <= set(switches())
