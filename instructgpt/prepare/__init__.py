"""Makes a folder of records from files of one's own and from public data sets."""

from instructgpt.prepare.building import Wanted, prepare
from instructgpt.prepare.command import main

__all__ = ["Wanted", "main", "prepare"]
