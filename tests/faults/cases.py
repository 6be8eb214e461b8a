"""Runs small inputs that once ended badly, and checks that each now ends as it must.

    python tests/faults/cases.py                 # all
    python tests/faults/cases.py rope gguf       # those whose names hold one of these

Each case is a folder with a README.md whose first code block is what is run. They lie
in ../shared/cases beside the repository, or where INSTRUCTGPT_SHARED_CASES says;
where there are none, nothing is run. Cases that begin with a smoke recipe share one.
"""

import argparse
import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO))

from tests.faults.expected import EXPECTED, Expected  # noqa: E402

_ONCE = re.compile(r"^.*# once$", re.MULTILINE)
_SECONDS = 600  # of one case


class Ending(NamedTuple):
    """How a case's commands ended."""

    code: int
    text: str  # of stdout and stderr
    seconds: float


def folder() -> Path:
    """Where the cases are."""
    return Path(os.environ.get("INSTRUCTGPT_SHARED_CASES", REPO / "../shared/cases"))


def commands(case: Path) -> str:
    """The first code block of a case's README."""
    text = (case / "README.md").read_text(encoding="utf-8")
    return text.split("```bash\n")[1].split("```")[0]


def environment(case: Path, out: Path) -> dict[str, str]:
    """What the commands see: this Python first, this checkout, one cache."""
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "CASE": str(case),
        "OUT": str(out),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def run(script: str, case: Path, out: Path) -> Ending:
    """Runs a case's commands from the root of the checkout."""
    began = time.monotonic()
    try:
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=REPO,
            env=environment(case, out),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        code, text = -1, (late.stdout or b"") + b"\nno end in sight"
    return Ending(code, text.decode(errors="replace"), time.monotonic() - began)


def faults(ending: Ending, expected: Expected) -> list[str]:
    """What of an ending is not as it must be."""
    found = []
    raised = () if expected.raises else ("Traceback (most recent",)
    for never in (*raised, "Warning:", "no end in sight"):
        if never in ending.text:
            found.append(f"{never!r} in its output")
    if ending.code != expected.code and expected.code is not None:
        found.append(f"ended with {ending.code}, not {expected.code}")
    for says in expected.says:
        if not re.search(says, ending.text, re.MULTILINE):
            found.append(f"nowhere says {says!r}")
    for never in expected.never:
        if re.search(never, ending.text):
            found.append(f"says {never!r}")
    return found


def _copy(case: Path) -> Path:
    """The case in a folder that its commands may write into."""
    copy = Path(tempfile.mkdtemp(prefix="case_"))
    shutil.copytree(case, copy, dirs_exist_ok=True)
    return copy


def _give_tokenizer(case: Path, recipe: Path) -> None:
    """Has records that go with the smoke recipe's models use its tokenizer.

    The cases hold that of a miniature world that was drawn otherwise.
    """
    tokenizer = next((recipe / "data").glob("*/tokenizer-*.model"))
    for path in case.glob("records/tokenizer.model"):
        shutil.copy(tokenizer, path)


def make_recipe(cases: list[Path], recipe: Path) -> None:
    """Runs the smoke recipe, once, if one of the cases begins with it."""
    for case in cases:
        line = _ONCE.search(commands(case))
        if line:
            made = run(line.group(0), case, recipe.parent)
            if made.code:
                raise SystemExit(f"the smoke recipe failed:\n{made.text}")
            return


def check(case: Path, recipe: Path, *, verbose: bool) -> bool:
    """Runs a case and prints one line of it, and all its output if it fails."""
    script, own, out = commands(case), _copy(case), Path(tempfile.mkdtemp())
    try:
        if _ONCE.search(script):
            shutil.copytree(recipe, out / recipe.name)
            script = _ONCE.sub("", script)
            _give_tokenizer(own, out / recipe.name)
        expected = EXPECTED.get(case.name)
        ending = run(script + (expected.then if expected else ""), own, out)
    finally:
        for mounted in filter(Path.is_mount, out.rglob("*")):
            subprocess.run(["umount", mounted], check=False)
        shutil.rmtree(own, ignore_errors=True)
        shutil.rmtree(out, ignore_errors=True)
    if expected is None:
        wrong = ["nothing is expected of it in tests/faults/expected.py"]
    else:
        wrong = faults(ending, expected)
    said = [f"{'FAILED' if wrong else 'ok':6} {ending.seconds:5.1f} s  {case.name}"]
    said += [f"       {fault}" for fault in wrong]
    if wrong or verbose:
        said += [f"       | {line}" for line in ending.text.splitlines()[-40:]]
    print("\n".join(said), flush=True)  # in one piece, as others print too
    return not wrong


def main(argv: list[str]) -> int:
    """Runs the cases asked for; 1 if one does not end as it must."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="parts of names; none: all cases")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--verbose", action="store_true", help="show what all print")
    args = parser.parse_args(argv)
    if not folder().is_dir():
        print(f"no cases: {folder()} is not there")
        return 0
    cases = sorted(p.parent for p in folder().glob("*/README.md"))
    if args.names:
        cases = [c for c in cases if any(name in c.name for name in args.names)]
    with tempfile.TemporaryDirectory() as shared:
        recipe = Path(shared) / "smoke"
        make_recipe(cases, recipe)
        with ThreadPoolExecutor(args.jobs) as pool:
            one = functools.partial(check, recipe=recipe, verbose=args.verbose)
            good = list(pool.map(one, cases))
    print(f"{sum(good)} of {len(good)} cases end as they must")
    return int(not all(good))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
