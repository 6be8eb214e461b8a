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
# # Your own data, and a public model
#
# Thirty answers as you would give them, twenty prompts with better and worse answers, a
# page of text, and a model that others have pretrained: with these one can go through
# all of InstructGPT. This notebook checks such files, imports SmolLM2-135M-Instruct,
# trains SFT, reward model and PPO-ptx on them, and asks the models side by side.
#
# **Hardware and time:** 15 minutes on one CPU core (Intel Xeon, other work on the
# other), nearly all of them the training of part 4, and 14 GB of memory; 23 on two slow
# cores. One GPU or TPU chip runs it as well.

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
# `SMOKE = True` trains a few steps on every stage, so that nothing is learnt.
# `MODEL` is a name on the Hugging Face hub, or a folder or GGUF file on this machine.

# %% tags=["parameters"]
SMOKE = bool(int(os.environ.get("SMOKE", "0")))
MODEL = os.environ.get("MODEL", "HuggingFaceTB/SmolLM2-135M-Instruct")
WORKDIR = Path(os.environ.get("WORKDIR", "runs/museum")).absolute()

# %%
import shutil

from instructgpt.cli import keep_programs, silence_libraries
from instructgpt.inference import LanguageModel, RewardModel
from instructgpt.notebook import command, table

keep_programs()
silence_libraries()

# %% [markdown]
# ## 1. Three files
#
# A museum wants its guide's answers: short, with the room, and with the same friendly
# end. `demonstrations` show that, `comparisons` rank several answers to a prompt (equal
# ranks are a tie), and `documents` are text about the museum, which PPO-ptx uses so
# that the model does not forget how to write. Put files of your own in `raw`.

# %%
raw = WORKDIR / "raw"
if not raw.exists():
    shutil.copytree("notebooks/museum", raw)
for path in sorted(raw.iterdir()):
    lines = path.read_text().splitlines()
    print(f"{path.name}, {len(lines)} lines, such as\n  {lines[0][:200]}")

# %% [markdown]
# ## 2. `prepare`
#
# It reads JSONL, JSON, CSV, Parquet and text, sets of the Hugging Face hub
# (`hub:OWNER/NAME`) and of TensorFlow Datasets (`tfds:NAME`), cuts validation and test
# splits, and says what it left out. A mistake is one line that names file and place.
# Here is a copy whose last line was cut in the middle:

# %%
damaged = WORKDIR / "damaged.jsonl"
damaged.write_text((raw / "demonstrations.jsonl").read_text()[:-20])
command(
    "instructgpt.prepare",
    str(WORKDIR / "never"),
    f"--demonstrations={damaged}",
    "--tokenizer=none",
    check=False,
)

# %% [markdown]
# And the whole. The imported model brings its own tokenizer.

# %%
records = WORKDIR / "records"
if not records.exists():
    command(
        "instructgpt.prepare",
        str(records),
        f"--demonstrations={raw}/demonstrations.jsonl",
        f"--comparisons={raw}/comparisons.jsonl",
        f"--documents={raw}/documents.txt",
        "--option=plain_text.per=block",
        "--valid=0.15",
        "--test=0",
        "--tokenizer=none",
    )

# %% [markdown]
# ## 3. Import a model
#
# GPT-2, Pythia, Llama and Qwen2 families come in, and go out again, bit for bit. The
# result is a workdir like any stage's.

# %%
if not (WORKDIR / "base" / "checkpoints").exists():
    command("instructgpt.convert", "import", MODEL, str(WORKDIR / "base"))
base = LanguageModel.open(
    WORKDIR / "base", template="chatml", max_prompt=96, max_response=128
)
print(base.model.config)

# %% [markdown]
# How probable does it find your answer, one of the demonstrations? This is the number
# that SFT makes larger.

# %%
QUESTION = "Where can I find the Viking ship?"
GOOD = "You will find the Viking ship in the boat house. Enjoy your visit!"
found = base.log_likelihood([(QUESTION, GOOD)])[0]
print(f"{found.log_prob:.1f} nats for {found.num_tokens} tokens")

# %% [markdown]
# ## 4. Train
#
# `smollm2_cpu` has 12 updates of SFT and 3 iterations of PPO. On an accelerator
# `smollm2` has the whole recipe. The same line again goes on where it was, or ends at
# once.

# %%
FEWER = ["--config.stages.sft.train.num_steps=2"]
FEWER += ["--config.stages.ppo_ptx.train.num_steps=2"]
command(
    "instructgpt.main",
    "--config=configs/recipe.py:smollm2_cpu",
    f"--workdir={WORKDIR}",
    *(FEWER if SMOKE else []),
)

# %% [markdown]
# ## 5. Ask them
#
# The museum's guide, before and after. No file has the first question; the second is
# one of the demonstrations, and the third is about something else. A score of 0 is the
# mean of the demonstrations.

# %%
sft = LanguageModel.open(WORKDIR / "sft")
models = {
    "SmolLM2": base,
    "SFT": sft,
    "PPO-ptx": LanguageModel.open(WORKDIR / "ppo_ptx", part="ema"),
}
reward = RewardModel.open(WORKDIR / "reward")
QUESTIONS = ["Which room has the moon rock?", QUESTION, "Can I bring my dog?"]
rows = []
for question in QUESTIONS:
    for name, model in models.items():
        answer = model.generate([question], temperature=0.0)[0][0]
        score = reward.score([question], [answer])[0]
        rows.append((question, name, answer, f"{score:+.2f}"))
table(rows, ["question", "model", "answer", "score"])

# %%
for name, model in models.items():
    found = model.log_likelihood([(QUESTION, GOOD)])[0]
    print(f"{name:8} {found.log_prob:7.1f} nats for your answer")

# %% [markdown]
# ## 6. Take it with you
#
# A folder that `transformers` loads:

# %%
if not (WORKDIR / "exported").exists():
    command(
        "instructgpt.convert",
        "export",
        "--part=ema",
        str(WORKDIR / "ppo_ptx"),
        str(WORKDIR / "exported"),
    )
print(*sorted(path.name for path in (WORKDIR / "exported").iterdir()))

# %% [markdown]
# On a terminal, `python -m instructgpt.chat runs/museum/sft runs/museum/ppo_ptx` has a
# conversation with the two. A reward as a Python function, an evaluator or a judge of
# your own: `configs/README.md`.
