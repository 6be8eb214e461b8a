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
# # PPO-ptx, one iteration opened up
#
# The stage `ppo_ptx` does the same few things hundreds of times: it samples answers,
# scores them, and updates the policy and the value net. This notebook calls these
# functions by hand, on one batch, and looks at every number on the way, as colours over
# the text. Then it turns $\beta$, the price of leaving the reference, and switches on
# $\gamma$, the weight of pretraining.
#
# Section 3.5, Equation 2 and Appendix C.4 of the
# [paper](https://arxiv.org/abs/2203.02155) are the background. The data are those of
# the miniature world, as in `quickstart`.
#
# **Hardware and time:** 7 minutes on 2 CPU cores with the models that
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
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

from configs import recipe as recipe_config
from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.data.documents import TokenWindows
from instructgpt.data.transforms import encode_prompt
from instructgpt.evals.language import make_loss_evaluator
from instructgpt.evals.report.plotting import styled
from instructgpt.generation import make_sampler
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.inference.programs import sampling_ids
from instructgpt.models.scoring import response_log_probs
from instructgpt.notebook import colored, picture, table
from instructgpt.rewards import make_reward_scorer
from instructgpt.rl import shaped_rewards
from instructgpt.rollouts import make_rollout_fn, rollout_metrics, split_batch
from instructgpt.sampling import SamplingConfig
from instructgpt.stages import common, recipe
from instructgpt.state import PPOState, make_train_state
from instructgpt.steps.ppo import PPOConfig, make_ppo_step, with_advantages
from instructgpt.world import judge

keep_programs()
silence_libraries()
config = recipe_config.get_config("smoke" if SMOKE else "mini")
WORKDIR = Path(os.environ.get("WORKDIR", f"runs/{'smoke' if SMOKE else 'mini'}"))
WORKDIR = WORKDIR.absolute()
for stage in ("pretrain", "sft", "rl_init", "label", "reward"):
    recipe.run_stage(config, WORKDIR, stage)  # opens what is finished

# %% [markdown]
# ## 1. The pieces
#
# Four models: the *policy* that is trained, the *reference* that it must not leave, the
# *reward model*, and the *value net*, which guesses the reward that is still to come.
# Policy and reference are both RL-init at first, the model of step 3 of `quickstart`,
# and the value net starts as a copy of the reward model (App. C.4).

# %%
context = common.start(
    recipe.stage_config(config, "reward"), WORKDIR / "reward", reading=True
)
initial = LanguageModel.open(WORKDIR / "rl_init")
reward = RewardModel.open(WORKDIR / "reward")
mesh, form, limits = initial.mesh, initial.text.prompt_format, context.data_config
ends = sampling_ids(form)

sample = make_sampler(initial.model, config=SamplingConfig(limits.max_response), **ends)
score = make_reward_scorer(reward.model)
roll_out = make_rollout_fn(
    initial.model, reward.model, temperature=1.0, stop_ids=ends["stop_ids"]
)
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(5e-4, b1=0.9, b2=0.95)
)


def new_state():
    """Policy and value net with their optimisers, as PPO starts."""

    def start(net, params):
        params = jax.tree.map(jnp.copy, params)  # the state takes them over
        return make_train_state(
            net, OPTIMIZER, key=jax.random.key(0), mesh=mesh, params=params
        )

    with jax.set_mesh(mesh):
        policy = start(initial.model, initial.params)
        value = start(reward.model, reward.params)
        return PPOState(policy, value, jax.tree.map(jnp.copy, initial.params))


def new_step(ppo):
    return make_ppo_step(
        initial.model,
        reward.model,
        policy_optimizer=OPTIMIZER,
        value_optimizer=OPTIMIZER,
        config=ppo,
    )


# %% [markdown]
# `collect` and `learn` below are one iteration; the stage adds shuffling, logs and
# checkpoints. The answers of an iteration are sampled by the policy of that moment, and
# each is learnt from once.

# %%
EPISODES = 16 if SMOKE else 64


def fitting(split, most):
    """Up to `most` prompts of a split, of those that fit the model's limit."""
    found = context.data.source("prompts", split)[: 2 * most]
    return [r for r in found if initial.prompt_length(r) <= limits.max_prompt][:most]


records = fitting("train", EPISODES * 40)
text = TokenWindows(context.data.tokens("train"), 96)


def prompts_of(number):
    """Prompts [B, P] of an iteration, with their row numbers."""
    rows = [(number * EPISODES + i) % len(records) for i in range(EPISODES)]
    encoded = [
        encode_prompt(records[r], form, max_prompt=limits.max_prompt) for r in rows
    ]
    batch = jax.tree.map(lambda *x: jnp.array(np.stack(x)), *encoded)
    return batch._replace(index=jnp.array(rows))


def text_of(number):
    """Pretraining windows, one for every four episodes."""
    first = number * (EPISODES // 4)
    rows = [text[(first + i) % len(text)] for i in range(EPISODES // 4)]
    return jax.tree.map(lambda *x: jnp.array(np.stack(x)), *rows)


def collect(state, number):
    """Answers to the prompts of an iteration, with all that PPO needs: a Rollout."""
    with jax.set_mesh(mesh):
        prompts = prompts_of(number)
        samples = sample(state.policy.params, prompts, jax.random.key(number))
        scores = score(reward.params, prompts, samples)
        return roll_out(prompts, samples, scores, initial.params, state.value.params)


def learn(state, step, rollout, number, *, ptx=True):
    """The state after an update on each half of the rollout."""
    texts = split_batch(text_of(number), 2) if ptx else (None, None)
    with jax.set_mesh(mesh):
        for part, rows in zip(split_batch(rollout, 2), texts, strict=True):
            state, _ = step(state, part, rows, jax.random.key(number))
    return state


settings = PPOConfig(
    kl_coef=0.2, ptx_coef=1.0, gae_lambda=0.95, value_clip=0.2, whiten_advantages=True
)
step = new_step(settings)
state = new_state()
START = 4 if SMOKE else 30
for number in range(START):
    state = learn(state, step, collect(state, number), number)
rollout = collect(state, START)  # nothing has been learnt from it yet

# %% [markdown]
# ## 2. A rollout
#
# The policy has now had a few iterations, so that it differs from the reference. This
# is the batch of its next one: `B` episodes, prompts padded on the left to `P`
# tokens and responses on the right to `R`. `response_valid` is the mask of real tokens,
# end of text included; everything below is 0 or ignored where it is False.

# %%
table(
    [(name, str(x.dtype), str(x.shape)) for name, x in rollout._asdict().items()],
    ["field", "dtype", "shape"],
)


# %%
def pieces(ids):
    """The text of each token."""
    texts = [form.tokenizer.decode(ids[: n + 1]) for n in range(len(ids))]
    out = [b[len(a) :] for a, b in zip(["", *texts], texts)]
    return ["<end>" if i in ends["stop_ids"] else t for i, t in zip(ids, out)]


def lines(values, rows):
    """What `colored` takes: some episodes' tokens with values [B, R]."""
    for row in rows:
        mask = np.array(rollout.response_valid[row])
        ids = np.array(rollout.response[row])[mask].tolist()
        name = f"{float(rollout.score[row]):+.2f}"
        yield name, pieces(ids), np.array(values[row])[mask]


order = np.argsort(np.array(rollout.score))
few = [int(i) for i in (*order[-4:][::-1], *order[:4])]  # the best four, the worst four
prompts = [
    form.tokenizer.decode(
        np.array(rollout.prompt[i])[np.array(rollout.prompt_valid[i])].tolist()
    )
    for i in few
]
table(
    [
        (p, f"{rollout.score[i]:+.2f}", int(rollout.response_valid[i].sum()))
        for p, i in zip(prompts, few)
    ],
    ["prompt", "score", "tokens of the answer"],
)

# %% [markdown]
# ### The KL penalty of each token
#
# $\log \pi(y_t) - \log \pi_{\mathrm{ref}}(y_t)$: blue where the policy now likes a
# token better than the reference did, red where it was drawn in spite of being liked
# less. The answers are those of the prompts above, in that order, named by their
# scores. Most tokens are white: what PPO has changed is concentrated in a few choices.

# %%
kl = rollout.log_probs - rollout.ref_log_probs
colored(lines(kl, few))

# %% [markdown]
# ### Rewards
#
# $r_t = -\beta\,(\log \pi - \log \pi_{\mathrm{ref}})$ at each token, plus the score at
# the last one: their sum over an answer is the bracket of Equation 2.

# %%
rewards = shaped_rewards(
    rollout.score,
    log_probs=rollout.log_probs,
    ref_log_probs=rollout.ref_log_probs,
    mask=rollout.response_valid,
    kl_coef=settings.kl_coef,
)
total = rollout.score - settings.kl_coef * jnp.where(rollout.response_valid, kl, 0).sum(
    1
)
assert np.allclose(rewards.sum(1), total, atol=1e-4)
colored(lines(rewards, few))

# %% [markdown]
# ### Values and advantages
#
# The value net guesses, before each token, the sum of the rewards to come. What turns
# out better than it guessed has a positive advantage, by generalised advantage
# estimation. Here the advantages are whitened over the batch: blue tokens become more
# probable, red ones less.

# %%
colored(lines(rollout.values, few))

# %%
episodes = with_advantages(rollout, config=settings)
colored(lines(episodes.advantages, few))

# %% [markdown]
# ### The update, and the ratio
#
# One step on this batch, with three losses: the clipped surrogate of the advantages
# (`policy_loss`), the pretraining text's (`ptx_loss`) and the value net's
# (`value_loss`). Below the table stands the new policy's probability of each token,
# divided by the one that it was sampled with: blue tokens have become more probable.
# The surrogate stops pushing a token once its ratio has passed 1.2 with a positive
# advantage, or fallen below 0.8 with a negative one. A token that has moved the wrong
# way keeps its gradient.


# %%
@jax.jit
def log_probs_now(params):
    return response_log_probs(
        initial.model,
        params,
        (rollout.prompt, rollout.prompt_valid),
        (rollout.response, rollout.response_valid),
    ).log_probs


with jax.set_mesh(mesh):
    state, metrics = step(state, rollout, text_of(START), jax.random.key(1))
    ratio = jnp.exp(log_probs_now(state.policy.params) - rollout.log_probs)
table(
    [(name, f"{float(value.mean()):.4f}") for name, value in sorted(metrics.items())],
    ["metric", "value"],
)

# %%
colored(lines(ratio - 1, few), limit=0.2)

# %%
real = np.array(rollout.response_valid)
moved = np.array(jnp.sign(ratio - 1) == jnp.sign(episodes.advantages))
print(
    f"{moved[real].mean():.0%} of the tokens moved the way their advantage asks; the "
    "others share parameters with tokens that ask for more, or with the text"
)

# %% [markdown]
# ## 3. Turning $\beta$
#
# From the same start, several values of $\beta$. With a low one the policy follows the
# reward model wherever it leads; with a high one it stays where it was. The last column
# is what nobody in training sees: the gold judge's mean mark, from 1 to 7.

# %%
BETAS = (0.0, 0.2) if SMOKE else (0.0, 0.05, 0.2, 1.0)
ITERATIONS = 3 if SMOKE else 40


def run(ppo, *, ptx=False):
    """Trains from the start; gives the state and a row of metrics per iteration."""
    state, step, rows = new_state(), new_step(ppo), []
    for number in range(ITERATIONS):
        rollout = collect(state, number)
        found = rollout_metrics(rollout, kl_coef=ppo.kl_coef)
        rows.append({name: float(value.mean()) for name, value in found.items()})
        state = learn(state, step, rollout, number, ptx=ptx)
    return state, rows


def likert_of(params):
    """Mean mark of the gold judge, from 1 to 7, for answers to validation prompts."""
    asked = fitting("valid", 16 if SMOKE else 128)
    model = dataclasses.replace(initial, params=params)
    answers = model.generate(asked)
    marks = [
        judge(context.data.world, r["task"], a[0]).likert
        for r, a in zip(asked, answers)
    ]
    return np.mean(marks)


plain = dataclasses.replace(settings, ptx_coef=0.0)
trained = {beta: run(dataclasses.replace(plain, kl_coef=beta)) for beta in BETAS}


# %%
@styled
def curves(rows_by_name, metrics):
    """Means over the last five iterations, as prompts differ from one to the next."""
    fig = Figure(figsize=(8, 3.2))
    colors = ("#d55e00", "#e69f00", "#56b4e9", "#0072b2")
    for ax, metric in zip(fig.subplots(1, len(metrics)), metrics, strict=True):
        for color, (name, rows) in zip(colors, rows_by_name.items()):
            values = [r[metric] for r in rows]
            smooth = [np.mean(values[max(i - 4, 0) : i + 1]) for i in range(len(rows))]
            ax.plot(smooth, color=color, label=name)
        ax.set_title(metric)
        ax.set_xlabel("iteration")
    ax.legend()
    return fig


shown = {f"beta {beta}": rows for beta, (_, rows) in trained.items()}
picture(curves(shown, ["score", "kl"]))

# %%
last = ITERATIONS // 4 or 1


def late(rows, metric):
    return np.mean([r[metric] for r in rows[-last:]])


table(
    [
        (
            beta,
            f"{late(rows, 'score'):+.2f}",
            f"{late(rows, 'kl'):.1f}",
            f"{late(rows, 'score') - beta * late(rows, 'kl'):+.2f}",
            f"{late(rows, 'response_length'):.1f}",
            f"{likert_of(state.policy.params):.2f}",
        )
        for beta, (state, rows) in trained.items()
    ],
    ["beta", "score", "KL, nats", "score - beta KL", "tokens", "gold judge"],
)

# %% [markdown]
# ## 4. The alignment tax, and its repair
#
# What a policy learns from the reward model it pays for elsewhere: its loss on held-out
# pretraining text rises. PPO-ptx adds the gradient of that loss on training text, times
# $\gamma$, to each update. Same start, same $\beta$, same number of iterations:

# %%
windows = TokenWindows(context.data.tokens("valid"), 96)
loss = make_loss_evaluator(initial.model, windows, batch_size=16, mesh=mesh)
gpt = LanguageModel.open(WORKDIR / "pretrain")
mixed, rows = run(settings, ptx=True)
with jax.set_mesh(mesh):
    found = {
        "GPT": (loss(gpt.params), None),
        "RL-init, where PPO starts": (loss(initial.params), None),
        "PPO": (loss(trained[0.2][0].policy.params), trained[0.2][1]),
        "PPO-ptx": (loss(mixed.policy.params), rows),
    }
table(
    [
        (name, f"{value:.3f}", f"{late(rows, 'score'):+.2f}" if rows else "")
        for name, (value, rows) in found.items()
    ],
    ["model", "held-out pretraining loss", "score"],
)

# %% [markdown]
# The paper multiplies the pretraining gradient by $\gamma = 27.8$, takes 8 windows of
# pretraining text per episode (App. C.4), and reports the repair in Section 4.2. Here
# $\gamma = 1$, with one window for every four episodes. What comes out after 120
# iterations is in `quickstart` and in the report, `runs/mini/evaluate/report.html`.
