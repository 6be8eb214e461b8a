"""People in the loop: sends answers to labelers, and fetches their rankings (§3.4).

    python -m instructgpt.label start WORKDIR --training=ann,ben --heldout=cem
    python -m instructgpt.label send WORKDIR
    python -m instructgpt.label fetch WORKDIR

WORKDIR is a recipe's workdir. `start` runs a server of Label Studio on this machine and
shows where each labeler works. `send` puts tasks there: rankings of the answers that
the label stage sampled (WORKDIR/label), judgements of compared models' answers
(WORKDIR/evaluate), or prompts to write demonstrations for. `fetch` writes what is done
to WORKDIR/labelling/records, in the form that the stages read. With --files there is no
server, but a file for each labeler in WORKDIR/labelling/desks.

All of it can be repeated: what was sent is not sent again, and a command that was
stopped is started again with the same line. Held-out labelers get no training data.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from instructgpt.data.draws import Draw, check_draws, check_folder
from instructgpt.errors import UserError
from instructgpt.evals.preference import HELD_OUT
from instructgpt.identity import CONFIG, TO_JUDGE
from instructgpt.labelling import items as asking
from instructgpt.labelling import seats as seating
from instructgpt.labelling.fetching import fetch, read_work
from instructgpt.labelling.interface import PAGES, Page
from instructgpt.labelling.items import EVALUATE, LABEL, Item
from instructgpt.labelling.ledger import Ledger
from instructgpt.labelling.measuring import COMPARED, ranked_rows
from instructgpt.labelling.plain import PlainDesk
from instructgpt.labelling.room import TRAINING, Room, read_labelers
from instructgpt.labelling.seats import Seat
from instructgpt.labelling.sending import deliver, plan
from instructgpt.labelling.showing import (
    show_fetched,
    show_seats,
    show_sent,
    show_status,
)
from instructgpt.labelling.simulated import AT_ONCE, Simulated, groups_of, simulate
from instructgpt.labelling.tokens import SHARED, given_seats
from instructgpt.outputs import in_one_line, new_file
from instructgpt.paths import from_shell, resolve
from instructgpt.reading import read_object


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; a mistake ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, (_, says) in ACTIONS.items():
        sub = actions.add_parser(name, help=says, description=says, allow_abbrev=False)
        sub.add_argument("workdir", help="the recipe's workdir, or another folder")
        add = sub.add_argument
        if name in ("start", "setup"):
            _add_labelers(add)
            add(
                "--show-logins",
                action="store_true",
                help="print the passwords too, to hand them to the labelers",
            )
        if name == "start":
            add("--host", default="127.0.0.1", help="address to listen at")
            add(
                "--port",
                type=int,
                default=0,
                help="0: that of last time, or a free one",
            )
        if name in ("setup", "send", "fetch", "simulate"):
            add("--files", action="store_true", help="plain files, and no server")
        if name == "setup":
            add("--address", default="", help="a server that runs already")
            add(
                "--tokens",
                default="",
                metavar="FILE",
                help="rows with labeler and token, for --address",
            )
        if name == "send":
            _add_sending(add)
        if name == "agreement":
            add(
                "--page",
                choices=COMPARED,
                default="ranking",
                help="whose rankings are compared (%(default)s)",
            )
        if name == "screen":
            add("--reference", required=True, metavar="FILE", help="the right answers")
            add("--candidate", required=True, metavar="FILE", help="the candidate's")
        if name == "simulate":
            add("--number", type=int, default=0, help="tasks of each; 0: all")
            add("--at-once", type=int, default=AT_ONCE, help="labelers at a time")
    return parser.parse_args(argv)


def _add_labelers(add: Callable[..., Any]) -> None:
    add("--training", default="", metavar="NAME,...", help="labelers for training data")
    add(
        "--heldout", default="", metavar="NAME,...", help="labelers for evaluation only"
    )
    add("--labelers", default="", metavar="FILE", help="rows with name and group")
    add("--simulated", action="store_true", help="those of the miniature world")


def _add_sending(add: Callable[..., Any]) -> None:
    add(
        "--page",
        action="append",
        choices=PAGES,
        help="what is asked; by default all that the workdir has answers for",
    )
    add("--prompts", default="", metavar="FILE", help="prompts to demonstrate")
    add("--gold", default="", metavar="FILE", help="rankings known to be right")
    add("--number", type=int, default=0, help="prompts of each split; 0: all")
    add(
        "--labelers-per-prompt", type=int, default=3, help="of each group (%(default)s)"
    )
    add("--train-labelers", type=int, default=1, help="of a training prompt")
    add("--repeats", type=float, default=0.0, help="share that is asked twice")
    add("--round", type=int, default=1, help="of sampling and labelling, from 1")
    add("--seed", type=int, help="by default that of the label stage, or 0")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs an action; a user's mistake ends in one line."""
    args = parse(argv)
    args.workdir = Path(from_shell(args.workdir))
    act, _ = ACTIONS[args.action]
    try:
        act(args, Room(args.workdir))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args.workdir)}")


def _log(line: str) -> None:
    print(line, flush=True)


def _name_labelers(args: argparse.Namespace, room: Room) -> None:
    """Adds the labelers of the command line to the room."""
    named: list[tuple[str, str]] = []
    for group, text in ((TRAINING, args.training), (HELD_OUT, args.heldout)):
        named += [(name.strip(), group) for name in text.split(",") if name.strip()]
    if args.labelers:
        named += read_labelers(Path(from_shell(args.labelers))).items()
    if args.simulated:
        named += groups_of(Simulated(args.workdir).world).items()
    last = dict(named)
    twice = [name for name, group in named if last[name] != group]
    if twice:
        raise UserError(f"labeler {twice[0]!r} is named in two groups; choose one")
    room.lock(_log)
    if named:
        room.add(last)
    room.need_labelers()


def _start(args: argparse.Namespace, room: Room) -> None:
    from instructgpt.labelling import server

    _name_labelers(args, room)
    seats = server.start(room.folder, room.groups, host=args.host, port=args.port)
    _open_pages(args, seats)


def _setup(args: argparse.Namespace, room: Room) -> None:
    _name_labelers(args, room)
    if args.files:
        room.desks.mkdir(parents=True, exist_ok=True)
        _log(f"{room.desks}: a file for each labeler will lie here")
        return
    if args.address or args.tokens:
        if not (args.address and args.tokens):
            raise UserError("give both --address and --tokens, or neither")
        path = Path(from_shell(args.tokens))
        given = given_seats(path, room.groups, address=args.address)
        seating.write_seats(room.folder, given)
        if len({seat.address for seat in given}) < len(given):
            _log(SHARED)
    _open_pages(args, seating.read_seats(room.folder))


def _open_pages(args: argparse.Namespace, seats: Sequence[Seat]) -> None:
    """Makes each labeler's projects, and prints where they are."""
    from instructgpt.labelling.studio import StudioDesk

    title = args.workdir.name
    urls = {seat.labeler: StudioDesk(seat, title=title).setup() for seat in seats}
    show_seats(seats, urls, logins=args.show_logins)
    if not args.show_logins:
        _log("--show-logins prints the passwords, to hand them to the labelers")


def _desks(args: argparse.Namespace, room: Room) -> dict[str, Any]:
    """The desk of every labeler."""
    room.need_labelers()
    seats_file = room.folder / seating.SEATS
    if args.files or (room.desks.exists() and not seats_file.exists()):
        return {name: PlainDesk(room.desks, name) for name in room.groups}
    from instructgpt.labelling.studio import StudioDesk

    title = args.workdir.name
    seats = seating.read_seats(room.folder)
    for seat in seats:
        if room.groups.get(seat.labeler) != seat.group:
            raise UserError(
                f"{seats_file}: {seat.labeler!r} of the group {seat.group!r} is not "
                f"among the labelers of {room.folder}; take the seat out"
            )
    return {seat.labeler: StudioDesk(seat, title=title) for seat in seats}


def _seed(args: argparse.Namespace) -> int:
    path = args.workdir / LABEL / CONFIG
    if args.seed is not None:
        return args.seed
    return int(read_object(path)["seed"]) if path.exists() else 0


def _wanted(args: argparse.Namespace, room: Room) -> list[Item]:
    """The items that the command line asks for."""
    has_final = (args.workdir / EVALUATE / TO_JUDGE).exists()
    by_default: list[Page] = ["ranking", "final"] if has_final else ["ranking"]
    pages: list[Page] = args.page or by_default
    several = {"number": args.number, "labelers_per_prompt": args.labelers_per_prompt}
    found: list[Item] = []
    if args.prompts and ("demonstration" in pages or not args.page):
        prompts = asking.demonstration_items(from_shell(args.prompts))
        found += prompts[: args.number or None]
    elif "demonstration" in pages:
        raise UserError("--page=demonstration: name the prompts, --prompts=FILE")
    if "ranking" in pages:
        ranking = {**several, "train_labelers": args.train_labelers}
        found += asking.ranking_items(args.workdir, room, **ranking)
        if args.gold:
            found += asking.gold_items(from_shell(args.gold), room)
    if "final" in pages:
        found += asking.final_items(args.workdir, room, **several)
    if "rating" in pages:
        found += asking.rating_items(args.workdir, room, **several)
    if not found:
        raise UserError(
            f"{args.workdir}: nothing to send; run the label stage with "
            "config.label.ranked_by='people', which leaves answers.train.jsonl, or "
            "name prompts to demonstrate, --prompts=FILE"
        )
    return found


def _check_held_out(args: argparse.Namespace, room: Room, wanted: list[Item]) -> None:
    """Raises UserError if customers, prompts or labelers are in two places."""
    path = args.workdir / LABEL / CONFIG
    own = read_object(path)["data"].get("jsonl") if path.exists() else ""
    if own:
        check_folder(resolve(own, args.workdir / LABEL))
    check_folder(room.records)
    check_draws(
        Draw(
            "rm_prompts" if page == "ranking" else "demonstrations",
            split,
            f"{split} {page}",
            [x.record for x in wanted if (x.page, x.split) == (page, split)],
        )
        for page in ("ranking", "demonstration")
        for split in ("train", "valid", "test")
    )


def _send(args: argparse.Namespace, room: Room) -> None:
    for name, least in (("number", 0), ("labelers_per_prompt", 1), ("round", 1)):
        if getattr(args, name) < least:
            raise UserError(f"--{name}={getattr(args, name)}: give {least} or more")
    desks = _desks(args, room)
    wanted = _wanted(args, room)
    _check_held_out(args, room, wanted)
    room.lock(_log)
    ledger = Ledger(room.ledger)
    work = read_work(room.work)
    planned = plan(
        wanted,
        room,
        ledger,
        seed=_seed(args),
        round_number=args.round,
        repeats=args.repeats,
        skipped=[key for key, one in work.items() if one.skipped],
    )
    ledger.add(planned.entries)
    sent = deliver(ledger, desks)
    show_sent(planned, sent, ledger, _log)
    _tell_failed(sent.failed, len(desks), "send")


def _fetch(args: argparse.Namespace, room: Room) -> None:
    desks = _desks(args, room)
    room.lock(_log)
    ledger = Ledger(room.ledger)
    fetched = fetch(room, ledger, desks)
    show_fetched(fetched, room, ledger, _log)
    _tell_failed(fetched.failed, len(desks), "fetch")


def _tell_failed(failed: dict[str, str], total: int, action: str) -> None:
    """Raises UserError if a desk could not be reached; the others' work is done."""
    if failed:
        first = next(iter(failed.values()))
        raise UserError(
            f"{len(failed)} of {total} desks could not be reached: {first}; mend that, "
            f"and {action} again"
        )


def _status(args: argparse.Namespace, room: Room) -> None:
    from instructgpt.labelling import server

    room.need_labelers()
    show_status(room, Ledger(room.ledger), read_work(room.work))
    if server.has_own(room.folder):
        runs = server.is_running(room.folder)
        _log("the servers run" if runs else "the servers do not run; start them again")


def _stop(args: argparse.Namespace, room: Room) -> None:
    from instructgpt.labelling import server

    stopped = server.stop(room.folder)
    _log("the server has stopped" if stopped else "no server ran here")


def _agreement(args: argparse.Namespace, room: Room) -> None:
    from instructgpt.evals.agreement.report import agreement_report, format_agreement

    rows = ranked_rows(Ledger(room.ledger), read_work(room.work), page=args.page)
    if not rows:
        raise UserError(
            f"{room.work}: no {args.page} task has come back; run python -m "
            "instructgpt.label fetch WORKDIR once some are done"
        )
    folder = room.folder / "agreement" / args.page
    _log(format_agreement(agreement_report(rows, folder)))
    _log(f"report: {folder / 'agreement.html'}")


def _screen(args: argparse.Namespace, room: Room) -> None:
    from instructgpt.evals.agreement.screening import screen

    found = screen(from_shell(args.candidate), from_shell(args.reference))
    path = room.folder / "screening" / f"{found.candidate}.json"
    with new_file(path) as partial:
        partial.write_text(json.dumps(found.as_json(), indent=2) + "\n")
    _log(found.table())
    _log(f"written to {path}")


def _simulate(args: argparse.Namespace, room: Room) -> None:
    desks = _desks(args, room)
    simulated = Simulated(args.workdir)
    simulated.check(room)
    done = simulate(
        Ledger(room.ledger), desks, simulated, number=args.number, at_once=args.at_once
    )
    _log(f"{sum(done.values())} tasks done by {len(done)} simulated labelers")


Action = Callable[[argparse.Namespace, Room], None]
ACTIONS: dict[str, tuple[Action, str]] = {
    "start": (_start, "run a server for the labelers here, and show their pages"),
    "setup": (_setup, "name labelers; make their pages, on a server or as files"),
    "send": (_send, "put tasks on the labelers' desks; only what is new"),
    "fetch": (_fetch, "make records of what is done"),
    "status": (_status, "what each labeler was sent and has done"),
    "stop": (_stop, "stop the server of this workdir"),
    "agreement": (_agreement, "measure whether labelers agree, and how each works"),
    "screen": (_screen, "compare a candidate labeler's answers with the right ones"),
    "simulate": (_simulate, "have the miniature world's labelers do the tasks"),
}


if __name__ == "__main__":
    main()
