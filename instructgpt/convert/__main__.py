"""Converts public checkpoints to ours and back.

    python -m instructgpt.convert import SOURCE CHECKPOINT
    python -m instructgpt.convert export CHECKPOINT FOLDER

SOURCE is a folder with config.json, *.safetensors and a tokenizer's files, a .gguf
file (any part of a split one) or a folder with one, or the name of a model on the
Hugging Face hub. CHECKPOINT is a workdir like any stage's: give it to a stage as
`--config.init.path`, or PPO's `--config.reward_init.path` if it is a reward model, and
its `tokenizer` folder as `--config.data.tokenizer`.
"""

import argparse
import math
import sys
from os.path import expanduser

from instructgpt.cli import silence_libraries
from instructgpt.convert.exporting import export_checkpoint
from instructgpt.convert.importing import import_checkpoint
from instructgpt.errors import UserError
from instructgpt.outputs import in_one_line


def main(argv: list[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line."""
    parser = argparse.ArgumentParser(prog="instructgpt.convert", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    importing = commands.add_parser("import", help="public files to a checkpoint")
    importing.add_argument("source", help="folder, .gguf file or name on the hub")
    importing.add_argument("checkpoint", type=expanduser, help="a new workdir")
    exporting = commands.add_parser("export", help="a checkpoint to public files")
    exporting.add_argument("checkpoint", type=expanduser, help="a stage's workdir")
    exporting.add_argument("folder", type=expanduser, help="a new folder")
    exporting.add_argument("--part", default="params", help="params, or PPO's ema")
    exporting.add_argument("--step", type=int, help="default: the newest")
    exporting.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16")
    )
    exporting.add_argument(
        "--max-shard-gb", type=_size, default=5.0, help="size of a file, in 1e9 bytes"
    )
    args = vars(parser.parse_args(argv))
    command = args.pop("command")
    silence_libraries()
    try:
        if command == "import":
            import_checkpoint(args["source"], args["checkpoint"])
        else:
            export_checkpoint(**args)
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args['checkpoint'])}")


def _size(text: str) -> float:
    size = float(text)
    if not 0 < size < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
    return size


if __name__ == "__main__":
    main()
