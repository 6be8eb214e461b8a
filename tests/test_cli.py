"""Memory that stays with the process."""

import subprocess
import sys

import pytest

from instructgpt.cli import keep_memory

PROGRAM = """
import resource, sys
import numpy as np
from instructgpt.cli import keep_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 23)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

from pathlib import Path
done = keep_memory(Path(sys.argv[1]))
faults()
print(done, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_what_was_freed_is_taken_again(tmp_path):
    call = [sys.executable, "-c", PROGRAM, tmp_path]
    out = subprocess.run(call, capture_output=True, text=True, check=True).stdout
    done, faults = out.split()
    if done == "False":
        pytest.skip("no glibc")
    assert int(faults) < 100  # 64 MiB are 16,384 pages


def test_an_accelerator_leaves_it_alone(tmp_path):
    (tmp_path / "nvidia0").touch()
    assert not keep_memory(tmp_path)
