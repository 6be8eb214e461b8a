"""Compares the bytes that a plan says a stage holds with those of the running stage.

Eight devices, two updates of models that are wide and shallow: many bytes, few
operations. Bytes are those of live arrays between the two updates, less the batch.
"""

import dataclasses
import gc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import ppo as ppo_config
from configs import reward as reward_config
from configs import sft as sft_config
from instructgpt.checkpoints import Checkpoints
from instructgpt.loop import Job
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.plan.estimate import device_bytes
from instructgpt.plan.work import describe
from instructgpt.sharding import MeshConfig, make_mesh
from instructgpt.stages import ppo, reward, sft
from tests import tiny
from tests.hf_models import write_chat_tokenizer
from tests.stages.recipe_run import MESH
from tests.stages.test_public_recipe import write_records

STAGES = {"sft": sft, "reward": reward, "ppo": ppo}
CONFIGS = {"sft": sft_config, "reward": reward_config, "ppo": ppo_config}
MODEL = ModelConfig(
    vocab_size=400,
    padded_vocab_size=416,
    context_length=96,
    num_layers=1,
    width=672,
    num_heads=8,
)
MIN_BYTES = 20e6  # of each model's float32 parameters


class _MeasuredError(Exception):
    """The stage has shown what it holds, and need not go on."""


def buffers(arrays: Iterable[jax.Array]) -> dict[tuple[int, int], int]:
    """Bytes by device and address, so that arrays of one buffer count once."""
    return {
        (shard.device.id, shard.data.unsafe_buffer_pointer()): shard.data.nbytes
        for array in arrays
        # A key is a few bytes, and its buffer is not to be had.
        if not jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key)
        for shard in array.addressable_shards
    }


def live_arrays() -> list[jax.Array]:
    """All arrays that anything refers to and whose memory was not given away."""
    gc.collect()
    return [x for x in jax.live_arrays() if not x.is_deleted()]


def held_between_updates(
    stage: ModuleType,
    config: ConfigDict,
    workdir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> list[int]:
    """Bytes that a stage holds on each device before its second update."""
    # Kept alive, so that none of their addresses is used again.
    others = live_arrays()
    not_own = buffers(others)
    train = stage.train
    held: Counter[int] = Counter()

    def watched(job: Job, *arguments: Any, **options: Any) -> Any:
        updates = 0

        def update(state: Any, batch: Any, key: Any) -> Any:
            nonlocal updates
            updates += 1
            if updates == 1:
                return job.update(state, batch, key)
            left_out = not_own | buffers(jax.tree.leaves(batch))
            for place, size in buffers(live_arrays()).items():
                held[place[0]] += size if place not in left_out else 0
            raise _MeasuredError

        return train(dataclasses.replace(job, update=update), *arguments, **options)

    monkeypatch.setattr(stage, "train", watched)
    with pytest.raises(_MeasuredError):
        stage.run(config, workdir)
    return [held[device.id] for device in jax.devices()]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records, a tokenizer, and a policy and a reward model of random weights."""
    root = tmp_path_factory.mktemp("held_bytes")
    write_records(root / "records")
    write_chat_tokenizer(root / "records")
    for name, model, kind in (
        ("policy", Transformer(MODEL), "language"),
        ("scorer", ScalarModel(MODEL), "scalar"),
    ):
        # So wide a model would give enormous numbers with the weights as drawn.
        params = jax.tree.map(lambda x: x / 8, tiny.params_of(model))
        assert sum(x.nbytes for x in jax.tree.leaves(params)) >= MIN_BYTES
        checkpoints = Checkpoints(root / name / "checkpoints")
        meta = {"model": dataclasses.asdict(MODEL), "kind": kind}
        checkpoints.save(1, {"params": params}, meta)
        checkpoints.close()
    return root


def config_of(stage: str, root: Path, dtype: str) -> ConfigDict:
    """The smoke variant with eight short rows a batch, from the models above."""
    config = CONFIGS[stage].get_config("smoke")
    config.mesh = MESH
    config.data.update(
        dir=str(root / "sets"),
        jsonl=str(root / "records"),
        max_prompt=48,
        max_response=24,
    )
    config.model.compute_dtype = dtype
    config.init.path = str(root / "policy")
    config.train.batch_size = 8
    # While a checkpoint is written, copies wait in the memory of the host, a CPU's own.
    config.train.checkpoint_every = 0
    if stage == "sft":
        config.sft.pack_length = 0
    if stage == "reward":
        config.reward.update(comparisons="", max_responses=4)
    if stage == "ppo":
        config.reward_init.path = str(root / "scorer")
        config.rollout.update(minibatch_size=8, score_microbatches=1, ptx_length=24)
    return config


@pytest.mark.parametrize(
    ("stage", "dtype"),
    [
        ("sft", "float32"),
        ("reward", "float32"),
        # The frozen models of PPO are copies even where no cast makes one.
        ("ppo", "float32"),
        ("ppo", "bfloat16"),
    ],
)
def test_a_stage_holds_what_its_plan_counts(stage, dtype, root, tmp_path, monkeypatch):
    config = config_of(stage, root, dtype)
    mesh = make_mesh(MeshConfig(**MESH))
    with jax.set_mesh(mesh):
        work = describe(config, {"init": MODEL, "reward_init": MODEL}, mesh)
    planned = sum(map(device_bytes, work.held.values()))
    held = held_between_updates(STAGES[stage], config, tmp_path, monkeypatch)
    np.testing.assert_allclose(held, planned, rtol=0.02)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_the_update_that_runs_is_the_one_that_is_planned(
    stage, root, tmp_path, monkeypatch
):
    """Instruction by instruction, on the arguments that the plan gives."""
    config = config_of(stage, root, "float32")
    if stage != "ppo":
        # The steps that a plan, which has no data, takes for a schedule.
        config.train.update(num_steps=1000, num_epochs=0)
    mesh, made = make_mesh(MeshConfig(**MESH)), []

    def stop(job: Job, *_: Any, **__: Any) -> Any:
        made.append(job.update)
        raise _MeasuredError

    monkeypatch.setattr(STAGES[stage], "train", stop)
    if stage == "ppo":
        make = ppo.make_functions

        def keep(*arguments: Any, **options: Any) -> Any:
            made.append(make(*arguments, **options).step)
            return make(*arguments, **options)

        monkeypatch.setattr(ppo, "make_functions", keep)
    with pytest.raises(_MeasuredError):
        STAGES[stage].run(config, tmp_path)
    with jax.set_mesh(mesh):
        work = describe(config, {"init": MODEL, "reward_init": MODEL}, mesh)
        program = work.programs[work.update]
        planned, runs = (
            function.lower(*program.arguments).as_text()
            for function in (program.jitted, made[0])
        )
    assert planned == runs
