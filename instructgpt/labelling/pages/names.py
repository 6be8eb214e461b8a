"""Names of the fields of the pages, shared by their layout and by what comes back."""

import string

RESPONSE, NOTE, RANKS = "response", "note", "ranks"
# What is shown: the key, the turns of the dialogue, the answers, and these as cards.
TASK, DIALOG, ANSWERS, CARDS = "task", "dialog", "answers", "cards"
UNRANKED = "_"  # Label Studio's own name for the cards that lie in no rank
MOST = 9  # answers that a page can show (§3.5)
YES, NO = "Yes", "No"


def likert(answer: int | str) -> str:
    """Field of the overall quality of an answer, which is counted from 0."""
    return f"likert_{answer}"


def flag(name: str, answer: int | str) -> str:
    """Field of a yes/no question about an answer."""
    return f"{name}_{answer}"


def rank(number: int) -> str:
    """Column of the cards of a rank, which is counted from 1."""
    return f"rank_{number}"


def card(answer: int) -> str:
    """Id of an answer's card: a, b, ... in the order shown; it says nothing else."""
    return string.ascii_lowercase[answer]
