"""Every variant loads, holds the paper's numbers, and says nothing that is not read."""

import ast
import dataclasses
import functools
import importlib
import math
import typing
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

from configs import common, recipe
from instructgpt.errors import UserError
from instructgpt.identity import flat, is_path
from instructgpt.models.config import ModelConfig
from instructgpt.optim import OptimizerConfig
from instructgpt.ranges import AtLeast, Named, OneOf, Within, limited_fields
from instructgpt.sharding import AXES
from instructgpt.stages import STAGES as TABLE
from instructgpt.stages import find
from instructgpt.stages.blocks import TrainConfig, build, overrides

REPO = Path(__file__).resolve().parents[2]
RECIPE = tuple(recipe.get_config("smoke").order)
BESIDE = ("best_of", "folds", "flan")  # what is run beside the recipe, or added to it
STAGES = (*RECIPE, *BESIDE)
BLOCKS = {
    name: cls for entry in TABLE.values() for name, cls in entry.classes().items()
}
SIZES = ("1.3b", "6b", "175b")


def load(stage: str, variant: str) -> ConfigDict:
    return importlib.import_module(f"configs.{stage}").get_config(variant)


def files() -> set[str]:
    found = {p.stem for p in (REPO / "configs").glob("[a-z]*.py")}
    return found - {"common", "sweep"}  # of sweeps see tests/stages/test_sweep.py


def test_a_file_for_every_stage_of_the_recipe():
    assert files() == {*STAGES, "recipe"}


@pytest.mark.parametrize("variant", common.VARIANTS)
@pytest.mark.parametrize("stage", STAGES)
def test_blocks_hold_every_field_of_their_classes(stage, variant):
    """So that each can be set by a flag, and stands in config.json."""
    config = load(stage, variant)
    assert isinstance(config, ConfigDict)
    assert config.name == stage
    classes = find(config.stage).classes_in(config)
    blocks = {key for key, value in config.items() if isinstance(value, ConfigDict)}
    named = set(find(config.stage).named_classes)
    assert blocks == {name.partition(".")[0] for name in classes} | named
    for name, cls in classes.items():
        block = functools.reduce(lambda part, key: part[key], name.split("."), config)
        fields = {f.name for f in dataclasses.fields(cls)}
        assert set(block) == fields, f"{stage}:{variant} config.{name}"
        if name == "model" and "init" in config:  # which they change a part of
            build(cls, {**REQUIRED, **overrides(block).to_dict()}, where="config.model")
        else:
            build(cls, block, where=f"config.{name}")


REQUIRED = dict(vocab_size=8, context_length=8, num_layers=1, width=8, num_heads=1)


def integers() -> list[tuple[str, str]]:
    """(block, field) of all whole numbers but a mesh's: -1, or 1 and more."""
    axes = {("mesh", axis) for axis in AXES}
    found = [
        (block, name)
        for block, cls in BLOCKS.items()
        for name, hint in typing.get_type_hints(cls).items()
        if hint is int or int in typing.get_args(hint)
    ]
    return [field for field in found if field not in axes]


@pytest.mark.parametrize(("block", "name"), integers())
def test_a_whole_number_out_of_its_range_is_named(block, name):
    """Before it can divide anything, or end a loop before its first step."""
    cls = BLOCKS[block]
    limit = limited_fields(cls)[name]
    given = _required(cls)
    in_tuple = typing.get_type_hints(cls)[name] is not int
    for bad in (limit.low - 1, -7, 1.5):
        value = (4, bad, 4) if in_tuple else bad
        with pytest.raises(UserError) as error:
            build(cls, {**given, name: value}, where=f"config.{block}")
        expected = f"config.{block}.{name}={value}: give {limit.describe()}"
        assert str(error.value) == expected


def others():
    """(block, field) of every float with a range, and of every choice of words."""
    return [
        (block, name)
        for block, cls in BLOCKS.items()
        for name, limit in limited_fields(cls).items()
        if not isinstance(limit, AtLeast)
    ]


@pytest.mark.parametrize(("block", "name"), others())
def test_a_number_or_word_that_a_field_may_not_hold_is_named(block, name):
    cls = BLOCKS[block]
    limit = limited_fields(cls)[name]
    given = _required(cls)
    bad = {OneOf: ["lose", "", 3], Named: ["", 3, ("../sft", "")]}.get(
        type(limit), [-0.1, math.nan, "1e-3"]
    )
    if isinstance(limit, Within) and limit.high == 1:
        bad.append(1.5)
    for value in bad:
        with pytest.raises(UserError) as error:
            build(cls, {**given, name: value}, where=f"config.{block}")
        expected = f"config.{block}.{name}={value!r}: give {limit.describe()}"
        assert str(error.value) == expected


def test_ranges_reach_their_ends():
    ends = dict(learning_rate=0, warmup_from=1.0, b1=0.0, clip_norm=0)
    build(OptimizerConfig, ends, where="config.optimizer")
    with pytest.raises(UserError, match=r"b1=1: give a number from 0 to less than 1"):
        build(OptimizerConfig, {**ends, "b1": 1}, where="config.optimizer")
    least = {"batch_size": 1, "keep": 0, "num_steps": 0, "eval_every": -1}
    train = build(TrainConfig, least, where="config.train")
    assert dataclasses.asdict(train).items() >= least.items()


def _required(cls: type) -> dict[str, Any]:
    """Values that the fields without a default may hold."""
    return {
        field.name: "a" if isinstance(limited_fields(cls).get(field.name), Named) else 4
        for field in dataclasses.fields(cls)
        if field.default is field.default_factory is dataclasses.MISSING
    }


@pytest.mark.parametrize("stage", STAGES)
def test_every_path_that_a_config_gives_is_known_as_one(stage):
    """Else what is typed in its place would count from another folder."""
    for variant in common.VARIANTS:
        for key, value in flat(load(stage, variant).to_dict()).items():
            given = value if isinstance(value, list) else [value]
            has_path = any(isinstance(v, str) and "/" in v for v in given)
            assert is_path(key) or not has_path, key
            assert not has_path or all(v.startswith("../") for v in given), key


@pytest.mark.parametrize("variant", common.VARIANTS)
def test_recipe_holds_every_stage(variant):
    config = load("recipe", variant)
    assert config.stage == "recipe"
    assert set(config.order) <= set(config.stages) == set(RECIPE)
    # Those models are imported, or small ones of one's own, with people's rankings.
    if variant not in (*common.PUBLIC, "small"):
        # Policies of these sizes have the 6B reward model.
        given = {"label", "reward"} if variant in ("1.3b", "175b") else set()
        if variant in SIZES:  # only the miniature world has prefixes to choose among
            given |= {"prefix"}
        assert set(config.order) == set(config.stages) - given
    for name, stage in config.stages.items():
        assert stage.to_dict() == load(name, variant).to_dict()


@pytest.mark.parametrize("stage", [*STAGES, "recipe"])
def test_a_variant_that_does_not_exist(stage):
    with pytest.raises(ValueError, match=r"'nano' does not exist.*smoke.*175b"):
        load(stage, "nano")


@pytest.mark.parametrize("stage", [*STAGES, "recipe"])
def test_docstring_gives_the_command_and_the_cost(stage):
    module = importlib.import_module(f"configs.{stage}")
    command = " ".join(module.__doc__.replace("\\\n", "").split())
    assert f"python -m instructgpt.main --config=configs/{stage}.py:mini" in command
    assert "--workdir=" in command
    assert "Cost: `mini` " in command
    assert "16 minutes" in command or stage in (*BESIDE, "prefix")


@pytest.mark.parametrize("stage", STAGES)
def test_every_top_level_key_is_read_by_its_stage(stage):
    config = load(stage, "smoke")
    folder = REPO / "instructgpt" / "stages"
    read = {"stage"}  # by main and the recipe
    shared = (folder / "opening.py", folder / "judging.py")
    for path in (*folder.glob(f"{config.stage}*.py"), *shared):
        read |= _names_read(path)
    read |= _names_read(folder / "blocks.py")
    assert set(config) <= read


def _names_read(path: Path) -> set[str]:
    """Keys of `config` that a file reads: config.x, config["x"], and listed names."""
    read = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            read.add(node.attr)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            read.add(node.value)
    return read


def _is_config(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)
    return name == "config"


# The paper's numbers, from its tables and appendices, written out once more.


@pytest.mark.parametrize(
    ("size", "layers", "width", "heads"),
    [("1.3b", 24, 2048, 16), ("6b", 32, 4096, 32), ("175b", 96, 12288, 96)],
)
def test_model_sizes(size, layers, width, heads):
    model = load("pretrain", size).model
    assert (model.num_layers, model.width, model.num_heads) == (layers, width, heads)
    assert model.head_dim == 128
    assert model.mlp_width == 4 * width
    assert model.context_length == 2048
    assert model.compute_dtype == "float16"
    num_params = ModelConfig(**model).num_params
    assert num_params == pytest.approx(
        {"1.3b": 1.3e9, "6b": 6.7e9, "175b": 175e9}[size], rel=0.03
    )


@pytest.mark.parametrize(
    ("size", "rate", "tokens"),
    [("1.3b", 2e-4, 1e6), ("6b", 1.2e-4, 2e6), ("175b", 0.6e-4, 3.2e6)],
)
def test_pretraining(size, rate, tokens):
    config = load("pretrain", size)
    assert config.optimizer.learning_rate == rate
    per_step = config.train.batch_size * 2048
    assert per_step == pytest.approx(tokens, rel=0.1)
    assert config.train.num_steps * per_step == pytest.approx(300e9, rel=1e-3)
    assert config.optimizer.warmup_steps * per_step == pytest.approx(375e6, rel=0.01)
    assert config.optimizer.decay_steps * per_step == pytest.approx(260e9, rel=1e-3)
    assert config.optimizer.weight_decay == 0.1


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("size", SIZES)
def test_prompts_and_responses_of_1k_tokens(stage, size):
    data = load(stage, size).data
    assert (data.max_prompt, data.max_response) == (1024, 1024)


@pytest.mark.parametrize("size", SIZES)
def test_adam_of_every_stage(size):
    for stage in STAGES:
        for name, block in load(stage, size).items():
            if name.endswith("optimizer"):
                optimizer = OptimizerConfig(**block)
                assert (optimizer.b1, optimizer.b2) == (0.9, 0.95)
                with_text = stage == "ppo_ptx" and name == "policy_optimizer"
                assert optimizer.clip_norm == (27.8 if with_text else 1.0)
                if optimizer.schedule == "cosine":
                    assert optimizer.final_fraction == 0.1


@pytest.mark.parametrize(
    ("size", "rate", "batch"),
    [("1.3b", 9.65e-6, 32), ("6b", 9.65e-6, 32), ("175b", 5.03e-6, 8)],
)
def test_sft(size, rate, batch):
    config = load("sft", size)
    assert config.train.num_epochs == 16
    assert config.train.batch_size == batch
    assert config.train.checkpoint_every == -1  # every epoch
    assert config.train.keep == 0  # all of them
    assert config.model.residual_dropout == 0.2
    assert config.optimizer.learning_rate == rate
    assert config.optimizer.schedule == "cosine"
    assert OptimizerConfig(**config.optimizer).warmup_steps == 0


@pytest.mark.parametrize(
    ("size", "rate", "batch"),
    [("1.3b", 5e-6, 32), ("6b", 1.04e-5, 32), ("175b", 2.45e-6, 8)],
)
def test_rl_init(size, rate, batch):
    config = load("rl_init", size)
    assert config.train.num_epochs == 2
    assert config.train.batch_size == batch
    assert config.sft.pretrain_fraction == 0.1
    assert config.sft.pretrain_share_of == "loss"
    assert config.optimizer.learning_rate == rate
    assert config.optimizer.schedule == "cosine"
    assert config.init.path == "../pretrain"


@pytest.mark.parametrize("size", SIZES)
def test_labels_and_reward(size):
    label, reward = load("label", size), load("reward", size)
    assert (label.label.min_responses, label.label.max_responses) == (4, 9)
    assert label.label.train_prompts == 33207
    assert label.label.valid_prompts == 17887
    assert reward.reward.max_responses == 9
    assert reward.train.num_epochs == 1
    assert reward.train.batch_size == 64
    assert reward.optimizer.learning_rate == 9e-6
    assert reward.optimizer.schedule == "cosine"
    assert reward.init.path == "../sft"
    assert reward.model.residual_dropout == 0.0


@pytest.mark.parametrize("stage", ["ppo", "ppo_ptx"])
@pytest.mark.parametrize("size", SIZES)
def test_ppo(stage, size):
    config = load(stage, size)
    assert config.ppo.kl_coef == 0.02
    assert (config.ppo.clip, config.ppo.value_clip) == (0.2, 0.2)
    assert (config.ppo.discount, config.ppo.gae_lambda) == (1.0, 0.95)
    assert config.ppo.ema_decay == 0.992
    assert config.train.batch_size == 512
    assert config.train.batch_size * config.train.num_steps == 256_000
    assert config.rollout.minibatch_size == 64
    assert config.rollout.epochs == 1
    assert (config.rollout.temperature, config.rollout.top_p) == (1.0, 1.0)
    assert config.init.path == "../rl_init"
    assert config.reward_init.path == "../reward"
    for optimizer in (config.policy_optimizer, config.value_optimizer):
        assert optimizer.schedule == "constant"
        assert optimizer.warmup_steps == 10 * 512 // 64  # 10 iterations
        assert optimizer.warmup_from == 0.1
    value_rate = {"1.3b": 9e-6, "6b": 9e-6, "175b": 5e-6}[size]
    assert config.value_optimizer.learning_rate == value_rate


@pytest.mark.parametrize("size", SIZES)
def test_ptx_is_all_that_tells_the_two_apart(size):
    ppo, ptx = load("ppo", size), load("ppo_ptx", size)
    assert (ppo.ppo.ptx_coef, ppo.rollout.ptx_per_episode) == (0, 0)
    assert (ptx.ppo.ptx_coef, ptx.rollout.ptx_per_episode) == (27.8, 8)
    rates = {
        "1.3b": (3.74e-6, 1.18e-5),
        "6b": (2.55e-6, 1.18e-5),
        "175b": (2.55e-6, 2.55e-6),
    }[size]
    assert ppo.policy_optimizer.learning_rate == rates[0]
    assert ptx.policy_optimizer.learning_rate == rates[1]
    for config in (ppo, ptx):
        config.ppo.ptx_coef = config.rollout.ptx_per_episode = 0.0
        config.policy_optimizer.learning_rate = 0.0
        config.policy_optimizer.clip_norm = 0.0  # the limit grows with gamma
        config.name = ""
    assert ppo.to_dict() == ptx.to_dict()


def test_evaluation():
    config = load("evaluate", "175b")
    assert config.evaluate.num_prompts == 3196
    temperatures = {n: m.get("temperature", 1.0) for n, m in config.models.items()}
    assert temperatures == {
        "gpt": 0.7,
        "gpt_prompted": 0.7,
        "sft": 1.0,
        "ppo": 1.0,
        "ppo_ptx": 1.0,
    }
    assert config.models.ppo_ptx.init.part == "ema"
