"""Plans memory and time of a stage by compiling it for chips that need not exist.

    python -m instructgpt.plan --config=configs/ppo_ptx.py:175b --topology=v5p:4x8x8
    python -m instructgpt.plan --config=configs/sft.py:gpt2 --devices=8 --memory=80

Plans for TPUs need the TPU compiler, `pip install 'jax[tpu]'`, but no TPU. Plans for
GPUs use XLA's CPU compiler. Times are lower bounds from the chips' data sheets.
"""

import json
import os
import sys
from pathlib import Path

# Set before JAX starts, because a plan never uses the machine's own accelerators.
os.environ["JAX_PLATFORMS"] = "cpu"
# XLA warns of choices that only its developers can change.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app, flags
from ml_collections import config_flags

from instructgpt.cli import parse_flags, silence_libraries
from instructgpt.errors import UserError
from instructgpt.paths import from_shell
from instructgpt.plan.plan import Request, plan_stage

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/STAGE.py:VARIANT", lock_config=True
)
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "A TPU slice, such as v5p:4x4x8, or a kind: its smallest that fits."
)
_DEVICES = flags.DEFINE_integer("devices", 0, "In place of a slice: so many GPUs.")
_GPU = flags.DEFINE_string("gpu", "h100", "Their kind: a100, h100 or h200.")
_MEMORY = flags.DEFINE_float("memory", 0.0, "GiB of a GPU; 0: what its kind has.")
_MODEL = flags.DEFINE_string("model", "", "Size of the policy; the variant's.")
_REWARD_MODEL = flags.DEFINE_string(
    "reward_model", "", "Size of the reward model; 6b for the paper's variants."
)
_JSON = flags.DEFINE_string("json", "", "Also writes the plan there.")
_PHASES = flags.DEFINE_list(
    "phases", [], "Functions to compile, such as decode,update; all."
)
_SEARCH = flags.DEFINE_boolean(
    "search", False, "Tries meshes, microbatches and remat policies for the fastest."
)


def main(argv: list[str]) -> None:
    """Runs the command; a user's mistake ends in one line."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    request = Request(
        variant=config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[
            2
        ],
        topology=_TOPOLOGY.value,
        devices=_DEVICES.value,
        gpu=_GPU.value,
        memory=_MEMORY.value,
        model=_MODEL.value,
        reward_model=_REWARD_MODEL.value,
        phases=tuple(_PHASES.value),
        search=_SEARCH.value,
    )
    silence_libraries()
    try:
        text, numbers = plan_stage(_CONFIG.value, request, log=_log)
    except UserError as error:
        sys.exit(f"error: {error}")
    print(text)
    if _JSON.value:
        Path(from_shell(_JSON.value)).write_text(json.dumps(numbers, indent=2) + "\n")


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def entry_point() -> None:
    """Marks the required flags and runs `main`."""
    flags.mark_flags_as_required(["config"])
    app.run(main, flags_parser=lambda argv: parse_flags(_CONFIG, argv))


if __name__ == "__main__":
    entry_point()
