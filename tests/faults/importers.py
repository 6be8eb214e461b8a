"""Damages small public models in many ways, and sees that import says what is wrong.

    python tests/faults/importers.py --inputs=2000 [--seed=0]

Each input is a valid folder or GGUF file of `valid_models.py` with one of the damages
of `damages.py`. It must be imported, or be refused by a UserError of one line that
names a file. Any other exception, a warning, and more than 5 seconds for an input are
faults: they are listed, and the command ends with 1. `--number=N` runs input N alone,
shows its traceback and leaves its files in a folder.
"""

import argparse
import contextlib
import faulthandler
import io
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from instructgpt.convert.importing import read_public  # noqa: E402
from instructgpt.errors import UserError  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from tests.faults.damages import DAMAGES  # noqa: E402
from tests.faults.valid_models import MODELS  # noqa: E402

LONGEST = 5.0  # seconds for an input


class Outcome(NamedTuple):
    """What became of an input."""

    number: int
    damage: str
    what: str  # the model, and the file that was damaged
    kind: str  # imported, refused or fault
    seconds: float
    said: str  # the error, or the traceback of a fault


def write_models(root: Path) -> dict[str, Path]:
    """Writes all valid models, each in a folder of its own."""
    folders = {name: root / str(i) for i, name in enumerate(MODELS)}
    for name, write in MODELS.items():
        write(folders[name])
    return folders


def run(number: int, seed: int, models: dict[str, Path], folder: Path) -> Outcome:
    """Damages a copy of a model in `folder`, a new one, and imports it."""
    draw = random.Random(f"{seed} {number}")
    name = draw.choice(list(models))
    damage = DAMAGES[number % len(DAMAGES)]
    shutil.copytree(models[name], folder)
    what = f"{name}: {damage(folder, draw)}"
    files = sorted(folder.glob("*.gguf"))
    source = draw.choice(files) if files and draw.random() < 0.8 else folder
    started = time.perf_counter()
    kind, said = _import(source, folder / "tokenizer", folder)
    seconds = time.perf_counter() - started
    if seconds > LONGEST:
        kind, said = "fault", f"took {seconds:.1f} s; {said}"
    return Outcome(number, damage.__name__, what, kind, seconds, said)


def _import(source: Path, tokenizer: Path, root: Path) -> tuple[str, str]:
    try:
        with _alarm(), contextlib.redirect_stdout(io.StringIO()):
            read_public(str(source), tokenizer)
    except UserError as error:
        said = str(error)
        bad = "\n" in said or str(root) not in said
        return ("fault" if bad else "refused"), said
    except BaseException as error:  # the libraries' panics are no Exceptions
        if isinstance(error, KeyboardInterrupt):
            raise
        return "fault", traceback.format_exc()
    return "imported", ""


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    """Ends what takes too long; warnings are errors."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    faulthandler.dump_traceback_later(60, exit=True)  # of what no signal can end
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        faulthandler.cancel_dump_traceback_later()


def table(outcomes: list[Outcome]) -> str:
    """Counts by kind of damage."""
    rows = []
    for name in [*(damage.__name__ for damage in DAMAGES), "all"]:
        part = [o for o in outcomes if name in ("all", o.damage)]
        counts = [
            sum(o.kind == kind for o in part)
            for kind in ("imported", "refused", "fault")
        ]
        slowest = max((o.seconds for o in part), default=0.0)
        rows.append([name, len(part), *map(str, counts), f"{slowest:.2f}"])
    head = ["damage", "inputs", "imported", "refused", "tracebacks", "slowest s"]
    return format_table(rows, head)


def main() -> None:
    """Runs the inputs; ends with 1 if there are faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=2000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the damages")
    parser.add_argument("--number", type=int, help="run this input alone")
    parser.add_argument("--show", action="store_true", help="print every refusal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        models = write_models(root / "models")
        if args.number is not None:
            outcome = run(
                args.number, args.seed, models, Path(tempfile.mkdtemp()) / "m"
            )
            print(f"{outcome.what}: {outcome.kind}\n{outcome.said}")
            sys.exit(outcome.kind == "fault")
        outcomes = []
        for number in range(args.inputs):
            outcomes.append(run(number, args.seed, models, root / "input"))
            shutil.rmtree(root / "input")
    for outcome in outcomes if args.show else []:
        print(f"{outcome.number} {outcome.what}: {outcome.kind} {outcome.said}")
    faults = [o for o in outcomes if o.kind == "fault"]
    for outcome in faults:
        print(f"input {outcome.number}, {outcome.damage}, {outcome.what}")
        print(outcome.said)
    print(table(outcomes))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
