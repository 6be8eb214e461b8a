"""Whether what a labeler gave can be an answer to the task."""

from collections.abc import Sequence

from instructgpt.errors import shown
from instructgpt.evals.judgements import LIKERT
from instructgpt.labelling.interface import FLAGS, Rating, Task, Work


def why_not(work: Work, task: Task) -> str | None:
    """The reason why the work cannot be taken for the task; None if it can."""
    if work.skipped:
        return None
    if task.page == "demonstration":
        return None if work.response.strip() else "the demonstration is empty"
    if task.page == "rating":
        return _rating_of(work.ratings, len(task.answers))
    reason = None if is_ranking(work.ranks) else f"{_ranks(work)} are no ranking"
    if len(work.ranks) != len(task.answers):
        reason = f"{_ranks(work)} are of {len(work.ranks)} answers"
        reason += f", and {len(task.answers)} were shown"
    if reason is None and task.page == "final":
        reason = _rating_of(work.ratings, len(task.answers))
    return reason


def is_ranking(ranks: Sequence[int]) -> bool:
    """Whether ranks number answers from 1, with equal ones for a tie."""
    whole = all(type(rank) is int for rank in ranks)
    return whole and set(ranks) == set(range(1, len(set(ranks)) + 1))


def _ranks(work: Work) -> str:
    return f"ranks {shown(list(work.ranks))}"


def _rating_of(ratings: Sequence[Rating], shown_answers: int) -> str | None:
    """What is wrong with the ratings of the answers that were shown."""
    if len(ratings) != shown_answers:
        return f"{len(ratings)} answers are rated, and {shown_answers} were shown"
    low, high = map(int, LIKERT)
    for rating in ratings:
        likert = rating.likert
        if likert is None and not rating.flags:
            return "an answer has neither a Likert score nor flags"
        if likert is not None and not (type(likert) is int and low <= likert <= high):
            return f"the Likert score is {shown(likert)}, not one of {low} to {high}"
        for name, given in rating.flags.items():
            if name not in FLAGS or not isinstance(given, bool):
                return f"the flag {shown(name)} is {shown(given)}"
    return None
