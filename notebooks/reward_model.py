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
# # The reward model, opened up
#
# A reward model gives one number to an answer. This notebook computes its loss for one
# ranking by hand, trains it on a single batch, asks what a trained one has learnt and
# how far its probabilities can be trusted, and then shows what happens when a policy
# leans on it too hard: over-optimisation, which is why PPO has a KL penalty.
#
# Sections 3.4 and 3.5 and Appendix C.2 of the
# [paper](https://arxiv.org/abs/2203.02155) are the background. The data are those of
# the miniature world, as in `quickstart`.
#
# **Hardware and time:** 2 minutes on 2 CPU cores with the models that
# `quickstart` has left; without them they are trained first, which takes about as long
# as steps 1 to 5 of `quickstart`.

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
# `SMOKE = True` takes models too small to learn: each cell does the same, in a few
# minutes, and the numbers mean nothing.

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from configs import recipe as recipe_config
from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.data.transforms import encode_comparison
from instructgpt.evals.report.plotting import INK, MUTED, styled
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.losses import pairwise_ranking
from instructgpt.models.transformer import ScalarModel
from instructgpt.notebook import picture, table
from instructgpt.stages import common, recipe
from instructgpt.stages.label import open_comparisons
from instructgpt.state import make_train_state, scalar_params_from
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.update import make_train_step
from instructgpt.world import judge

keep_programs()
silence_libraries()
config = recipe_config.get_config("smoke" if SMOKE else "mini")
WORKDIR = Path(os.environ.get("WORKDIR", f"runs/{'smoke' if SMOKE else 'mini'}"))
WORKDIR = WORKDIR.absolute()
for stage in ("pretrain", "sft", "rl_init", "label", "reward"):
    recipe.run_stage(config, WORKDIR, stage)  # opens what is finished

context = common.start(
    recipe.stage_config(config, "reward"), WORKDIR / "reward", reading=True
)
reward = RewardModel.open(WORKDIR / "reward")
sft = LanguageModel.open(WORKDIR / "sft")
LIMITS = context.data_config
rankings = open_comparisons(WORKDIR / "label", "train")
print(f"{len(rankings)} rankings to train on")


def fitting(source, most):
    """Up to `most` records, of those whose prompt fits the model's limit."""
    found = [r for r in source[: 2 * most] if sft.prompt_length(r) <= LIMITS.max_prompt]
    return found[:most]


# %% [markdown]
# ## 1. One ranking through the loss, by hand
#
# A labeler has ranked K answers to one prompt; equal ranks are a tie. The reward model
# scores each answer, $r_k$.

# %%
ranking = max(rankings[:50], key=lambda r: len(set(r["ranks"])))
answers, ranks = ranking["responses"], np.array(ranking["ranks"])
scores = reward.score([ranking["prompt"]] * len(answers), answers)
order = np.argsort(ranks, kind="stable")
print(ranking["prompt"])
table(
    [(ranks[k], f"{scores[k]:+.2f}", answers[k]) for k in order],
    ["rank", "r", "answer"],
)

# %% [markdown]
# Every pair of answers with different ranks has a winner $w$ and a loser $l$. The model
# says that the labeler prefers the winner with probability $\sigma(r_w - r_l)$, and the
# loss of a pair is the negative logarithm of it (Eq. 1). The pairs of one ranking are
# *one* element of the batch, and their mean is its loss: all K answers go through the
# model once, though each takes part in up to K - 1 pairs. The paper found that training
# on shuffled single pairs overfits within one epoch.


# %%
def loss_of(scores):
    """The loss of the ranking, by the repository's function."""
    found = pairwise_ranking(
        scores[None],
        ranks=jnp.array(ranks)[None],
        present=jnp.ones((1, len(ranks)), bool),  # no slot is empty
    )
    return found.loss.mean()


pairs = [(w, v) for w in order for v in order if ranks[w] < ranks[v]]
losses = [np.log1p(np.exp(scores[v] - scores[w])) for w, v in pairs]
by_hand = np.mean(losses)
in_code = loss_of(jnp.array(scores))
print(f"{len(pairs)} pairs, by hand {by_hand:.4f}, in the code {in_code:.4f}")
table(
    [
        (f"{ranks[w]} over {ranks[v]}", f"{scores[w] - scores[v]:+.2f}", f"{loss:.3f}")
        for (w, v), loss in zip(pairs, losses, strict=True)
    ],
    ["pair, by rank", "r_w - r_l", "loss"],
)

# %% [markdown]
# The gradient shows what the loss asks for: higher scores (a negative gradient) for the
# answers that should win and do not yet, lower ones for those that should lose.

# %%
gradient = jax.grad(loss_of)(jnp.array(scores))
table(
    [(ranks[k], f"{scores[k]:+.2f}", f"{gradient[k]:+.4f}") for k in order],
    ["rank", "r", "d loss / d r"],
)

# %% [markdown]
# ## 2. Training on one batch
#
# A reward model starts as the SFT model without its unembedding, with a new head that
# gives a single number (§3.5). Its first scores are noise, and half of the pairs are
# right by chance; a model that gives all answers the same score has a loss of
# $\ln 2 = 0.693$. Below is the whole training step of the repository, called by hand.
# Twenty updates on the same 16 rankings learn those by heart, and nothing about others:
# the held-out columns are why a reward model needs thousands.


# %%
def batch_of(records):
    """B records -> ComparisonBatch [B, K, R]."""
    limits = dict(
        max_prompt=LIMITS.max_prompt,
        max_response=LIMITS.max_response,
        max_responses=9,
    )
    rows = [encode_comparison(r, sft.text.prompt_format, **limits) for r in records]
    return jax.tree.map(lambda *x: jnp.array(np.stack(x)), *rows)


model = ScalarModel(sft.model.config)
optimizer = optax.adam(1e-3 if SMOKE else 3e-4, b2=0.95)
trunk = jax.tree.map(jnp.copy, sft.params)
params = scalar_params_from(trunk, model, jax.random.key(0), sft.mesh)
state = make_train_state(
    model, optimizer, key=jax.random.key(0), mesh=sft.mesh, params=params
)
loss_fn = make_reward_loss(model)
step = make_train_step(loss_fn, optimizer)
measure = jax.jit(lambda params, batch: loss_fn(params, batch, jax.random.key(0)))

batch = batch_of(rankings[:16])
held_out = batch_of(rankings[-16 if SMOKE else -64 :])
rows = []
with jax.set_mesh(sft.mesh):
    for number in range(21):
        if number % 5 == 0:
            found = measure(state.params, batch), measure(state.params, held_out)
            rows.append(
                [number]
                + [f"{loss.mean():.3f}" for loss, _ in found]
                + [f"{metrics['accuracy'].mean():.0%}" for _, metrics in found]
            )
        state, _ = step(state, batch, jax.random.key(0))
table(
    rows,
    ["updates", "loss", "loss, held-out", "pairs right", "pairs right, held-out"],
)

# %%
hasty = RewardModel(model, state.params, reward.text, reward.mesh)  # for later

# %% [markdown]
# ## 3. What has the trained model learnt?
#
# It never saw a rule, only which answers people liked better. Spoil good answers in
# known ways and look at what it thinks of them. A score of 0 is the mean of the
# labelers' demonstrations: the bias is set so after training.

# %%
shown = fitting(context.data.source("demonstrations", "valid"), 96)
prompts = [d["prompt"] for d in shown]
texts = [d["response"] for d in shown]
shuffle = np.random.default_rng(0)
spoilt = {
    "as the labeler wrote it": texts,
    "said twice": [f"{t} {t}" for t in texts],
    "cut after half": [t[: max(len(t) // 2, 1)] for t in texts],
    "words shuffled": [" ".join(shuffle.permutation(t.split())) for t in texts],
    "the answer to another prompt": texts[1:] + texts[:1],
    "the question again": prompts,
}
means, errors = [], []
for spoilt_texts in spoilt.values():
    short = [
        (p, a)
        for p, a in zip(prompts, spoilt_texts)
        if len(sft.text.prompt_format.response_ids(a)) <= LIMITS.max_response
    ]
    found = reward.score(*zip(*short))
    means.append(found.mean())
    errors.append(1.96 * found.std() / np.sqrt(len(found)))


@styled
def bars(names, values, errors, label):
    fig = Figure(figsize=(6.5, 0.4 * len(names) + 0.9))
    ax = fig.add_subplot()
    ax.grid(axis="y", visible=False)
    ax.barh(names[::-1], values[::-1], xerr=errors[::-1], color="#56b4e9", ecolor=INK)
    ax.axvline(0, color=INK, linewidth=1)
    ax.set_xlabel(label)
    return fig


picture(bars(list(spoilt), means, errors, "mean score, with its 95 % interval"))

# %% [markdown]
# ## 4. Calibration
#
# $\sigma(r_w - r_l)$ is a probability, so it can be checked as one: of the pairs to
# which the model gives 70 %, do labelers prefer that answer in 70 %? These are rankings
# by labelers that it was not trained on.

# %%
judged = open_comparisons(WORKDIR / "label", "heldout")[:]
flat = [(r["prompt"], a) for r in judged for a in r["responses"]]
scored = iter(reward.score(*zip(*flat)).tolist())
margins, outcomes = [], []
for record in judged:
    found = [next(scored) for _ in record["responses"]]
    for i, a in enumerate(record["ranks"]):
        for j, b in enumerate(record["ranks"][:i]):
            if a != b:
                margins.append(found[i] - found[j])
                outcomes.append(a < b)
margins, outcomes = np.array(margins), np.array(outcomes)
# Each pair counts once, from the side of the answer that the model prefers.
confidence = 1 / (1 + np.exp(-abs(margins)))
right = np.where(margins > 0, outcomes, ~outcomes)


@styled
def calibration(confidence, right):
    fig = Figure(figsize=(5, 3.6))
    ax = fig.add_subplot()
    ax.plot([0.5, 1], [0.5, 1], color=MUTED, linestyle=(0, (4, 3)), linewidth=1)
    parts = np.array_split(np.argsort(confidence), 8)
    x = [confidence[p].mean() for p in parts if len(p)]
    y = np.array([right[p].mean() for p in parts if len(p)])
    error = [1.96 * np.sqrt(v * (1 - v) / len(p)) for v, p in zip(y, parts)]
    ax.errorbar(x, y, yerr=error, fmt="o", color="#0072b2")
    ax.set_xlabel("what the model says")
    ax.set_ylabel("how often it is right")
    return fig


print(
    f"{len(right)} pairs: right in {right.mean():.1%}, and expects to be in "
    f"{confidence.mean():.1%}"
)
picture(calibration(confidence, right))

# %% [markdown]
# Points below the line are overconfidence. PPO does not read these probabilities, but
# it does climb the scores, and where they are overconfident it climbs a mistake.
#
# ## 5. Best of N, and over-optimisation
#
# The simplest policy that uses a reward model: sample N answers and keep the one with
# the highest score. It costs no training, its KL from the SFT model is at most
# $\ln N - (N-1)/N$ nats, and it shows within a minute how much optimisation a reward
# model bears. These lines are all of it.

# %%
N = 8 if SMOKE else 128
asked = fitting(context.data.source("prompts", "valid"), 16 if SMOKE else 64)
sampled = sft.generate(asked, num_samples=N)
flat = [(r, a) for r, some in zip(asked, sampled) for a in some]
scored = reward.score(*zip(*flat)).reshape(len(asked), N)

# %% [markdown]
# Two more judges of the same answers: the *gold judge*, which knows the world, and the
# hasty reward model of section 2, which has seen 16 rankings.

# %%
gold = [judge(context.data.world, r["task"], a).likert for r, a in flat]
gold = np.array(gold, float).reshape(len(asked), N)
hastily = hasty.score(*zip(*flat)).reshape(len(asked), N)


def best_of(n, by, measured):
    """Mean `measured` of the answer that is best by `by` among each n of N."""
    by, measured = (x.reshape(len(asked), N // n, n) for x in (by, measured))
    return np.take_along_axis(measured, by.argmax(-1)[..., None], -1).mean()


sizes = [2**i for i in range(N.bit_length())]
nats = [np.log(n) - (n - 1) / n for n in sizes]
curves = {
    "reward model": [best_of(n, scored, gold) for n in sizes],
    "hasty reward model": [best_of(n, hastily, gold) for n in sizes],
    "gold judge itself": [best_of(n, gold, gold) for n in sizes],
}
own = {
    "reward model": [best_of(n, scored, scored) for n in sizes],
    "hasty reward model": [best_of(n, hastily, hastily) for n in sizes],
}
spread = {"reward model": scored.std(), "hasty reward model": hastily.std()}
table(
    [
        (n, f"{kl:.2f}", *(f"{c[i]:.2f}" for c in (*curves.values(), *own.values())))
        for i, (n, kl) in enumerate(zip(sizes, nats))
    ],
    [
        "N",
        "KL at most, nats",
        *(f"Likert, by {k}" for k in curves),
        *(f"own score, {k}" for k in own),
    ],
)


# %%
@styled
def optimisation():
    fig = Figure(figsize=(8, 3.4))
    left, right = fig.subplots(1, 2)
    colors = dict(zip(curves, ("#0072b2", "#d55e00", "#8a8a8a")))
    for name, values in curves.items():
        left.plot(nats, values, color=colors[name], marker="o", label=name)
    for name, values in own.items():
        values = (np.array(values) - values[0]) / spread[name]
        right.plot(nats, values, color=colors[name], marker="o")
    left.set_title("What the gold judge says")
    right.set_title("What the model says of its own choice")
    left.set_ylabel("Likert, 1 to 7")
    right.set_ylabel("score gained, in its standard deviations")
    for ax in (left, right):
        ax.set_xlabel("KL from the SFT model at most, nats")
    left.legend(loc="lower left", bbox_to_anchor=(0, 0.52))
    return fig


picture(optimisation())

# %% [markdown]
# On the right both models are sure that they choose better and better answers. The
# left says what the choices are worth. The trained model's gain is real, but it ends
# where its own score still climbs: from N = 16 on the answers become worse, in the run
# of `mini` that this was written with (5.27 at N = 16, 5.14 at 128). What the hasty
# model chooses is soon worse than a single sample. The grey line chooses by the gold
# judge: the best that is possible. This is over-optimisation. A policy
# trained by PPO can go much further than the 4 nats of best of 128, and has gradients
# to find the weak spots. That is what the KL penalty is for: the `ppo_ptx` notebook
# turns it.
