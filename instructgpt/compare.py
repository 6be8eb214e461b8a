"""Compares runs: the keys that differ, their curves, and their final numbers.

    python -m instructgpt.compare runs/one runs/two
    python -m instructgpt.compare runs/*/ppo --metrics=score,kl --html=ppo.html

A run is the workdir of a stage, or of a recipe, whose stages are then compared by name.
Runs may be unfinished, or of different lengths. Paths in a config are compared relative
to their workdir, so two workdirs of one config differ in nothing.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence

from instructgpt.signals import stop_in_one_line

if __name__ == "__main__":  # before the slow imports below
    stop_in_one_line("")

from instructgpt.errors import UserError
from instructgpt.evals.report.comparison import Comparison
from instructgpt.evals.report.runs import open_runs
from instructgpt.outputs import in_one_line, new_file
from instructgpt.paths import from_shell


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="workdir of a stage or of a recipe"
    )
    parser.add_argument(
        "--html", metavar="FILE", help="also writes a page with figures, in one file"
    )
    parser.add_argument(
        "--metrics",
        default="",
        metavar="a,b",
        help="metrics to show; default: losses, accuracies, scores and KL here, and "
        "all of them in the page",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the comparison; a user's mistake ends in one line."""
    args = parse(argv)
    metrics = [name.strip() for name in args.metrics.split(",") if name.strip()]
    try:
        comparison = Comparison.of(open_runs(args.runs), metrics=metrics)
        print(comparison.text(width=shutil.get_terminal_size((100, 24)).columns))
        if args.html:
            path = from_shell(args.html)
            with new_file(path) as partial:
                partial.write_text(comparison.html(), encoding="utf-8")
            print(f"\npage: {path}")
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args.runs[0])}")


if __name__ == "__main__":
    main()
