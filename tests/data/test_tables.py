"""Rows of JSON, CSV and Parquet, packed or not, and what is no table."""

import gzip
import json
import lzma

import pyarrow
import pyarrow.parquet
import pytest

from instructgpt.data.datasets import DataConfig, open_datasets
from instructgpt.data.origins.tables import table_rows
from instructgpt.data.records import read_jsonl
from instructgpt.errors import UserError
from tests.data.reader_files import read

ROWS = [{"prompt": f'Say é {n},\n"now".', "response": f"é {n}"} for n in range(3)]


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def table(separator: str) -> str:
    lines = [ROWS[0], *(row.values() for row in ROWS)]
    return "".join(separator.join(map(quoted, line)) + "\r\n" for line in lines)


TEXTS = {
    "a.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "a.json": json.dumps(ROWS),
    "wrapped.json": json.dumps({"version": "1", "data": ROWS}, indent=1),
    "columns.json": json.dumps({k: [row[k] for row in ROWS] for k in ROWS[0]}),
    "a.csv": table(","),
    "german.csv": table(";"),
    "a.tsv": table("\t"),
    "marked.CSV": "\ufeff" + table(","),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_texts_give_their_rows(name, suffix, tmp_path):
    path = tmp_path / f"{name}{suffix}"
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[suffix]
    path.write_bytes(pack(TEXTS[name].encode()))
    assert [row.value for row in table_rows(path)] == ROWS


def write_parquet(path, rows, **options):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, **options)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "odd_name.jsonl"])
def test_parquet_is_read_by_its_content(name, tmp_path):
    rows = [{**ROWS[n % 3], "n": n} for n in range(1000)]
    path = write_parquet(tmp_path / name, rows, row_group_size=300)
    found = list(table_rows(path))
    assert [row.value for row in found] == rows
    assert found[700].where == f"{path}[700]"


def test_parquet_is_read_by_every_reader_of_rows(tmp_path):
    """A known set as the hub has it now, and one's own records."""
    path = write_parquet(
        tmp_path / "a.parquet", [{"question": "How many?", "answer": "#### 2"}]
    )
    (record,) = read("gsm8k", path, "demonstrations").records
    assert (record["prompt"], record["response"]) == ("How many?", "#### 2")
    path = write_parquet(tmp_path / "b.parquet", ROWS)
    assert [r["response"] for r in read_jsonl(path, "demonstrations")] == [
        row["response"] for row in ROWS
    ]


def test_parquet_is_read_in_bounded_memory(tmp_path):
    rows = [{"prompt": "p" * 20_000 + str(n), "response": "r"} for n in range(2000)]
    path = write_parquet(
        tmp_path / "a.parquet", rows, row_group_size=100, compression="none"
    )
    del rows
    pool = pyarrow.default_memory_pool()
    before, most = pool.bytes_allocated(), 0
    for _ in table_rows(path):
        most = max(most, pool.bytes_allocated() - before)
    assert path.stat().st_size > 40e6
    assert most < 16e6


BAD = {
    "ragged.csv": (b"a,b\n1,2\n3\n", r"ragged\.csv:3: 1 cells, and 2 columns"),
    "quote.csv": (b'a,b\n"1"x,2\n', r"quote\.csv:2: not valid CSV"),
    "open.csv": (b'a,b\n"1,2\n', r"open\.csv:2: not valid CSV"),
    "twice.csv": (b"a,a\n1,2\n", r"twice\.csv:1: a column 'a' twice"),
    "nameless.csv": (b"a,\n1,2\n", r"nameless\.csv:1: a column has no name"),
    "names.csv": (b"a,b\n", r"names\.csv: no rows"),
    "empty.csv": (b"", r"empty\.csv: no rows"),
    "latin.csv": ("a\nü\n".encode("latin-1"), r"latin\.csv:2: not UTF-8"),
    "wide.csv": ("a,b\n1,2\n".encode("utf-16"), r"wide\.csv: is UTF-16 text"),
    "no.parquet": (b"a,b\n1,2\n", r"no\.parquet: is named as a Parquet table but"),
    "cut.parquet": (b"PAR1\x15\x04\x15", r"cut\.parquet: is a Parquet table that is d"),
    "lfs.parquet": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "gone.parquet": (None, r"gone\.parquet: cannot read the file"),
    "packed.parquet.gz": (gzip.compress(b"PAR1abc"), r"is a Parquet table; give it as"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_table_is_one_line(name, tmp_path):
    data, problem = BAD[name]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=problem) as error:
        list(table_rows(tmp_path / name))
    assert "\n" not in str(error.value)


def test_parquet_is_named_where_text_is_read(tmp_path):
    path = write_parquet(tmp_path / "a.txt", ROWS)
    with pytest.raises(UserError, match=r"a\.txt: is a Parquet table; give it as"):
        read("plain_text", path, "documents")


def test_single_rows_of_lists_are_rows(tmp_path):
    """They look like columns of a table, and are not."""
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for row in ({"messages": turns}, {"chosen": turns, "rejected": turns}):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(row))
        assert [found.value for found in table_rows(path)] == [row]


def test_a_stage_opens_tables_of_every_kind(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "demonstrations.train.csv").write_text(TEXTS["a.csv"], encoding="utf-8")
    rows = [{"prompt": "p", "chosen": "a", "rejected": "b"}]
    write_parquet(folder / "comparisons.train.parquet", rows)
    (folder / "documents.valid.json").write_text('[{"text": "once"}]')
    from instructgpt.tokenizer import train_tokenizer

    texts = [row["prompt"] for row in ROWS]
    train_tokenizer(texts, folder / "tokenizer.model", vocab_size=300)
    config = DataConfig(
        dir=str(tmp_path / "sets"), max_prompt=8, max_response=8, jsonl=str(folder)
    )
    data = open_datasets(config, log=print)
    assert len(data.source("demonstrations", "train")) == 3
    assert data.source("comparisons", "train")[0]["ranks"] == [1, 2]
    assert data.source("documents", "valid")[0]["text"] == "once"
    assert set(data.held_out) == {"documents.valid.json"}
    (folder / "demonstrations.train.jsonl").write_text(TEXTS["a.jsonl"])
    with pytest.raises(UserError, match=r"both demonstrations\.train\.csv and demonst"):
        open_datasets(config, log=print)
