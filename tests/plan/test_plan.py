"""`python -m instructgpt.plan`: flags in, a table and JSON out."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import ppo_ptx, pretrain, sft
from instructgpt.errors import UserError
from instructgpt.models.costs import Cost
from instructgpt.plan.estimate import Compiled, Estimate
from instructgpt.plan.fewest import fewest
from instructgpt.plan.machines import GIB, SLICES, TPUS, Machine, tpu
from instructgpt.plan.plan import Request, find_models, plan_stage
from instructgpt.plan.search import search
from instructgpt.plan.work import Work
from instructgpt.stages import inputs
from instructgpt.stages.programs import Program, started_from

REPO = Path(__file__).resolve().parents[2]
SMOKE = "--config=configs/pretrain.py:smoke"


def plan(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instructgpt.plan", *flags],
        cwd=REPO,
        env={k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_plan_for_gpus(tmp_path):
    out = plan(SMOKE, "--devices=4", "--memory=24", f"--json={tmp_path / 'plan.json'}")
    assert out.returncode == 0, out.stderr
    assert "h100:4, mesh data=4 x fsdp=1 x tensor=1" in out.stdout
    assert "it fits" in out.stdout and "24.00 GiB" in out.stdout
    numbers = json.loads((tmp_path / "plan.json").read_text())
    assert numbers["phases"]["train step"]["bound_seconds"] > 0
    assert numbers["iterations"] == 6


MISTAKES = {
    "nothing": ([SMOKE], "give either --topology"),
    "both": ([SMOKE, "--topology=v5e:2x2", "--devices=4"], "give either --topology"),
    "kind": ([SMOKE, "--topology=v9:2x2"], "known kinds: v4, v5e, v5p, v6e"),
    "gpu": ([SMOKE, "--devices=2", "--gpu=voodoo2"], "known kinds: a100, h100, h200"),
    "size": (["--config=configs/sft.py:mini", "--devices=2"], "names no size"),
    "stage": (
        ["--config=configs/recipe.py:6b", "--devices=2"],
        "config.stage='recipe' has no plan",
    ),
    "search": (
        [SMOKE, "--devices=2", "--search", "--phases=decode"],
        "--search looks at whole stages; leave --phases out",
    ),
    "fewest": (
        [SMOKE, "--topology=v5e", "--phases=decode"],
        "--topology=v5e plans the whole stage for one slice after another",
    ),
    "phase": (
        [SMOKE, "--devices=2", "--phases=decode"],
        "--phases: the stage has no decode; known: train step",
    ),
    "mesh": (
        [SMOKE, "--devices=2", "--config.mesh.tensor=3"],
        "does not use all 2 devices",
    ),
    "parts": (
        ["--config=configs/sft.py:6b", "--devices=2", "--config.train.microbatches=3"],
        "config.train.microbatches=3 does not divide config.train.batch_size=32",
    ),
    "episodes": (
        ["--config=configs/ppo.py:6b", "--devices=2", "--config.ppo.microbatches=3"],
        "config.ppo.microbatches=3 does not divide",
    ),
    "key": ([SMOKE, "--devices=2", "--config.trian.x=1"], "no key 'trian'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line(name):
    flags, expected = MISTAKES[name]
    out = plan(*flags)
    assert out.returncode == 1
    assert expected in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr


def test_the_search_names_the_fastest_that_fits():
    config = ppo_ptx.get_config("smoke")
    tried = []

    class Plan:
        """As if one microbatch needed too much, and `tensor` cost time."""

        def __init__(self, config):
            self.parts, self.tensor = config.ppo.microbatches, config.mesh.tensor
            tried.append((self.tensor, config.model.remat, self.parts))
            self.peak, self.fits = 2.0**30 / self.parts, self.parts > 1
            self.iteration_seconds = self.tensor * (1 + self.parts / 100)
            bound = type(
                "Bound", (), {"seconds": self.iteration_seconds, "by": "links"}
            )
            self.bounds = {"update": bound}

    found = search(
        config,
        lambda c, p: Plan(c),
        chips=4,
        update="update",
        parts_key="ppo.microbatches",
        log=lambda text: None,
    )
    assert found.settings["mesh.tensor"] == 1
    assert found.settings["ppo.microbatches"] == 2
    assert found.config.mesh.fsdp == 4
    assert "does not fit" in found.table and len(found.tried) == len(tried)
    assert config.ppo.microbatches == 1, "the given config stays as it is"


@pytest.mark.parametrize(
    ("platform", "dtype"), [("tpu", "bfloat16"), ("gpu", "float16")]
)
def test_tpus_take_bfloat16_in_plans_as_in_stages(platform, dtype, capsys):
    device = SimpleNamespace(platform=platform)
    mesh = SimpleNamespace(devices=np.array([[device]]))
    inputs._announce_once.cache_clear()
    config = sft.get_config("6b")
    models = find_models(config, Request(variant="6b"))
    for _ in range(2):
        planned = started_from(config, "init", models, mesh)
        own = inputs.model_config(pretrain.get_config("6b").model, mesh)
        assert planned.compute_dtype == own.compute_dtype == dtype
    # Said once, whatever the stages and models are.
    said = capsys.readouterr().out.count("TPUs have no float16")
    assert said == (platform == "tpu")


def slice_of(topology: str, *, held: float = 0.0, update: float | None = None):
    """A plan for a v5e with so many GiB held and, if it was compiled, in an update."""
    count = math.prod(map(int, topology.partition(":")[2].split("x")))
    machine = Machine(topology, TPUS["v5e"], range(count))
    program = Program(None, (), cost=Cost(), microbatches="ppo.microbatches")
    work = Work({}, {"update": program}, 1)
    compiled = {}
    if update is not None:
        compiled["update"] = Compiled(0.0, 0.0, update * GIB, {}, 1.0)
    return Estimate(machine, {}, work, {"parameters": held * GIB}, compiled, {})


def test_the_smallest_slice_that_fits():
    plans = {
        "v5e:2x2": slice_of("v5e:2x2", held=20),
        "v5e:2x4": slice_of("v5e:2x4", held=10, update=8),
        "v5e:4x8": slice_of("v5e:4x8", held=2.5, update=8),
    }

    def run(topology):
        if topology == "v5e:4x4":
            raise UserError("config.train.batch_size=8 does not divide")
        return plans[topology]

    found = fewest("v5e", run, log=lambda text: None)
    assert found.plan is plans["v5e:4x8"]
    assert found.table.splitlines() == [
        "not v5e:2x2: what is held takes 20.0 of 15.75 GiB a chip",
        "not v5e:2x4: update takes 8.0 beside 10.0 of 15.75 GiB a chip",
        "not v5e:4x4: config.train.batch_size=8 does not divide",
        "fewest chips at these settings: 32, v5e:4x8",
    ]


def test_no_slice_is_large_enough():
    with pytest.raises(UserError, match="fits on no slice: v5p:2x2x1: what is held"):
        fewest("v5p", lambda topology: slice_of(topology, held=99), log=print)


def test_the_search_says_when_nothing_fits():
    bound = SimpleNamespace(seconds=1.0, by="links")
    plan = SimpleNamespace(
        peak=1.0, fits=False, iteration_seconds=1.0, bounds={"train step": bound}
    )

    with pytest.raises(UserError, match="none of these settings fits"):
        search(
            pretrain.get_config("smoke"),
            lambda c, p: plan,
            chips=2,
            update="train step",
            parts_key="train.microbatches",
            log=lambda text: None,
        )


needs_tpu_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="no TPU compiler is installed"
)


@needs_tpu_compiler
@pytest.mark.parametrize("kind", TPUS)
def test_the_memory_of_a_tpu_is_what_its_compiler_leaves_to_programs(kind):
    device = tpu(f"{kind}:{SLICES[kind][0]}").devices[0]
    here = jax.sharding.SingleDeviceSharding(device)
    terabyte = jax.ShapeDtypeStruct((2**38,), jnp.float32, sharding=here)
    with pytest.raises(jax.errors.JaxRuntimeError, match="exceeds available") as error:
        jax.jit(lambda x: x + 1).lower(terabyte).compile()
    said = re.search(r"available HBM \(([\d.]+)G\)", str(error.value))
    assert TPUS[kind].memory == float(said[1]) * GIB


@needs_tpu_compiler
def test_a_plan_for_a_tpu_that_is_not_here():
    config = pretrain.get_config("smoke")
    request = Request(variant="smoke", topology="v5e:2x2")
    text, numbers = plan_stage(config, request, log=lambda text: None)
    assert numbers["fits"] and numbers["chips"] == 4
    assert numbers["phases"]["train step"]["collective_bytes"]["all-reduce"] > 0
    assert "v5e:2x2" in text
