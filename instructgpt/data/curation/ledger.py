"""A record on disk of the kept units: their prefixes and each customer's count.

It is an SQLite file with a page cache of fixed size, so memory does not grow with the
number of rows. A row takes some 30 bytes on disk (8 for the hash, the rest for the id).
The file is used during one run only, so it is neither journalled nor synced.
"""

import os
import sqlite3
from typing import NamedTuple

CACHE_KIB = 32 * 1024  # bounds the memory of a ledger


class CustomerCounts(NamedTuple):
    """Number of customers of one split, and of units per customer."""

    customers: int
    mean: float
    max: int


class Ledger:
    """The kept units, by the 64-bit hashes of their prefixes and customers."""

    def __init__(self, path: str | os.PathLike[str]):
        """Creates the file, which must not exist yet."""
        self._db = sqlite3.connect(path, isolation_level=None)
        for setting in (
            f"cache_size = -{CACHE_KIB}",
            "journal_mode = OFF",
            "synchronous = OFF",
            "locking_mode = EXCLUSIVE",
        ):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("CREATE TABLE prefixes (hash INTEGER PRIMARY KEY, id TEXT)")
        self._db.execute(
            "CREATE TABLE customers"
            " (hash INTEGER PRIMARY KEY, split TEXT, units INTEGER)"
        )
        self._db.execute("BEGIN")  # one transaction: pages are written when evicted

    def close(self) -> None:
        self._db.close()

    def claim_prefix(self, prefix: int, unit_id: str) -> str | None:
        """Claims a prefix for a unit; returns the unit that already has it, or None."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO prefixes VALUES (?, ?)", (prefix, unit_id)
        )
        if cursor.rowcount:
            return None
        query = "SELECT id FROM prefixes WHERE hash = ?"
        return self._db.execute(query, (prefix,)).fetchone()[0]

    def release_prefix(self, prefix: int) -> None:
        """Releases a prefix, so that another unit can claim it."""
        self._db.execute("DELETE FROM prefixes WHERE hash = ?", (prefix,))

    def count(self, customer: int, split: str, *, cap: int) -> bool:
        """Counts one more unit of a customer; returns False if it already has `cap`."""
        cursor = self._db.execute(
            "INSERT INTO customers VALUES (?, ?, 1)"
            " ON CONFLICT DO UPDATE SET units = units + 1 WHERE units < ?",
            (customer, split, cap),
        )
        return cursor.rowcount == 1

    def split_of(self, customer: int) -> str | None:
        """The split of the customer's first unit; None if there is no unit yet."""
        query = "SELECT split FROM customers WHERE hash = ?"
        found = self._db.execute(query, (customer,)).fetchone()
        return found[0] if found else None

    def customer_counts(self) -> dict[str, CustomerCounts]:
        """Counts of units per customer, in each split that has customers."""
        query = (
            "SELECT split, COUNT(*), AVG(units), MAX(units) FROM customers"
            " GROUP BY split"
        )
        return {split: CustomerCounts(*row) for split, *row in self._db.execute(query)}
