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
# all of InstructGPT. This notebook writes such files, has one broken line mended,
# imports SmolLM2-135M, trains SFT, reward model and PPO-ptx on them, and asks the
# models side by side. Put files of your own in the place of these.
#
# **Hardware and time:** MINUTES_DATA minutes on 2 CPU cores; it runs on one GPU or TPU
# chip as well.

# %% [markdown]
# ## Set-up
#
# On Colab the next cell fetches the code and installs what it needs. Elsewhere it only
# finds the repository: `bash launch/quickstart.sh` has made an environment,
# `pip install -e '.[notebooks]'` adds a kernel to it.

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
import json

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
# that the model does not forget how to write.

# %%
ROOMS = {
    "the Roman coins": "room 2, beside the stairs",
    "the blue whale": "the great hall",
    "the old maps": "room 7, on the upper floor",
    "the steam engine": "the yard behind the cafe",
    "the butterflies": "room 4, which is kept dark",
    "the Viking ship": "the boat house",
    "the moon rock": "room 9, in the glass case",
    "the mummies": "room 5, on the lower floor",
    "the children's books": "the library",
    "the clocks": "room 3, where you will hear them",
}
ASK = (
    "Where can I find {}?",
    "How do I get to {}?",
    "I would like to see {}. Where do I go?",
)
END = "Enjoy your visit!"

raw = WORKDIR / "raw"
raw.mkdir(parents=True, exist_ok=True)


def write_lines(name, rows):
    (raw / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


demonstrations, comparisons = [], []
for number, (what, where) in enumerate(ROOMS.items()):
    good = f"You will find {what} in {where}. {END}"
    for ask in ASK:
        demonstrations.append({"prompt": ask.format(what), "response": good})
    for ask in ASK[:2]:
        answers = [good, f"In {where}.", "I do not know, look for it yourself."]
        ranks = [1, 2, 3] if number % 3 else [1, 2, 2]
        comparisons.append(
            {"prompt": ask.format(what), "responses": answers, "ranks": ranks}
        )
write_lines("demonstrations.jsonl", demonstrations)
write_lines("comparisons.jsonl", comparisons)
(raw / "museum.txt").write_text(
    "\n\n".join(
        f"Visitors of the museum often ask for {what}. They are shown the way to "
        f"{where}. Many stay for an hour, and the guard there likes to tell the story "
        f"of how {what} came to the museum, a long time ago, on a rainy day in autumn."
        for what, where in ROOMS.items()
    )
)
print(len(demonstrations), "demonstrations,", len(comparisons), "rankings")

# %% [markdown]
# ## 2. `prepare`
#
# It reads JSONL, JSON, CSV, Parquet and text, sets of the Hugging Face hub
# (`hub:OWNER/NAME`) and of TensorFlow Datasets (`tfds:NAME`), cuts validation and test
# splits, and says what it left out. A mistake is one line that names file and place:

# %%
with open(raw / "demonstrations.jsonl", "a") as file:
    file.write('{"prompt": "When do you open?", "response": "At ten. Enjoy\n')
FILES = [
    f"--demonstrations={raw}/demonstrations.jsonl",
    f"--comparisons={raw}/comparisons.jsonl",
    f"--documents={raw}/museum.txt",
    "--option=plain_text.per=block",
]
# The imported model brings its own tokenizer.
SHARES = ["--valid=0.15", "--test=0", "--tokenizer=none"]
records = WORKDIR / "records"
if not records.exists():
    command("instructgpt.prepare", str(records), *FILES, *SHARES, check=False)

# %% [markdown]
# The last line was cut in the middle. Mended:

# %%
demonstrations.append({"prompt": "When do you open?", "response": f"At ten. {END}"})
write_lines("demonstrations.jsonl", demonstrations)
if not records.exists():
    command("instructgpt.prepare", str(records), *FILES, *SHARES)

# %% [markdown]
# ## 3. Import a model
#
# GPT-2, Pythia, Llama and Qwen2 families come in, and go out again, bit for bit. The
# result is a workdir like any stage's.

# %%
if not (WORKDIR / "base" / "checkpoints").exists():
    command("instructgpt.convert", "import", MODEL, str(WORKDIR / "base"))
base = LanguageModel.open(
    WORKDIR / "base", template="chatml", max_prompt=96, max_response=48
)
print(base.model.config)

# %% [markdown]
# How probable does it find your answer? This is the number that SFT makes larger.

# %%
QUESTION = "Where can I find the Viking ship?"
GOOD = f"You will find the Viking ship in the boat house. {END}"
found = base.log_likelihood([(QUESTION, GOOD)])[0]
print(f"{found.log_prob:.1f} nats for {found.num_tokens} tokens")

# %% [markdown]
# ## 4. Train
#
# `smollm2_cpu` takes a few dozen steps on a CPU; on an accelerator `smollm2` has the
# whole recipe. The same line again goes on where it was, or ends at once.

# %%
STEPS = 2 if SMOKE else 40
command(
    "instructgpt.main",
    "--config=configs/recipe.py:smollm2_cpu",
    f"--workdir={WORKDIR}",
    f"--config.stages.sft.train.num_steps={STEPS}",
    f"--config.stages.ppo_ptx.train.num_steps={2 if SMOKE else 12}",
    "--config.data.max_response=48",
)

# %% [markdown]
# ## 5. Ask them
#
# The museum's guide, before and after. The reward model's score is 0 for the mean of
# the demonstrations.

# %%
sft = LanguageModel.open(WORKDIR / "sft")
models = {
    "SmolLM2": base,
    "SFT": sft,
    "PPO-ptx": LanguageModel.open(WORKDIR / "ppo_ptx", part="ema"),
}
reward = RewardModel.open(WORKDIR / "reward")
QUESTIONS = [QUESTION, "How do I get to the clocks?", "Is there a cafe?"]
rows = []
for question in QUESTIONS:
    for name, model in models.items():
        ((answer,),) = model.generate([question], temperature=0.0)
        (score,) = reward.score([question], [answer])
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
        *("export", "--part=ema", str(WORKDIR / "ppo_ptx"), str(WORKDIR / "exported")),
    )
print(*sorted(path.name for path in (WORKDIR / "exported").iterdir()))

# %% [markdown]
# On a terminal, `python -m instructgpt.chat runs/museum/sft runs/museum/ppo_ptx` has a
# conversation with the two. A reward as a Python function, an evaluator or a judge of
# your own: `configs/README.md`.
