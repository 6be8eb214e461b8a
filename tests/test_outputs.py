"""Messages about files that cannot be written, and remains of a killed program."""

import errno
import os
import re

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.outputs import delete_partial, in_one_line, new_file, writing


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No sp.*room"),
        (
            OSError("28278 requested and 26560 written"),
            "/run: No space left.*room",
        ),
        (OSError(errno.EROFS, "Read-only file system"), "/run: Read-only .*allow it"),
        (
            OSError(errno.EISDIR, "Is a directory"),
            "/run: a folder is where a",
        ),
        (OSError(errno.ENOTDIR, "Not a directory"), "/run: a file is where a folder"),
        (OSError(errno.EIO, "Input/output error"), "/run: Input/output error; mend"),
        (OSError("something else"), "/run: something else; mend"),
    ],
)
def test_what_the_system_says_is_one_line(error, says):
    text = in_one_line(error, "/run")
    assert re.match(says, text), text
    assert "\n" not in text


def test_numpy_that_has_no_room_is_told_as_the_system_would():
    with (
        pytest.raises(UserError, match=r"tokens.npy: No space left on device; make ro"),
        writing("tokens.npy"),
    ):
        raise OSError("10 requested and 3 written")
    if os.path.exists("/dev/full"):  # which takes nothing
        with (
            pytest.raises(UserError, match="full: No space left"),
            writing("/dev/full"),
            open("/dev/full", "wb") as file,
        ):
            np.save(file, np.zeros(10_000))


def test_only_what_a_killed_program_left_is_deleted(tmp_path):
    with new_file(tmp_path / "whole.json") as partial:
        partial.write_text("{}")
        half = partial.name
    left = [half, ".tokens-a-b.npy.17.partial", "incomplete.AB12CD_1.2.0"]
    stay = ["notes.partial", ".hidden", "incomplete", ".x.partial", "whole.json"]
    for name in (*left, *stay):
        (tmp_path / name).touch()
    (tmp_path / "incomplete.XY_1.0.0").mkdir()
    (tmp_path / "incomplete.XY_1.0.0" / "file").touch()
    delete_partial(tmp_path.rglob("*"))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(stay)
