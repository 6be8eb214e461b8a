"""What has been kept so far, on disk: prefixes seen, and prompts of each customer.

An SQLite file with a page cache of fixed size, so memory does not grow with the number
of rows. A row takes some 30 bytes on disk (8 for the hash, the rest for the id). The
file is of use during one run only, so it is neither journalled nor synced.
"""

import os
import sqlite3
from typing import NamedTuple

CACHE_KIB = 32 * 1024  # bounds the memory of a ledger


class CustomerCounts(NamedTuple):
    """Customers of one split, and how many units each has."""

    customers: int
    mean: float
    max: int


class Ledger:
    """Units kept, by the 64-bit hashes of their prefixes and customers."""

    def __init__(self, path: str | os.PathLike[str]):
        """Makes the file, which must not exist yet."""
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
        """The id that holds the prefix already; None if it is `unit_id`'s from now."""
        cursor = self._db.execute(
            "INSERT OR IGNORE INTO prefixes VALUES (?, ?)", (prefix, unit_id)
        )
        if cursor.rowcount:
            return None
        query = "SELECT id FROM prefixes WHERE hash = ?"
        return self._db.execute(query, (prefix,)).fetchone()[0]

    def release_prefix(self, prefix: int) -> None:
        """Lets another unit claim the prefix."""
        self._db.execute("DELETE FROM prefixes WHERE hash = ?", (prefix,))

    def count(self, customer: int, split: str, *, cap: int) -> bool:
        """Counts one more unit of the customer, unless it has `cap`; whether it did."""
        cursor = self._db.execute(
            "INSERT INTO customers VALUES (?, ?, 1)"
            " ON CONFLICT DO UPDATE SET units = units + 1 WHERE units < ?",
            (customer, split, cap),
        )
        return cursor.rowcount == 1

    def split_of(self, customer: int) -> str | None:
        """The split of the customer's first unit; None before that."""
        query = "SELECT split FROM customers WHERE hash = ?"
        found = self._db.execute(query, (customer,)).fetchone()
        return found[0] if found else None

    def customer_counts(self) -> dict[str, CustomerCounts]:
        """Units per customer in each split that has customers."""
        query = (
            "SELECT split, COUNT(*), AVG(units), MAX(units) FROM customers"
            " GROUP BY split"
        )
        return {split: CustomerCounts(*row) for split, *row in self._db.execute(query)}
