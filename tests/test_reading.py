"""Users' files that stand for other files or hold something else are named."""

import pytest

from instructgpt.errors import UserError
from instructgpt.reading import check_content, describe, read_object

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


def refused(read, path, *parts):
    with pytest.raises(UserError) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("read", [check_content, read_object])
def test_git_lfs_pointers_are_named_with_what_fetches_the_file(read, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(POINTER)
    refused(read, path, "a Git LFS pointer", "git lfs pull")


def test_files_that_cannot_be_read_are_named(tmp_path):
    refused(check_content, tmp_path / "away", "cannot read the file (No such file")
    refused(read_object, tmp_path, "cannot read the file (Is a directory)")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"a": 1', "Expecting"),
        (b"[1]", "it holds [1]"),
        (b'"text"', 'it holds "text"'),
        (b'{"a": "\xff"}', "can't decode byte 0xff"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_object_is_named(content, reason, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    refused(read_object, path, "not valid JSON, or no object", reason)


def test_objects_are_read_also_from_utf16(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a": "é"}', encoding="utf-16")
    assert read_object(path) == {"a": "é"}


def test_long_values_are_cut_in_messages():
    assert describe({"a": None}) == '{"a": null}'
    assert describe("x" * 100) == '"' + "x" * 56 + "..."
