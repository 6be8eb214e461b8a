"""What the programs with a config file share: flags whose mistakes are one line."""

import re
import sys

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


def _without_traceback(message: str) -> str:
    """A config file's own complaint in one line; a bug in it keeps its traceback."""
    first, *_, last = message.strip().splitlines() * 2
    kind, _, complaint = last.partition(": ")
    return f"{first.split(': ')[0]}: {complaint}" if kind == "ValueError" else message
