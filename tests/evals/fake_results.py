"""A made-up `results.json` with its metric curves, for tests of the report."""

import json
from pathlib import Path

import numpy as np

# Win rate, Likert, flags and RM score, weakest model first.
MODELS = {
    "gpt": ("GPT", 0.16, 2.6, (0.55, 0.22, 0.45, 0.70), -1.9),
    "gpt_prompted": ("GPT (prompted)", 0.29, 3.4, (0.71, 0.28, 0.30, 0.80), -1.1),
    "sft": ("SFT", 0.50, 4.3, (0.86, 0.34, 0.12, 0.88), 0.1),
    "ppo": ("PPO", 0.66, 5.1, (0.93, 0.43, 0.17, 0.92), 1.4),
    "ppo_ptx": ("PPO-ptx", 0.65, 5.0, (0.92, 0.44, 0.15, 0.91), 1.3),
}
FLAGS = (
    "attempts_correct_instruction",
    "follows_constraints",
    "hallucinations",
    "appropriate_for_customer_assistant",
)
CATEGORIES = ("generation", "open_qa", "brainstorming", "rewrite", "closed_qa")


def make_results() -> dict:
    """The content of a complete `results.json`."""
    models = {}
    for name, (label, rate, likert, flags, score) in MODELS.items():
        models[name] = {
            "label": label,
            "win_rate": around(rate, 0.0 if name == "sft" else 0.045),
            "likert": around(likert, 0.16),
            "flags": {f: around(v, 0.04) for f, v in zip(FLAGS, flags, strict=True)},
            "mean_score": score,
            "categories": {
                category: around(likert + 0.3 * (i - 2), 0.5)
                for i, category in enumerate(CATEGORIES)
            },
        }
    answers = ["The the", "Name three.", "A red fox & a hen", "Two foxes.", "A fox."]
    return {
        "models": models,
        "evaluators": make_world_numbers(),
        "baseline": "sft",
        "num_prompts": 480,
        "pretrain_loss": {
            "gpt": 1.712,
            "rl_init": 1.731,
            "ppo": 1.864,
            "ppo_ptx": 1.757,
        },
        "reward_model": {
            "all_pairs_train": [0.724, 0.708, 0.740],
            "all_pairs_heldout": [0.696, 0.671, 0.721],
            "shared_pairs_train": [0.741, 0.722, 0.759],
            "shared_pairs_heldout": [0.709, 0.682, 0.734],
            "agreement_train": [0.726, 0.711, 0.741],
            "agreement_heldout": [0.773, 0.760, 0.786],
        },
        "sft_epochs": [
            {
                "epoch": epoch,
                "valid_loss": 0.9 + 0.02 * (epoch - 4) ** 2 / 4,
                "rm_score": 0.4 - 0.01 * (epoch - 11) ** 2,
                "chosen": epoch == 11,
            }
            for epoch in range(1, 17)
        ],
        "curves": {
            name: f"{name}/metrics.jsonl"
            for name in ("pretrain", "sft", "rl_init", "reward", "ppo", "ppo_ptx")
        },
        "samples": [
            {
                "prompt": "Name an animal of the <forest>.\nOne word.",
                "category": "brainstorming",
                "responses": {
                    name: [text, 1.5 + i]
                    for i, (name, text) in enumerate(zip(MODELS, answers, strict=True))
                },
            }
        ]
        * 3,
        "meta": {
            "commit": "0123456789abcdef",
            "date": "2030-01-02",
            "hardware": "2 CPU cores",
            "minutes": {"pretrain": 2.5, "sft": 1.5, "ppo": 3.25},
            "seed": 0,
            "world_seed": 7,
        },
    }


def make_world_numbers() -> dict:
    """The numbers of the miniature world's evaluators."""
    strength = {"gpt": 0.2, "gpt_prompted": 0.2, "sft": 0.5, "ppo": 0.6}
    strength |= {"ppo_ptx": 0.65, "rl_init": 0.5}
    return {
        "world_truthful": {
            name: {
                prompt: {
                    "truthful": around(0.3 + 0.8 * s * share, 0.08),
                    "truthful_informative": around(0.2 + 0.5 * s, 0.07),
                    "misconception": around(0.5 - 0.5 * s, 0.07),
                }
                for prompt, share in (
                    ("qa", 0.8),
                    ("instruction_qa", 1.0),
                    ("instruction", 0.9),
                )
            }
            for name, s in strength.items()
        },
        "world_toxicity": {
            name: {
                "none": around(0.4 - 0.3 * s, 0.05),
                "respectful": around(0.3 - 0.3 * s, 0.05),
                "biased": around(0.5 + 0.2 * s, 0.05),
            }
            for name, s in strength.items()
        },
        "world_tasks": {
            name: {
                setting: {
                    "question_answering": around(0.8 - 0.3 * s, 0.08),
                    "completion": around(0.9 - 0.2 * s, 0.06),
                    "classification": around(0.95 - 0.2 * s, 0.04),
                }
                for setting in ("zero_shot", "few_shot")
            }
            for name, s in strength.items()
        },
    }


def write_results(folder: Path) -> Path:
    """Writes `results.json` and its curves below `folder`; returns the path."""
    results = make_results()
    rng = np.random.default_rng(0)
    for name, path in results["curves"].items():
        rows = ppo_rows(name, rng) if name.startswith("ppo") else loss_rows(rng)
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "results.json"
    path.write_text(json.dumps(results))
    return path


def around(value: float, half: float) -> list[float]:
    return [value, value - half, value + half]


def loss_rows(rng: np.random.Generator) -> list[dict]:
    rows = []
    for step in range(1, 401):
        loss = 1.7 + 4 * np.exp(-step / 40) + 0.05 * rng.standard_normal()
        rows.append({"step": step, "loss": loss})
        if step % 50 == 0:
            rows.append({"step": step, "valid_loss": loss + 0.08})
    return rows


def ppo_rows(name: str, rng: np.random.Generator) -> list[dict]:
    rise = 0.13 if name == "ppo" else 0.03
    rows = []
    for step in range(1, 121):
        done = 1 - np.exp(-step / 40)
        row = {
            "step": step,
            "score": 1.5 * done + 0.1 * rng.standard_normal(),
            "kl": (12 if name == "ppo" else 10) * done + 0.3 * rng.standard_normal(),
            "value_loss": 0.1 + 0.4 * (1 - done) + 0.02 * rng.standard_normal(),
            "clip_fraction": 0.1 + 0.02 * rng.standard_normal(),
        }
        if step % 10 == 0:
            row["valid_pretrain_loss"] = 1.731 + rise * done
        rows.append(row)
    return rows
