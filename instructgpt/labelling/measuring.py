"""What came back as rows from which agreement and quality are computed (§3.4)."""

from collections.abc import Mapping

from instructgpt.evals.agreement.rows import Ranked
from instructgpt.labelling.interface import Page, Work
from instructgpt.labelling.ledger import Ledger

COMPARED: tuple[Page, ...] = ("ranking", "final")  # pages with ranks


def ranked_rows(
    ledger: Ledger, work: Mapping[str, Work], *, page: Page = "ranking"
) -> list[Ranked]:
    """The finished and skipped tasks of a page, in the order in which they were sent.

    Args:
      ledger: What was sent.
      work: What came back, by key.
      page: `ranking` or `final`.

    Returns:
      Rows whose answers are numbered as in their records. Those with one `id` are of
      one prompt, split and round.
    """
    rows = []
    for entry in ledger.entries.values():
        one = work.get(entry.key)
        if entry.page != page or one is None:
            continue
        task = entry.task
        texts = (*task.history, task.prompt, *task.answers)
        scores = [rating.likert for rating in one.ratings]
        rows.append(
            Ranked(
                id=f"{entry.split} {entry.round} {entry.item}",
                labeler=entry.labeler,
                ranks=() if one.skipped else tuple(entry.in_order(one.ranks)),
                group=entry.group,
                category=entry.record.get("category") or "",
                shown=entry.order,
                when=one.when,
                seconds=one.seconds,
                words=sum(len(text.split()) for text in texts),
                gold=entry.gold,
                repeat=bool(entry.repeat_of),
                likert=tuple(entry.in_order(scores)) if scores else (),
            )
        )
    return rows
