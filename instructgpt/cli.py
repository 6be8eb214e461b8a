"""Shared parts of the commands: flags with one-line errors, and memory settings."""

import ctypes
import difflib
import itertools
import os
import runpy
import sys
from pathlib import Path

from absl import flags, logging

# The folder that holds this package and, beside it, the configs.
_ROOT = Path(__file__).resolve().parents[1]
# Devices that JAX has a package for -> what they are, and the extra that installs it.
_ACCELERATORS = {
    "nvidia0": ("an NVIDIA GPU", "gpu"),
    "accel0": ("a TPU", "tpu"),
    "vfio/0": ("a TPU", "tpu"),
}


def parse_flags(config: flags.FlagHolder, argv: list[str]) -> list[str]:
    """Parses flags with absl; a key that the config does not have is a one-line error.

    A config file such as configs/sft.py that is not in the current folder is that of
    the package. Modules beside the config file become importable, like those beside a
    script.
    """
    argv = with_own_config(argv)
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


def with_own_config(argv: list[str]) -> list[str]:
    """The command line with the absolute path of a config file of the package's own.

    Args:
      argv: The command line. A config file that exists where it says is left as it is.
    """
    path, _ = _config_file(argv)
    own = _ROOT / path
    if not path or Path(path).exists() or not own.is_file():
        return argv
    out = list(argv)
    for number, argument in enumerate(argv):
        name, given, value = argument.partition("=")
        if name in ("-config", "--config"):
            place, text = (number, value) if given else (number + 1, argv[number + 1])
            full = str(own) + text[len(path) :]
            out[place] = f"{name}={full}" if given else full
            break
    return out


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


def keep_programs() -> None:
    """Keeps compiled programs in the checkout, so that the next start is faster.

    JAX_COMPILATION_CACHE_DIR names another folder. It does nothing where the package
    is installed without a checkout. Call this before JAX compiles anything.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or not _is_checkout(_ROOT):
        return
    import jax  # takes a while, which `--help` should not wait for

    jax.config.update("jax_compilation_cache_dir", str(_ROOT / ".cache" / "jax"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def silence_libraries() -> None:
    """Silences the warnings of libraries that mean nothing to the user of a command.

    Orbax warns about checkpoint parts that it can read, and prints errors of its
    threads although they are also raised where a command tells of them.
    """
    logging.set_verbosity(logging.FATAL)


def _is_checkout(folder: Path) -> bool:
    return (folder / "pyproject.toml").exists() and os.access(folder, os.W_OK)


def unused_accelerator(platform: str, devices: Path = Path("/dev")) -> str:
    """A line about an accelerator that is there while JAX computes on the CPU.

    Args:
      platform: JAX's default backend.
      devices: The folder of the system's devices.

    Returns:
      The line; "" if nothing is unused, or if JAX_PLATFORMS chose the CPU.
    """
    if platform != "cpu" or os.environ.get("JAX_PLATFORMS"):
        return ""
    for name, (what, extra) in _ACCELERATORS.items():
        if (devices / name).exists():
            return (
                f"note: this machine has {what}, but JAX computes on the CPU; for the "
                f"accelerator: pip install --editable '{_ROOT}[{extra}]'; to say that "
                "the CPU is meant: JAX_PLATFORMS=cpu"
            )
    return ""


def keep_memory(devices: Path = Path("/dev")) -> bool:
    """Makes the process keep the memory that a step frees, for the next step.

    On a CPU each step allocates hundreds of MiB. By default glibc returns them to the
    kernel, which hands them out again page by page and zeroed. Call this before JAX
    starts its threads. It does nothing with an accelerator or without glibc.

    Returns:
      Whether it was done.
    """
    names = *_ACCELERATORS, "kfd"
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
