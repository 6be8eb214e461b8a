"""NaN, and models that only give empty answers, are refused by name."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from instructgpt.checkpoints import Checkpoints
from instructgpt.errors import UserError
from instructgpt.identity import BEGUN
from instructgpt.inference import language_model
from instructgpt.sampling import Samples
from instructgpt.stages import (
    common,
    evaluate,
    label,
    loading,
    ppo,
    reward,
    select,
    sft,
)
from tests.stages.recipe_run import (
    Finished,
    finished,
    get_config,
    link_stages,
    load_checkpoint,
)

RUN = {
    "sft": sft.run,
    "label": label.run,
    "reward": reward.run,
    "select": select.run,
    "ppo": ppo.run,
    "evaluate": evaluate.run,
}


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def altered(stage: Path, workdir: Path, change: Callable[[Any], Any]) -> Path:
    """Saves a copy of a stage's newest checkpoint with other parameters."""
    found = load_checkpoint(stage)
    checkpoints = Checkpoints(workdir / "checkpoints")
    step = int(found["step"])
    checkpoints.save(step, {"params": change(found["params"])}, found["meta"])
    checkpoints.close()
    return workdir / "checkpoints" / str(step)


def one_nan(params: Any) -> Any:
    """A single number of the last array is NaN."""
    *rest, last = jax.tree.leaves(params)
    last = last.at[(0,) * last.ndim].set(jnp.nan)
    return jax.tree.unflatten(jax.tree.structure(params), [*rest, last])


def overflowing(params: Any) -> Any:
    """A reward model of finite weights whose scores are beyond float32."""
    return {**params, "kernel": jnp.full_like(params["kernel"], 3e38)}


def stage_config(stage: str, key: str, path: Path) -> ConfigDict:
    """The stage of the smoke recipe with another workdir to read from."""
    config = get_config().stages[stage]
    *blocks, last = key.split(".")
    block = config
    for name in blocks:
        block = block[name]
    block[last] = (str(path),) if last == "policies" else str(path)
    return config


@pytest.fixture
def workdir(run: Finished, tmp_path: Path) -> Path:
    """A new one beside finished stages."""
    link_stages(run, tmp_path / "recipe")
    return tmp_path / "recipe" / "again"


@pytest.mark.parametrize(
    ("stage", "key", "spoiled"),
    [
        ("sft", "init.path", "pretrain"),
        ("label", "label.policies", "sft"),
        ("reward", "init.path", "sft"),
        ("select", "select.reward", "reward"),
        ("select", "select.candidates", "sft"),
        ("ppo", "init.path", "rl_init"),
        ("ppo", "reward_init.path", "reward"),
        ("evaluate", "evaluate.reward", "reward"),
    ],
)
def test_a_checkpoint_with_one_nan_is_refused(
    run, tmp_path, workdir, stage, key, spoiled
):
    checkpoint = altered(run.workdir / spoiled, tmp_path / "bad", one_nan)
    with pytest.raises(UserError) as error:
        RUN[stage](stage_config(stage, key, tmp_path / "bad"), workdir)
    message = str(error.value)
    named = "config.init: " if stage in ("sft", "reward") else ""
    assert message.startswith(f"{named}{checkpoint}: params/")
    assert "NaN" in message and "\n" not in message
    assert {path.name for path in workdir.iterdir()} <= BEGUN


def talker(silent: Sequence[int] = ()) -> Callable[..., Any]:
    """In place of `text_sampler`: says nothing to prompts of these numbers."""

    def make(model: Any, prompt_format: Any, config: Any, *, newline: bool) -> Any:
        del model, newline
        tokenizer = prompt_format.tokenizer
        words = [tokenizer.encode(text) for text in ("yes", "Bram has a red boat.")]

        def sample(params: Any, prompts: Any, key: Any) -> Samples:
            del params, key
            shape = len(prompts.index), config.num_samples, config.max_response
            tokens = np.full(shape, tokenizer.eos_id, np.int32)
            valid = np.zeros(shape, bool)
            for row, k in np.ndindex(shape[:2]):
                said = [] if int(prompts.index[row]) in silent else words[k % 2]
                tokens[row, k, : len(said)] = said
                valid[row, k, : len(said) + 1] = True
            return Samples(tokens, valid, np.zeros(shape, np.float32))

        return sample

    return make


def test_a_reward_model_that_overflows_chooses_nothing(
    run, tmp_path, workdir, monkeypatch
):
    monkeypatch.setattr(language_model, "text_sampler", talker())
    checkpoint = altered(run.workdir / "reward", tmp_path / "bad", overflowing)
    with pytest.raises(UserError) as error:
        select.run(stage_config("select", "select.reward", tmp_path / "bad"), workdir)
    assert str(error.value).startswith(f"{checkpoint}: 16 of 16 scores of answers")
    assert {path.name for path in workdir.iterdir()} <= BEGUN


def test_demonstrations_whose_scores_overflow_shift_nothing(run, tmp_path):
    stage = get_config(data_dir=str(run.workdir / "data")).stages.reward
    context = common.start(stage, tmp_path)
    init = loading.InitConfig(str(run.workdir / "reward"))
    with jax.set_mesh(context.mesh):
        model, params, *_ = loading.load(init, context, scalar=True)
        demonstrations = reward._demonstrations(context)
        with pytest.raises(UserError, match=f"{tmp_path}.* scores of answers are NaN"):
            reward._demonstration_mean(
                context, demonstrations, model, overflowing(params), rows=16
            )


@pytest.mark.parametrize("silent", [range(32), range(1, 32, 3)])
def test_a_mute_policy_is_named_and_empty_answers_are_told(
    run, workdir, monkeypatch, capsys, silent
):
    monkeypatch.setattr(language_model, "text_sampler", talker(silent))
    config = get_config().stages.label
    if len(silent) < 32:
        report = label.run(config, workdir)
        assert report["prompts"] == {"train": 21, "valid": 11}
        said = capsys.readouterr().out
        for told in ("11 of 32 train prompts", "5 of 16 valid prompts"):
            assert f"label: {told} have fewer than two answers that are not" in said
        return
    for _ in range(2):  # the second start finds nothing that the first has left
        with pytest.raises(UserError) as error:
            label.run(config, workdir)
        message = str(error.value)
        assert message.startswith(f"{workdir.parent}/sft/checkpoints/")
        assert "answers all 32 train prompts with nothing" in message
        assert "config.label.policies" in message and "\n" not in message
        assert {path.name for path in workdir.iterdir()} <= BEGUN


def test_answers_that_leave_nothing_to_rank_are_refused(run, workdir):
    config = get_config().stages.label
    workdir.mkdir()
    (workdir / "answers.train.jsonl").write_text("")
    with pytest.raises(UserError, match=r"answers\.train\.jsonl holds no answers; del"):
        label.run(config, workdir)
