"""What the programs share: flags whose mistakes are one line, memory that is kept."""

import ctypes
import re
import sys
from pathlib import Path

from absl import flags


def parse_flags(config: flags.FlagHolder, argv: list[str]) -> list[str]:
    """absl's parser, but a key that the config lacks is one clear line."""
    try:
        rest = flags.FLAGS(argv)
        _ = config.value.stage  # a file that is not there is an error only here
        return rest
    except flags.Error as error:
        sys.exit(f"error: {_without_traceback(str(error))}")
    except (AttributeError, KeyError, TypeError) as error:
        hint = re.search(r'Did you mean "(\w+)"', str(error))
        missing = re.search(r"'(\w+)", str(error).replace("\\", ""))
        name = missing.group(1) if missing else str(error)
        given = next((a for a in argv if name in a), name)
        sys.exit(
            f"error: {given}: the config has no key {name!r}; "
            + (f"did you mean {hint.group(1)!r}?" if hint else "see the config file")
        )
    except OSError as error:
        sys.exit(f"error: --config: {str(error).splitlines()[-1].strip()}")


def keep_memory(devices: Path = Path("/dev")) -> bool:
    """Has what a step frees stay with the process, for the next step to take.

    On a CPU each step takes hundreds of MiB; by default glibc gives them back, and the
    kernel hands them out anew, page by page and zeroed. To be called before JAX starts
    its threads. Does nothing where there is an accelerator, or no glibc.

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
    # M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD: one heap, nothing apart from
    # it, never cut, grown 64 MiB at a time.
    options = (-8, 1), (-4, 0), (-1, 2**31 - 1), (-2, 1 << 26)
    return min(mallopt(*option) for option in options) > 0


def _without_traceback(message: str) -> str:
    """A config file's own complaint in one line; a bug in it keeps its traceback."""
    first, *_, last = message.strip().splitlines() * 2
    kind, _, complaint = last.partition(": ")
    return f"{first.split(': ')[0]}: {complaint}" if kind == "ValueError" else message
