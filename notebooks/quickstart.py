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
# # InstructGPT in miniature
#
# The whole recipe of *Training language models to follow instructions with human
# feedback* ([Ouyang et al. 2022](https://arxiv.org/abs/2203.02155)): a language model
# is pretrained and fine-tuned on demonstrations, a reward model learns from rankings,
# and PPO trains the language model against it. At the end stands the paper's Figure 1,
# made by models that you have just trained.
#
# The data are a miniature world with its own people, towns and trades. It is small, so
# models of about a million parameters learn it in minutes, and the truth about it is
# known, so a judge that no model was trained on can say which answer is better.
#
# **Hardware and time:** 10 minutes on 2 quiet CPU cores and 36 on slow ones, as
# `bash launch/quickstart.sh` took (launch/README.md); the cells run PPO and PPO-ptx one
# after the other, and take a little longer. A free Colab runtime has two cores as well;
# an accelerator is not needed. A run that is interrupted goes on where it was when the
# cells are run again.

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
# `SMOKE = True` runs everything with models too small to learn much, in about four
# minutes the first time: good for a first look at what happens.

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))

# %%
import json

import jax

from configs import recipe as recipe_config
from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.evals.report import figures
from instructgpt.evals.report.tables import format_results_table
from instructgpt.evals.report.writing import load_curves, load_results
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.metrics import read_metrics
from instructgpt.notebook import picture, table
from instructgpt.stages import common, recipe
from instructgpt.stages.label import open_comparisons

keep_programs()
silence_libraries()
config = recipe_config.get_config("smoke" if SMOKE else "mini")
WORKDIR = Path(os.environ.get("WORKDIR", f"runs/{'smoke' if SMOKE else 'mini'}"))
WORKDIR = WORKDIR.absolute()
print(f"{jax.device_count()} x {jax.devices()[0].device_kind}, results in {WORKDIR}")


def run(stage):
    """Trains (or opens) one stage, and gives its curve."""
    metrics = recipe.run_stage(config, WORKDIR, stage) / "metrics.jsonl"
    return read_metrics(metrics) if metrics.exists() else []


# %% [markdown]
# ## 1. Pretraining: GPT
#
# A GPT-3 in small (a pre-LN decoder with learned positions) reads documents about the
# world and learns to predict the next token. It gets to know the facts and the
# language, but no instruction: asked a question, it may go on with another question.

# %%
curves = {"pretrain": run("pretrain")}
picture(figures.loss_curves(curves))

# %%
# The stage's data, opened to look at.
pretraining = recipe.stage_config(config, "pretrain")
context = common.start(pretraining, WORKDIR / "pretrain", reading=True)
documents = context.data.source("documents", "train")
table([(d["kind"], d["text"]) for d in documents[:5]], ["kind", "document"])

# %% [markdown]
# ## 2. Supervised fine-tuning: SFT
#
# Labelers write what a good answer looks like, and the model is trained on these
# demonstrations (paper §3.5): 16 epochs, residual dropout 0.2, the loss on the
# response and its end-of-text token. The held-out loss is best early on and then rises:
# the model overfits. The paper goes on all the same, as people still prefer the later
# models; which checkpoint to use is decided in step 6.

# %%
demonstrations = context.data.source("demonstrations", "train")
table(
    [(d["category"], d["prompt"], d["response"]) for d in demonstrations[:6]],
    ["category", "prompt", "demonstration"],
)

# %%
curves["sft"] = run("sft")
picture(figures.loss_curves({"sft": curves["sft"]}))

# %% [markdown]
# ## 3. Where reinforcement learning starts
#
# Not from the 16-epoch model, but from GPT after 2 epochs of demonstrations with 10 %
# pretraining text mixed in (paper App. C.3). The same model, frozen, is the reference
# that the KL penalty of step 7 is measured against.

# %%
curves["rl_init"] = run("rl_init")
picture(figures.loss_curves({"rl_init": curves["rl_init"]}))

# %% [markdown]
# ## 4. Answers and rankings
#
# SFT models and the model of step 3 answer new prompts, and labelers rank the answers
# from best to worst, ties allowed (paper §3.4). The paper has 4 to 9 answers per
# prompt; `mini` has 8, two of which were written for other prompts: without them so
# small a reward model hardly looks at the prompt. Here the labelers are simulated: each
# has a taste of their own and makes mistakes, so that two of them agree on about 70 %
# of the pairs that neither ties; the paper's agreed on 73 %. Some are held out: the
# reward model never learns from them. As in the paper, one labeler ranks the answers to
# a training prompt.

# %%
run("label")
ranking = open_comparisons(WORKDIR / "label", "train")[0]
print(f"Ranked by {ranking['labeler']}: {ranking['prompt']}")
table(
    sorted(zip(ranking["ranks"], ranking["responses"], strict=True)),
    ["rank", "answer"],
)

# %% [markdown]
# ## 5. The reward model
#
# An SFT model whose last layer gives one number, $r_\theta(x, y)$: how good answer $y$
# to prompt $x$ is. It learns from all pairs of a ranking at once, the winner $y_w$
# against the loser $y_l$ (paper, Eq. 1):
#
# $$\mathrm{loss}(\theta) = -\frac{1}{\binom{K}{2}}\;
# \mathbb{E}_{(x, y_w, y_l) \sim D}
# \left[\log \sigma\big(r_\theta(x, y_w) - r_\theta(x, y_l)\big)\right]$$
#
# The code divides by the number of pairs that are not tied. There is one epoch only,
# since more overfit. Afterwards a bias shifts its scores so that
# demonstrations average 0.

# %%
curves["reward"] = run("reward")
picture(figures.loss_curves({"reward": curves["reward"]}))
accuracy = next(row for row in curves["reward"] if "heldout_accuracy" in row)
table(
    [
        ("training labelers", f"{accuracy['valid_accuracy']:.1%}"),
        ("held-out labelers", f"{accuracy['heldout_accuracy']:.1%}"),
    ],
    ["pairs ranked by", "reward model right"],
)

# %% [markdown]
# ## 6. Which SFT model?
#
# The checkpoint whose answers to validation prompts the reward model likes best
# (paper §3.5). That is usually a later one than the held-out loss would choose.

# %%
run("select")
selected = json.loads((WORKDIR / "select" / "selected.json").read_text())
picture(figures.sft_epochs({"sft_epochs": selected["epochs"]}))

# %% [markdown]
# ## 7. PPO and PPO-ptx
#
# The model answers prompts, the reward model scores the answers, and PPO makes answers
# with a high score more likely. A penalty for every token keeps the model near the
# reference: far from it the reward model is no longer to be trusted. PPO-ptx also
# follows the gradient of pretraining, so that the model forgets less of what it knew
# (paper, Eq. 2):
#
# $$\mathrm{objective}(\phi) =
# \mathbb{E}_{(x, y) \sim D_{\pi_\phi^{\mathrm{RL}}}}
# \left[r_\theta(x, y) - \beta \log \frac{\pi_\phi^{\mathrm{RL}}(y \mid x)}
# {\pi^{\mathrm{SFT}}(y \mid x)}\right]
# + \gamma\; \mathbb{E}_{x \sim D_{\mathrm{pretrain}}}
# \left[\log \pi_\phi^{\mathrm{RL}}(x)\right]$$
#
# $\pi^{\mathrm{SFT}}$ is here the model of step 3, not that of step 2. $\gamma = 0$ is
# PPO, $\gamma > 0$ PPO-ptx: these are the models called InstructGPT.
# Watch score and KL rise together: the first is what is bought, the second its price.

# %%
curves["ppo"] = run("ppo")
curves["ppo_ptx"] = run("ppo_ptx")
picture(figures.ppo_curves(curves))

# %% [markdown]
# ## 8. Figure 1
#
# The five models answer test prompts from customers that none of them has seen. The
# judge knows the truth about the world, and has trained none of them. A model's win
# rate is how often its answer is preferred to that of the SFT model, with a 95 %
# interval. "GPT (prompted)" is the pretrained model with a few solved examples before
# the prompt; which ones, the reward model chooses first, by the answers to validation
# prompts.

# %%
run("prefix")
run("evaluate")
results = load_results(WORKDIR / "evaluate" / "results.json")
if SMOKE:
    print("Models of a smoke run are noise. This is a finished run of `mini`:")
    results = load_results("notebooks/mini_results.json")
picture(figures.win_rates(results))
print(format_results_table(results))

# %% [markdown]
# How good is the reward model, beside people? Take the pairs of answers that two
# labelers both rank without a tie. The right column says how often the two agree, and
# the middle one how often the reward model agrees with one of them.

# %%
rates = results["reward_model"]
rows = []
for name, key in (("training labelers", "train"), ("held-out labelers", "heldout")):
    model, labelers = rates[f"shared_pairs_{key}"][0], rates[f"agreement_{key}"][0]
    rows.append((name, f"{model:.1%}", f"{labelers:.1%}"))
table(rows, ["", "reward model and labeler", "labeler and labeler"])

# %% [markdown]
# What each model does right and wrong, as in the paper's Figure 4. In the run that the
# README shows PPO gains tone: nearly all of its answers suit an assistant. It follows
# the instruction no better than SFT and hallucinates no less, unlike in the paper. The
# second picture shows whether the reward model agrees with labelers it has never met.

# %%
picture(figures.flags(results))
picture(figures.reward_accuracy(results))

# %% [markdown]
# The alignment tax: reinforcement learning costs some of what pretraining taught, so
# the loss on documents rises, and the pretraining gradients of PPO-ptx give it back.

# %%
saved = load_curves(results, WORKDIR / "evaluate")
picture(figures.pretraining_loss(results, saved))

# %% [markdown]
# ### Side by side
#
# Each answer with the judge's mark, from 1 to 7.

# %%
names = list(results["models"])
table(
    [
        [
            row["prompt"],
            *(f"{row['responses'][n][0]}\n({row['responses'][n][1]})" for n in names),
        ]
        for row in results["samples"][:8]
    ],
    ["prompt", *(results["models"][n]["label"] for n in names)],
)

# %% [markdown]
# ## 9. Ask them yourself
#
# Change the prompt and run the cell again; another seed gives other answers. The models
# know nothing but their world, so ask about the people and towns in the tables above.
# On a terminal, `python -m instructgpt.chat WORKDIR...` has a conversation with them.
# Everything so far is also in one file to keep, `evaluate/report.html`.

# %%
gpt = LanguageModel.open(WORKDIR / "pretrain")
models = {
    "GPT": gpt,
    "GPT (prompted)": gpt.few_shot(context.data.few_shot),
    "SFT": LanguageModel.open(WORKDIR / "sft", step=selected["step"]),
    "PPO": LanguageModel.open(WORKDIR / "ppo", part="ema"),
    "PPO-ptx": LanguageModel.open(WORKDIR / "ppo_ptx", part="ema"),
}
reward_model = RewardModel.open(WORKDIR / "reward")

# %%
PROMPT = "List three gifts that Dela would like."  # @param {type:"string"}
SEED = 0  # @param {type:"integer"}

answers = [
    model.generate([PROMPT], key=SEED)[0][0].strip("\n") for model in models.values()
]
scores = reward_model.score([PROMPT] * len(answers), answers)
table(
    [
        (name, answer, f"{score:.2f}")
        for name, answer, score in zip(models, answers, scores, strict=True)
    ],
    ["model", "answer", "reward model's score"],
)
