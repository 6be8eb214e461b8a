# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A pod without owning one
#
# The same code runs on one chip and on hundreds. What changes is the *mesh*: how many
# chips share the batch, and how many share the weights. This notebook takes eight CPU
# devices for eight chips, looks at which chip holds what, checks that a training step
# gives the same numbers on every mesh up to rounding, and counts what goes over the
# links. Then it plans the paper's models for machines that are not here: what they
# need, what bounds them, and what to change.
#
# **Hardware and time:** 2 minutes on 2 CPU cores. No accelerator is used.

# %% [markdown]
# ## Set-up
#
# On Colab the next cell fetches the code and installs what it needs. Elsewhere it only
# finds the repository. To open notebooks in the environment that
# `bash launch/quickstart.sh` makes, in a terminal:
#
#     source .venv/bin/activate
#     pip install -e '.[notebooks]' && jupyter lab notebooks

# %%
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = ""

if "google.colab" in sys.modules:
    if not Path("instructgpt").is_dir():
        if not Path("/content/code").exists():
            if not REPOSITORY:
                raise SystemExit("upload the repository's folder as /content/code")
            subprocess.run(
                ["git", "clone", "--depth=1", REPOSITORY, "/content/code"], check=True
            )
        os.chdir("/content/code")
    install = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, "--requirement", "requirements.txt"], check=True)

here = Path.cwd()
os.chdir(next(p for p in (here, *here.parents) if (p / "instructgpt").is_dir()))
sys.path.insert(0, os.getcwd())

# %% [markdown]
# `SMOKE = True` plans a model of toy size, in a minute.

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))

# %%
# Before JAX starts: eight CPU devices stand in for chips.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA warns of its own choices

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from configs import ppo_ptx as ppo_ptx_config
from configs import sft as sft_config
from instructgpt.batches import TokenBatch
from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.errors import UserError
from instructgpt.evals.report.plotting import styled
from instructgpt.models.config import ModelConfig
from instructgpt.models.transformer import Transformer
from instructgpt.notebook import picture, table
from instructgpt.plan.hlo import collective_bytes
from instructgpt.plan.plan import Request, plan_stage
from instructgpt.sharding import RULES, MeshConfig, make_mesh, put_batch
from instructgpt.state import make_train_state, params_layout, shardings_of
from instructgpt.steps.sft import make_sft_loss
from instructgpt.steps.update import make_train_step

keep_programs()
silence_libraries()
print(f"{jax.device_count()} devices")

# %% [markdown]
# ## 1. Which chip holds what
#
# A mesh has three axes. Chips along `data` hold the same weights and read different
# rows. Chips along `fsdp` hold different parts of each weight and also read different
# rows: before a layer runs, they gather its weights. Chips along `tensor` share the
# rows, and each computes a part of the heads and of the MLP. One table says which axis
# of an array is cut by which axis of the mesh. To change the layout, change this table.

# %%
table(
    [(k, ", ".join(v or ("-",))) for k, v in RULES.items()],
    ["axis of an array", "mesh"],
)

# %%
CONFIG = ModelConfig(
    vocab_size=512, context_length=64, num_layers=2, width=64, num_heads=8
)
model = Transformer(CONFIG)
MESHES = {
    "data 8": MeshConfig(data=8),
    "fsdp 8": MeshConfig(data=1, fsdp=8),
    "tensor 8": MeshConfig(data=1, tensor=8),
    "2 x 2 x 2": MeshConfig(data=2, fsdp=2, tensor=2),
}
meshes = {name: make_mesh(config) for name, config in MESHES.items()}


@styled
def owners(meshes):
    """The MLP's first kernel [width, mlp], coloured by the chip that holds a part."""
    fig = Figure(figsize=(8, 2.4))
    colors = (
        "#0072b2",
        "#e69f00",
        "#009e73",
        "#d55e00",
        "#56b4e9",
        "#cc79a7",
        "#8a8a8a",
        "#f0e442",
    )
    for ax, (name, mesh) in zip(fig.subplots(1, len(meshes)), meshes.items()):
        kernel = params_layout(model, mesh)["layers"]["mlp"]["up"]["kernel"]
        held = kernel.sharding.devices_indices_map(kernel.shape)
        numbers = {device: i for i, device in enumerate(mesh.devices.flat)}
        parts = {}
        for device, index in held.items():
            rows, columns = (
                part.indices(size)[:2]
                for part, size in zip(index[-2:], kernel.shape[-2:])
            )
            parts.setdefault((rows, columns), []).append(numbers[device])
        for (rows, columns), chips in parts.items():
            corner = (columns[0], rows[0])
            size = columns[1] - columns[0], rows[1] - rows[0]
            color = colors[chips[0]] if len(chips) < 8 else "#d9dde2"
            ax.add_patch(Rectangle(corner, *size, facecolor=color, edgecolor="white"))
            ax.text(
                corner[0] + size[0] / 2,
                corner[1] + size[1] / 2,
                " ".join(map(str, sorted(chips))),
                ha="center",
                va="center",
                fontsize=7,
            )
        ax.set_xlim(0, kernel.shape[-1])
        ax.set_ylim(kernel.shape[-2], 0)
        ax.grid(visible=False)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(name)
    return fig


picture(owners(meshes))

# %% [markdown]
# ## 2. The same step on every mesh
#
# One update of the language model on one batch, with the step that the stages use. The
# loss and the gradient's norm differ by rounding alone. The memory of a chip and what
# it receives over the links depend on the mesh; bytes are counted in the compiled
# program.

# %%
B, T = 16, 64
tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (B, T), np.int32)
batch = TokenBatch(tokens, np.ones((B, T), np.int32), np.ones((B, T), bool))
optimizer = optax.adam(1e-3)


def one_update(mesh):
    """(loss, gradient norm, MiB of state on a chip, {kind: MiB received})."""
    with jax.set_mesh(mesh):
        state = make_train_state(model, optimizer, key=jax.random.key(0), mesh=mesh)
        held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state))
        step = make_train_step(
            make_sft_loss(model), optimizer, shardings=shardings_of(state)
        )
        rows, key = put_batch(batch, mesh), jax.random.key(1)
        program = step.lower(state, rows, key).compile()
        sent = collective_bytes(program.as_text())
        _, metrics = program(state, rows, key)
    return metrics["loss"].mean(), metrics["grad_norm"].mean(), held, sent


rows, losses = [], []
for name, mesh in {"1 chip": make_mesh(MeshConfig(cpu_devices=1)), **meshes}.items():
    loss, norm, held, sent = one_update(mesh)
    kinds = ", ".join(f"{kind} {size / 2**20:.1f}" for kind, size in sent.items())
    losses.append(float(loss))
    rows.append(
        (name, f"{loss:.6f}", f"{norm:.6f}", f"{held / 2**20:.2f}", kinds or "-")
    )
np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
table(rows, ["mesh", "loss", "gradient norm", "MiB of state on a chip", "MiB received"])

# %% [markdown]
# `data` costs the memory of the whole state on each chip and one sum of the gradients.
# `fsdp` holds an eighth, and gathers the weights of a layer when it is its turn.
# `tensor` also holds an eighth, and sends activations in every layer, so that it wants
# the fastest links and rarely pays beyond one machine.
#
# ## 3. A plan
#
# Will it fit, and how fast could it be? `plan` compiles the jitted functions of a stage
# for the machine's mesh, as the stage builds them, and reads the answer off the
# compiled programs. Nothing is run, so that the machine need not be there. Here is SFT
# of the paper's smallest model on eight GPUs. XLA for CPUs stands in for that for GPUs:
# what a chip holds is exact, what it needs while the step runs is an estimate.

# %%
config = sft_config.get_config("smoke" if SMOKE else "1.3b")
MODEL = "125m" if SMOKE else "1.3b"


def plan(machine, *, data, fsdp, tensor=1):
    """(text, numbers) of the plan of one training step."""
    config.mesh.update(dict(data=data, fsdp=fsdp, tensor=tensor))
    return plan_stage(config, Request(model=MODEL, **machine), log=lambda line: None)


gpus = dict(devices=8, gpu="h100")
text, numbers = plan(gpus, data=1, fsdp=8)
print(text)

# %% [markdown]
# Change the mesh, and see what moves.

# %%
plans = {"fsdp 8": numbers, "data 8": plan(gpus, data=8, fsdp=1)[1]}
if not SMOKE:
    plans["fsdp 2 x tensor 4"] = plan(gpus, data=1, fsdp=2, tensor=4)[1]


@styled
def memory(plans):
    fig = Figure(figsize=(8, 0.5 * len(plans) + 1.4))
    ax = fig.add_subplot()
    colors = ("#0072b2", "#56b4e9", "#e69f00", "#d55e00")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", visible=True)
    names = []
    for row, (name, found) in enumerate(reversed(plans.items())):
        parts = dict(found["bytes_per_chip"]["held"])
        parts["while the step runs"] = max(found["bytes_per_chip"]["running"].values())
        start = 0.0
        for color, size in zip(colors, parts.values()):
            ax.barh(row, size / 2**30, left=start, color=color)
            start += size / 2**30
        names.append(name)
    ax.legend(
        handles=[Patch(color=c, label=p) for c, p in zip(colors, parts)],
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("GiB of a chip")
    return fig


picture(memory(plans))

# %%
table(
    [
        (
            name,
            f"{found['bytes_per_chip']['peak'] / 2**30:.2f}",
            ", ".join(
                f"{kind} {size / 2**30:.1f}"
                for phase in found["phases"].values()
                for kind, size in phase["collective_bytes"].items()
            ),
            f"{sum(p['bound_seconds'] for p in found['phases'].values()):.3f}",
            ", ".join({p["bound_by"] for p in found["phases"].values()}),
        )
        for name, found in plans.items()
    ],
    ["mesh", "GiB at most", "GiB received, by kind", "seconds at best", "bound by"],
)

# %% [markdown]
# ## 4. The paper's largest stage
#
# PPO-ptx at 175B has four models on the chips at a time and five programs: prefill,
# decoding, scores, the rollout's log-probs and values, and the update. To plan it takes
# an hour, so here are only its sizes; what it needs on TPU slices of 8 to 256 chips is
# in `instructgpt/plan/README.md`.

# %%
largest = ppo_ptx_config.get_config("175b")
table(
    [
        ("episodes per iteration", largest.train.batch_size),
        ("episodes per minibatch", largest.rollout.minibatch_size),
        ("pretraining windows per episode", largest.rollout.ptx_per_episode),
        ("tokens of a prompt", largest.data.max_prompt),
        ("tokens of a response", largest.data.max_response),
        *largest.mesh.items(),
    ],
    ["configs/ppo_ptx.py:175b", ""],
)

# %% [markdown]
# Plans for TPUs use the TPU's own compiler, which needs no TPU:
# `pip install 'jax[tpu]'`.

# %%
try:
    print(plan(dict(topology="v5e:4x4"), data=1, fsdp=16)[0])
except UserError as error:
    print(error)

# %% [markdown]
# ## 5. The line for the pod
#
# On several machines each process starts the same line. The scripts in `launch/` supply
# the machines; `--dry-run` prints what they would do, word for word.

# %%
machines = dict(NODES="2", GPUS="8", SHARED="/shared/me")
line = "--config=configs/sft.py:1.3b --workdir=/shared/me/runs/sft"
dry = subprocess.run(
    f"bash launch/slurm.sh --dry-run {line}",
    shell=True,
    env=os.environ | machines,
    capture_output=True,
    text=True,
    check=True,
)
print(dry.stdout)
