"""Damages files of a finished smoke workdir: no command may take them for whole.

    python tests/faults/workdirs.py [--damages=400] [--seed=0] [--number=N]

A recipe is run once. Then each damage changes one file of a copy, drawn so that every
kind of file comes up, and a command is run that reads this file: the recipe again, with
a stage deleted, or with a stage that has all but finished. It must be

- refused, by one line that names the file or the folder that it belongs to, or
- mended: all that the workdir holds in the end is what it held, or
- harmless: all but the damaged file is, and what was printed as well.

A traceback, a warning or a difference in anything else is a fault; they are listed, and
the exit code is 1. Which files a command reads is found by watching it. Damage to files
that no command reads is counted apart. `--number=N` runs damage N alone and shows what
it printed.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
REPO = Path(__file__).resolve().parents[2]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
sys.path.insert(0, str(REPO))

from ml_collections import ConfigDict  # noqa: E402

from configs import recipe as recipe_config  # noqa: E402
from instructgpt.errors import UserError  # noqa: E402
from instructgpt.manifest import MANIFEST, note_file  # noqa: E402
from instructgpt.outputs import in_one_line  # noqa: E402
from instructgpt.progress import format_table  # noqa: E402
from instructgpt.stages import recipe  # noqa: E402
from tests.faults.bits import flip_bits  # noqa: E402
from tests.faults.same_end import differences, named  # noqa: E402

STAGES = tuple(recipe_config._STAGES)
# Groups whose files may be damaged in ways that change nothing of what they say.
SMALL = ("what a run is", "what a stage found", "tokens and tokenizer")
OUTCOMES = ("refused", "mended", "harmless", "fault")


class Command(NamedTuple):
    """What is run in a workdir."""

    what: str  # again, anew, on
    stage: str = ""

    def __str__(self) -> str:
        return f"{self.what} {self.stage}".strip()


COMMANDS = (
    Command("again"),
    *(Command("anew", stage) for stage in STAGES),
    *(Command("on", stage) for stage in STAGES),
)


class Damage(NamedTuple):
    """One damage, and what became of it."""

    number: int
    how: str
    file: str  # below the workdir
    command: Command
    outcome: str
    said: str


# Ways to damage a file: (path, the files that it may be taken for, draw).
Way = Callable[[Path, list[Path], random.Random], None]


def flipped(path: Path, others: list[Path], draw: random.Random) -> None:
    """One bit."""
    path.write_bytes(flip_bits(path.read_bytes(), draw, number=1))


def digit(path: Path, others: list[Path], draw: random.Random) -> None:
    """Another digit in a number."""
    content = bytearray(path.read_bytes())
    spots = [m.start() for m in re.finditer(rb"\d", content)]
    if spots:
        spot = draw.choice(spots)
        content[spot] = 48 + (content[spot] - 48 + draw.randrange(1, 10)) % 10
    path.write_bytes(content)


def cut(path: Path, others: list[Path], draw: random.Random) -> None:
    """The end is missing."""
    content = path.read_bytes()
    path.write_bytes(content[: draw.randrange(max(1, len(content)))])


def emptied(path: Path, others: list[Path], draw: random.Random) -> None:
    """No byte is left."""
    path.write_bytes(b"")


def zeroed(path: Path, others: list[Path], draw: random.Random) -> None:
    """A block of zeros, as of a disk that lost it."""
    content = bytearray(path.read_bytes())
    start, size = draw.randrange(max(1, len(content))), draw.choice([16, 512])
    content[start : start + size] = bytes(len(content[start : start + size]))
    path.write_bytes(content)


def grown(path: Path, others: list[Path], draw: random.Random) -> None:
    """Bytes more, at the end or within."""
    content = path.read_bytes()
    spot = draw.choice([len(content), draw.randrange(len(content) + 1)])
    path.write_bytes(content[:spot] + draw.randbytes(4) + content[spot:])


def doubled_line(path: Path, others: list[Path], draw: random.Random) -> None:
    """A line twice, or one less."""
    lines = path.read_bytes().splitlines(keepends=True)
    if lines:
        spot = draw.randrange(len(lines))
        lines[spot : spot + 1] = [lines[spot]] * draw.choice([0, 2])
    path.write_bytes(b"".join(lines))


def other_content(path: Path, others: list[Path], draw: random.Random) -> None:
    """What another file of its kind holds, as of another step or split."""
    path.write_bytes(draw.choice(others or [path]).read_bytes())


def deleted(path: Path, others: list[Path], draw: random.Random) -> None:
    """It is gone."""
    path.unlink()


def folder(path: Path, others: list[Path], draw: random.Random) -> None:
    """A folder has its name."""
    path.unlink()
    path.mkdir()


WAYS: tuple[Way, ...] = (
    *(flipped, digit, cut, emptied, zeroed, grown, doubled_line, other_content),
    *(deleted, folder),
)


def prepare(command: Command, workdir: Path) -> None:
    """Makes of a finished workdir what a command finds."""
    stage = workdir / command.stage
    if command.what == "anew":
        shutil.rmtree(stage)
    if command.what == "on":
        (stage / "finished.json").unlink()
        for answers in stage.glob("answers.*"):
            note_file(answers)  # as the stage does on its way


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """What all of this process prints, libraries in C++ too: in the list afterwards."""
    out: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        try:
            # These may write elsewhere than to 1 and 2, as in a notebook.
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield out
        finally:
            file.flush()
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
            file.seek(0)
            out.append(file.read())


class _Reads:
    """Which files below a folder are opened to be read."""

    def __init__(self) -> None:
        self._root: str = ""
        self._seen: set[str] = set()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and self._root and isinstance(args[0], str | os.PathLike):
            name = os.path.abspath(os.fsdecode(args[0]))
            if name.startswith(self._root) and not set(args[1] or "") & set("wax"):
                self._seen.add(name.removeprefix(self._root))

    @contextlib.contextmanager
    def below(self, workdir: Path) -> Iterator[set[str]]:
        self._root, self._seen = f"{workdir}{os.sep}", set()
        try:
            yield self._seen
        finally:
            self._root = ""


def kind_of(file: str) -> str:
    """A file's kind, whatever its stage, its step and its letters by lot."""
    text = re.sub(r"[0-9a-f]{12,}", "HASH", file)
    text = re.sub(r"world-[\dx-]+", "WORLD", text)
    text = re.sub(rf"^({'|'.join(STAGES)})/", "STAGE/", text)
    text = re.sub(r"(?<=tfevents).*", "", text)
    return re.sub(r"(?<![\w.])\d+(?![\w.])", "N", text)


def group_of(file: str) -> str:
    """What a table calls it."""
    name, parts = Path(file).name, Path(file).parts
    if "checkpoints" in parts:
        return "checkpoints"
    if name.startswith(("tokens-", "tokenizer-")):
        return "tokens and tokenizer"
    if parts[0] == "data" or any(part.startswith("ranked-") for part in parts):
        return "data sets"
    if name in ("identity.json", "finished.json", "config.json", "minutes.json"):
        return "what a run is"
    return "what a stage found"


def _unit(file: str) -> str:
    """The checkpoint that a file belongs to, which is compared as one; else itself."""
    parts = Path(file).parts
    if "checkpoints" in parts:
        return "/".join(parts[: parts.index("checkpoints") + 2])
    return named(file)


class Harness:
    """A finished recipe, what each command reads of it, and what it ends in.

    Args:
      root: A folder for all of it.
      config: The recipe's.
      finished: A finished smoke recipe; None runs one.
    """

    def __init__(self, root: Path, config: ConfigDict, finished: Path | None = None):
        self.root, self.whole, self.config = root, root / "whole", config
        if finished is None:
            with printed():
                recipe.run(config, self.whole)
        else:
            shutil.copytree(finished, self.whole)
        files = (p for p in self.whole.rglob("*") if p.is_file() and p.name != ".lock")
        self.files = sorted(p.relative_to(self.whole).as_posix() for p in files)
        self.ends: dict[Command, Path] = {}
        self.prints: dict[Command, str] = {}
        self.readers: dict[str, list[Command]] = {file: [] for file in self.files}
        self._reads = _Reads()

    def watch(self, commands: Sequence[Command] = COMMANDS) -> None:
        """Runs each command on a whole workdir, and notes what it reads and leaves."""
        for command in commands:
            end = self.root / f"end {command}"
            shutil.copytree(self.whole, end)
            prepare(command, end)
            with self._reads.below(end) as seen, printed() as text:
                recipe.run(self.config, end)
            for file in seen.intersection(self.files):
                made = command.what == "anew" and file.startswith(f"{command.stage}/")
                if not made:
                    self.readers[file].append(command)
            self.ends[command], self.prints[command] = end, _table(text[0])

    def damage(self, number: int, seed: int) -> Damage:
        """Damages a file and runs a command that reads it."""
        draw = random.Random(f"{seed} {number}")
        kinds: dict[str, list[str]] = {}
        for file in self.files:
            if self.readers[file]:
                kinds.setdefault(kind_of(file), []).append(file)
        names = sorted(kinds)
        kind = names[number % len(names)]  # so that each comes up
        file, way = draw.choice(kinds[kind]), draw.choice(WAYS)
        command = draw.choice(self.readers[file])
        workdir = self.root / f"damaged {number}"  # opened data sets are kept by path
        shutil.copytree(self.whole, workdir)
        prepare(command, workdir)
        others = [workdir / name for name in kinds[kind] if name != file]
        before = (workdir / file).read_bytes()
        while True:
            way(workdir / file, others, draw)
            path = workdir / file
            if not path.is_file() or path.read_bytes() != before:
                break
            way = draw.choice(WAYS)
        try:
            outcome, said = self._outcome(command, workdir, file)
        finally:
            shutil.rmtree(workdir)
        return Damage(number, way.__name__, file, command, outcome, said)

    def _outcome(self, command: Command, workdir: Path, file: str) -> tuple[str, str]:
        error: BaseException | None = None
        with printed() as text, warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Sharding info not provided")
            try:
                recipe.run(self.config, workdir)
            except OSError as raised:  # as `main` puts it
                error = UserError(in_one_line(raised, workdir))
            except Exception as raised:
                error = raised
                trace = traceback.format_exc()
        if "Traceback (most recent" in text[0]:
            return "fault", text[0]
        if isinstance(error, UserError):
            said = str(error)
            wrong = _wrong_message(said, workdir, file)
            return ("fault", f"{wrong}: {said}") if wrong else ("refused", said)
        if error is not None:
            return "fault", trace
        different = differences(self.ends[command], workdir)
        elsewhere = [line for line in different if line.split(" ")[0] != _unit(file)]
        if not (workdir / file).is_file():  # nor is it among what the stage left
            finished = f"{command.stage}/finished.json differs"
            elsewhere = [line for line in elsewhere if line != finished]
        if elsewhere:
            return "fault", "\n".join(elsewhere)
        if _table(text[0]) != self.prints[command]:
            return "fault", f"prints otherwise:\n{text[0]}"
        unlisted = Path(file).name == MANIFEST and not (workdir / file).exists()
        if different and group_of(file) not in SMALL and not unlisted:
            return "fault", "is read and said to be whole: " + "\n".join(different)
        return ("harmless" if different else "mended"), "\n".join(different)


def _wrong_message(said: str, workdir: Path, file: str) -> str:
    """What is wrong with the words of a refusal; "" if nothing is."""
    if len(said.splitlines()) != 1:
        return "several lines"
    parts = Path(file).parts
    least = {"what a run is": 1, "checkpoints": 3}.get(group_of(file), 2)
    first = min(least, len(parts))
    paths = [workdir.joinpath(*parts[:n]) for n in range(first, 9)]
    if not any(re.search(rf"{re.escape(str(p))}(?![\w-])", said) for p in paths):
        return "does not name the file"
    return ""


def _table(text: str) -> str:
    """The numbers that a recipe prints at its end, without where they lie."""
    return text[text.rindex(" prompts, world ") : text.rindex("report: ")]


def table(found: Sequence[Damage]) -> str:
    """How many damages of each group ended how."""
    counts = Counter((group_of(d.file), d.outcome) for d in found)
    rows = []
    for group in [*sorted({group for group, _ in counts}), "all"]:
        row = [
            sum(n for (g, o), n in counts.items() if o == end and group in (g, "all"))
            for end in OUTCOMES
        ]
        rows.append([group, str(sum(row)), *map(str, row)])
    return format_table(rows, ["files", "damages", *OUTCOMES[:3], "faults"])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all, and prints the faults and a table; 1 if there is a fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--damages", type=int, default=400, help="how many (%(default)s)")
    add("--seed", type=int, default=0, help="draws others (%(default)s)")
    add("--number", type=int, help="this one alone, with what it printed")
    add("--finished", type=Path, help="a finished smoke recipe, instead of a new one")
    args = parser.parse_args(argv)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="damages_") as root:
        harness = Harness(Path(root), recipe_config.get_config("smoke"), args.finished)
        harness.watch()
        unread = sorted({kind_of(f) for f in harness.files if not harness.readers[f]})
        print(f"{len(harness.files)} files; read by no command: {json.dumps(unread)}")
        numbers = range(args.damages) if args.number is None else [args.number]
        found = []
        for number in numbers:
            damage = harness.damage(number, args.seed)
            found.append(damage)
            about = f"{damage.number} {damage.how} {damage.file} ({damage.command})"
            if damage.outcome == "fault" or args.number is not None:
                said = damage.said.strip().splitlines()[-12:]
                print(f"{damage.outcome.upper()} {about}\n  | " + "\n  | ".join(said))
            if (number + 1) % 50 == 0:
                took = time.monotonic() - began
                print(f"{number + 1} of {len(numbers)} damages, {took:.0f} s")
            sys.stdout.flush()
    print(table(found))
    return int(any(damage.outcome == "fault" for damage in found))


if __name__ == "__main__":
    sys.exit(main())
