"""Readers of public data sets: each turns one published format into our records."""

from instructgpt.data.readers.reading import read_file
from instructgpt.data.readers.report import Report
from instructgpt.data.readers.table import SETS, PublicSet, get_set

__all__ = ["SETS", "PublicSet", "Report", "get_set", "read_file"]
