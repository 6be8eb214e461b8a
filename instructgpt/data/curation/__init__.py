"""Curates data like the paper: duplicates, caps, splits by customer, personal data.

`read_units` reads the lines of a file, `curate` decides about each, `Tally` describes
the kept ones, and `curate_files` does all three. The command is
`instructgpt/curate.py`.
"""

from instructgpt.data.curation.card import Card, Tally, card_to_json, render_card
from instructgpt.data.curation.files import Result, curate_files
from instructgpt.data.curation.ledger import Ledger
from instructgpt.data.curation.pii import find_pii
from instructgpt.data.curation.rules import REASONS, Outcome, Rules, curate
from instructgpt.data.curation.units import Unit, read_units

__all__ = [
    "REASONS",
    "Card",
    "Ledger",
    "Outcome",
    "Result",
    "Rules",
    "Tally",
    "Unit",
    "card_to_json",
    "curate",
    "curate_files",
    "find_pii",
    "read_units",
    "render_card",
]
