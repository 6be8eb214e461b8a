"""A workdir on a file system that fills up, and one that two runs want.

`kills.py` calls both, with an unbroken run of the smoke recipe beside.
"""

import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.faults.launches import LONGEST, REPO, environment, launch
from tests.faults.same_end import differences

FULL = re.compile(r"^error: (.*No space left on device.*)$", re.MULTILINE)
TAKEN = re.compile(r"^error: .*another run is at work in this workdir.*$", re.MULTILINE)
AT_ONCE = 30.0  # seconds, most of them to start Python and JAX


@contextmanager
def _small_disk(folder: Path, size: int) -> Iterator[None]:
    """A file system of so many bytes."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def may_mount(root: Path) -> bool:
    """Whether this user may mount a file system."""
    try:
        with _small_disk(root / "mounted", 4096):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def fill(
    flags: Sequence[str], root: Path, expected: Path, *, sizes: int
) -> tuple[list[str], list[str]]:
    """A recipe on a file system that fills up, grown as many times as there are sizes.

    Args:
      flags: The recipe's, without a workdir.
      root: A folder for all of it.
      expected: What an unbroken run left.
      sizes: How many, of equal steps up to what that takes.

    Returns:
      (a line for each size, faults).
    """
    used = sum(p.stat().st_blocks * 512 for p in expected.rglob("*"))
    disk, faults, lines = root / "disk", [], []
    workdir, ledger = disk / "run", root / "disk.ledger"
    line = [*flags, f"--workdir={workdir}"]
    with _small_disk(disk, used // (sizes + 1)):
        for i in range(1, sizes + 1):
            size = used * i // (sizes + 1)
            resize = ["mount", "-o", f"remount,size={size}", str(disk)]
            subprocess.run(resize, check=True)
            ended = launch(line, ledger, [])
            said = FULL.search(ended.text)
            about = f"{size / 2**20:.1f} MiB"
            lines.append(f"{about}: {said.group(1) if said else ended.text[-300:]}")
            if ended.code != 1 or not said or "Traceback" in ended.text:
                faults.append(f"a disk of {about}: ended with {ended.code}")
        subprocess.run(["mount", "-o", "remount,size=0", str(disk)], check=True)
        ended = launch(line, ledger, [])
        if ended.code:
            faults.append(f"with room: {ended.text[-300:]}")
        else:
            faults += [
                f"once there is room: {d}" for d in differences(expected, workdir)
            ]
    return lines, faults


def share(flags: Sequence[str], root: Path, expected: Path) -> tuple[str, list[str]]:
    """A second run started in the workdir of one that is training.

    Returns:
      (what the second said, faults).
    """
    workdir, ledger = root / "shared", root / "shared.ledger"
    line = [*flags, f"--workdir={workdir}"]
    log = ledger.with_suffix(".log")
    faults = []
    with log.open("w") as file:
        first = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.dying", *line],
            cwd=REPO,
            env=environment(ledger, []),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        while first.poll() is None and not _has_begun(ledger):
            time.sleep(0.05)
        began = time.monotonic()
        second = launch(line, root / "second.ledger", [])
        took = time.monotonic() - began
        said = TAKEN.search(second.text)
        if second.code != 1 or not said or "Traceback" in second.text:
            faults.append(f"the second run ended with {second.code}: {second.text}")
        if took > AT_ONCE:
            faults.append(f"the second run took {took:.0f} s to end")
        if first.wait(timeout=LONGEST):
            faults.append(f"the first run ended with {first.returncode}")
        else:
            faults += [f"the first run: {d}" for d in differences(expected, workdir)]
    finally:
        first.kill()
        first.wait()
    return f"{said.group(0) if said else ''} (after {took:.1f} s)", faults


def _has_begun(ledger: Path) -> bool:
    return ledger.exists() and "update pretrain 1\n" in ledger.read_text()
