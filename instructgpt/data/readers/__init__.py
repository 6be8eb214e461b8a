"""Readers of public data sets: each turns one published format into our records."""

from instructgpt.data.readers.reading import Found, read_file
from instructgpt.data.readers.report import Report
from instructgpt.data.readers.rows import check_columns, read_rows
from instructgpt.data.readers.table import SETS, PublicSet, get_set

__all__ = [
    "SETS",
    "Found",
    "PublicSet",
    "Report",
    "check_columns",
    "get_set",
    "read_file",
    "read_rows",
]
