"""The page of this folder: its lines work as pasted, the hub's against a stand-in."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from instructgpt.data.readers import SETS
from instructgpt.data.records import read_jsonl
from instructgpt.prepare.command import parse
from tests.data import hub_server

REPO = Path(__file__).resolve().parents[2]
PAGE = (REPO / "instructgpt/data/README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def block(words: str) -> str:
    (found,) = (text for text in BLOCKS if words in text)
    return found


def paste(text: str, folder: Path, **environment: str) -> str:
    """What the lines print, in a folder of their own, with this package."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPO),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    """Where the first block was pasted."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "printed").write_text(paste(block("cat > runs/mine/raw"), folder))
    return folder


def test_files_of_ones_own_become_a_folder(own):
    records = own / "runs/mine/records"
    for kind in ("demonstrations", "prompts", "comparisons", "documents"):
        assert list(read_jsonl(records / f"{kind}.train.jsonl", kind))
    assert (records / "demonstrations.valid.jsonl").exists()
    assert (records / "tokenizer.model").stat().st_size > 0
    printed = (own / "printed").read_text()
    assert "made tokenizer.model" in printed
    assert "lengths in tokens" in printed


def test_the_folder_is_curated(own):
    assert "kept, train" in paste(block("instructgpt.curate"), own)
    assert (own / "runs/mine/curated/card.md").exists()


def test_a_set_of_the_hub_becomes_a_folder(tmp_path):
    said = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]
    row = {"prompt": "p", "messages": said, "chosen": said, "rejected": said}
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), data)
    names = [f"data/{s}-00000-of-00001.parquet" for s in ("train_sft", "train_prefs")]
    names.append("data/test_prefs-00000-of-00001.parquet")
    files = {name: data.getvalue() for name in names}
    name = "HuggingFaceH4/ultrafeedback_binarized"
    with hub_server.serving({name: hub_server.Repository(files)}) as hub:
        printed = paste(
            block("hub:HuggingFaceH4"),
            tmp_path,
            HF_ENDPOINT=hub.address,
            HF_HOME=str(tmp_path / "hub"),
        )
    assert f"{name} comparisons (licence: not named on its page)" in printed


def test_the_published_sets_are_known():
    (command,) = re.findall(
        r"instructgpt.prepare (runs/public.*?)\n```", PAGE, re.DOTALL
    )
    args = parse(command.replace("\\\n", " ").split())
    assert len(args.wanted) == 4
    for kind, name, _ in args.wanted:
        assert kind in SETS[name].kinds
    listed = PAGE.split("| set | gives |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", listed))
    hh = {"_rejection", "_online"}
    assert named - hh == {n for n in SETS if not n.endswith(("_rejection", "_online"))}
