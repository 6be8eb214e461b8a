"""Tables of the labelling: what was sent, what is done, where to log in."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from instructgpt.labelling.fetching import Fetched
from instructgpt.labelling.interface import PAGES, Page, Work
from instructgpt.labelling.ledger import Entry, Ledger
from instructgpt.labelling.room import Room
from instructgpt.labelling.seats import Seat
from instructgpt.labelling.sending import Delivered, Plan
from instructgpt.progress import format_duration, print_table

_FIRST = 5  # how many lines of a long list are printed
Log = Callable[[str], None]


def show_sent(planned: Plan, sent: Delivered, ledger: Ledger, log: Log) -> None:
    """Prints what a send put on desks by labeler and page, and where skips go."""
    if sent.counts:
        rows = [
            [labeler, page, str(number), str(_on_desk(ledger, labeler, page))]
            for (labeler, page), number in sorted(sent.counts.items())
        ]
        print_table(rows, ["labeler", "page", "new", "on the desk"])
    elif not sent.failed:
        log("nothing new to send")
    _list(
        "skipped tasks go to another labeler", map(_handed_on, planned.handed_on), log
    )
    _list(
        "skipped tasks go to nobody else: too often, or nobody is left",
        (f"{x.item!r}, skipped by {x.labeler}" for x in planned.given_up),
        log,
    )


def _on_desk(ledger: Ledger, labeler: str, page: Page) -> int:
    return sum(
        one.key in ledger.placed and one.labeler == labeler and one.page == page
        for one in ledger.entries.values()
    )


def _handed_on(entry: Entry) -> str:
    return f"{entry.item!r} to {entry.labeler}"


def show_fetched(fetched: Fetched, room: Room, ledger: Ledger, log: Log) -> None:
    """Prints what a fetch found, the first of what was refused, and the files."""
    show_status(room, ledger, fetched.work)
    log(f"{fetched.new} new or changed since the last fetch")
    _list(
        f"refused, and listed in {room.refused}",
        (f"{labeler}: {x.where}: {x.reason}" for labeler, x in fetched.refused),
        log,
    )
    if room.records.exists():
        names = sorted(x.name for x in room.records.iterdir() if x.name[0] != ".")
        log(f"{room.records}: {', '.join(names)}")


def show_status(room: Room, ledger: Ledger, work: Mapping[str, Work]) -> None:
    """Prints a table of tasks by labeler and page."""
    rows: list[Sequence[Any]] = []
    for labeler, group in room.groups.items():
        for page in PAGES:
            mine = [
                one
                for one in ledger.entries.values()
                if one.labeler == labeler and one.page == page
            ]
            if mine:
                rows.append([labeler, group, page, *_numbers(mine, ledger, work)])
    columns = ["labeler", "group", "page", "sent", "waiting", "done", "skipped", "time"]
    print_table(rows, columns)


def _numbers(
    entries: Sequence[Entry], ledger: Ledger, work: Mapping[str, Work]
) -> list[str]:
    """Tasks sent, waiting to be sent, done and skipped, and the time for one."""
    placed = sum(one.key in ledger.placed for one in entries)
    back = [work[one.key] for one in entries if one.key in work]
    done = [one for one in back if not one.skipped]
    mean = sum(one.seconds for one in done) / max(1, len(done))
    return [
        str(placed),
        str(len(entries) - placed),
        str(len(done)),
        str(len(back) - len(done)),
        format_duration(mean),
    ]


def show_seats(
    seats: Sequence[Seat], urls: Mapping[str, Mapping[Page, str]], *, logins: bool
) -> None:
    """Prints where each labeler works.

    Args:
      seats: The labelers' accounts.
      urls: The addresses of the pages of each labeler.
      logins: Whether passwords are printed too, to be handed to the labelers.
    """
    rows = []
    for seat in seats:
        row = [seat.labeler, seat.group, seat.address, seat.login]
        rows.append([*row, seat.password or "–"] if logins else row)
    columns = ["labeler", "group", "address", "login"]
    print_table(rows, [*columns, "password"] if logins else columns)
    pages = [
        [labeler, page, url]
        for labeler, own in urls.items()
        for page, url in own.items()
    ]
    if pages:
        print_table(pages, ["labeler", "page", "url"])


def _list(what: str, lines: Any, log: Log) -> None:
    lines = list(lines)
    if lines:
        log(f"{len(lines)} {what}")
        for line in lines[:_FIRST]:
            log(f"  {line}")
        if len(lines) > _FIRST:
            log(f"  and {len(lines) - _FIRST} more")
