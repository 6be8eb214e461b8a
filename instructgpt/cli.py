"""Shared parts of the commands: flags with one-line errors, and memory settings."""

import ctypes
import difflib
import itertools
import runpy
import sys
from pathlib import Path

from absl import flags


def parse_flags(config: flags.FlagHolder, argv: list[str]) -> list[str]:
    """Parses flags with absl; a key that the config does not have is a one-line error.

    Modules beside the config file become importable, like those beside a script.
    """
    _find_modules_beside(_config_file(argv)[0])
    try:
        rest = flags.FLAGS(argv)
        _ = config.value.stage  # a config file that is missing raises only here
        return rest
    except flags.Error as error:
        sys.exit(f"error: {_without_traceback(str(error))}")
    except (AttributeError, KeyError, TypeError):
        wrong = _wrong_key(argv)
        if not wrong:
            raise
        sys.exit(f"error: {wrong}")
    except OSError as error:
        sys.exit(f"error: --config: {str(error).splitlines()[-1].strip()}")


def _config_file(argv: list[str]) -> tuple[str, str]:
    """The config's file and variant as given on the command line; "" if missing."""
    for argument, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, given, value = argument.partition("=")
        if name in ("-config", "--config"):
            path, colon, variant = (value if given else following).partition(".py:")
            return path + ".py" * bool(colon), variant
    return "", ""


def _find_modules_beside(file: str) -> None:
    """Adds the folder of a file to the end of Python's module search path."""
    if file:
        sys.path.append(str(Path(file).resolve().parent))


def _wrong_key(argv: list[str]) -> str:
    """A message about the first flag whose key the config does not have."""
    file, variant = _config_file(argv)
    config = runpy.run_path(file)["get_config"](*[variant] * bool(variant))
    for argument in argv:
        if not argument.startswith(("--config.", "--noconfig.")):
            continue
        block, (where, *path) = config, argument.partition("=")[0][2:].split(".")
        for name in path:
            if not hasattr(block, "keys"):
                return f"{argument}: {where} is a value and has no keys"
            if name not in block:
                near = difflib.get_close_matches(name, block.keys(), n=1, cutoff=0.5)
                return (
                    f"{argument}: the config has no key {name!r}; "
                    + (f"did you mean {near[0]!r}? " if near else "")
                    + f"{where} has: {', '.join(sorted(block.keys()))}"
                )
            block, where = block[name], f"{where}.{name}"
    return ""


def keep_memory(devices: Path = Path("/dev")) -> bool:
    """Makes the process keep the memory that a step frees, for the next step.

    On a CPU each step allocates hundreds of MiB. By default glibc returns them to the
    kernel, which hands them out again page by page and zeroed. Call this before JAX
    starts its threads. It does nothing with an accelerator or without glibc.

    Returns:
      Whether it was done.
    """
    names = "nvidia0", "kfd", "accel0", "vfio/0"
    if any((devices / name).exists() for name in names):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD: a single heap, no separate
    # mappings, no trimming, growth by 64 MiB at a time.
    options = (-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 1 << 26)
    return min(mallopt(*option) for option in options) > 0


def _without_traceback(message: str) -> str:
    """Prints a config file's own error in one line; a bug in it keeps its traceback."""
    first, *_, last = message.strip().splitlines() * 2
    # A UserError's own message is one line, with the traceback of its cause in it.
    last = last[max(last.rfind("instructgpt.errors.UserError: "), 0) :]
    kind, _, complaint = last.partition(": ")
    plain = kind == "ValueError" or kind.endswith("UserError")
    return f"{first.split(': ')[0]}: {complaint}" if plain else message
