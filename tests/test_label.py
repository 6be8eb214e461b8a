"""The command `python -m instructgpt.label`, with plain files and without a server."""

import json
import stat

import pytest

from instructgpt import label
from instructgpt.labelling.room import Room
from instructgpt.labelling.seats import Seat, read_seats, write_seats
from tests.labelling import rooms, world_room

TEAM = ("--training=ann,ben,cem", "--heldout=dan,eva")


@pytest.fixture
def workdir(tmp_path):
    rooms.write_answers(tmp_path)
    return rooms.write_compared(tmp_path)


def run(action, workdir, *more):
    label.main([action, str(workdir), *more])


def fails(capsys, action, workdir, *more):
    with pytest.raises(SystemExit) as error:
        run(action, workdir, *more)
    text = str(error.value)
    assert text.startswith("error: ") and "\n" not in text
    return text


def do_files(workdir):
    """Every labeler ranks and rates what lies on the desk."""
    desks = workdir / "labelling" / "desks"
    for path in desks.glob("*.jsonl"):
        name, page = path.name.split(".")[:2]
        rows = []
        for task in rooms.read_lines(path):
            row = {"key": task["key"], "ranks": rooms.ranks_of(name, task["answers"])}
            if page == "final":
                row["ratings"] = [{"likert": 4}] * len(task["answers"])
            rows.append(row)
        rooms.write_lines(path.with_name(f"{name}.{page}.done.jsonl"), rows)


def test_files_from_setup_to_records(workdir, capsys):
    run("setup", workdir, "--files", *TEAM)
    run("send", workdir, "--files", "--labelers-per-prompt=2")
    out = capsys.readouterr().out
    assert "ann      ranking" in out and "dan      final" in out
    run("send", workdir, "--labelers-per-prompt=2")  # the room knows it has files
    assert "nothing new to send" in capsys.readouterr().out
    do_files(workdir)
    path = workdir / "labelling" / "desks" / "ann.ranking.done.jsonl"
    path.write_text(path.read_text() + "{\n")
    run("fetch", workdir)
    out = capsys.readouterr().out
    assert f"1 refused, and listed in {workdir}/labelling/refused.jsonl" in out
    assert "ann.ranking.done.jsonl:" in out
    assert "comparisons.test.jsonl, comparisons.train.jsonl, comparisons.valid" in out
    room = Room(workdir)
    assert len(rooms.read_lines(room.records / "comparisons.train.jsonl")) == 6
    assert len(rooms.read_lines(room.records / "judgements.jsonl")) == 3 * 3 * 4
    run("status", workdir)
    out = capsys.readouterr().out
    assert len([line for line in out.splitlines() if line.startswith("eva")]) == 2


def test_what_is_wrong_is_one_line(workdir, capsys, tmp_path):
    assert "no labelers yet" in fails(capsys, "send", workdir, "--files")
    assert "two groups" in fails(
        capsys, "setup", workdir, "--files", "--training=ann", "--heldout=ann"
    )
    run("setup", workdir, "--files", *TEAM)
    assert "cannot move to 'training'" in fails(
        capsys, "setup", workdir, "--files", "--training=dan"
    )
    assert "wants 3 labelers" in fails(capsys, "send", workdir)
    assert "--round=0: give 1 or more" in fails(capsys, "send", workdir, "--round=0")
    assert "name the prompts" in fails(capsys, "send", workdir, "--page=demonstration")
    other = tmp_path / "empty"
    run("setup", other, "--files", *TEAM)
    assert "nothing to send" in fails(capsys, "send", other)
    assert "only the miniature world" in fails(capsys, "simulate", workdir)
    assert not (workdir / "labelling" / "ledger.jsonl").exists()


def test_customers_in_two_splits_are_not_sent(workdir, capsys):
    run("setup", workdir, "--files", *TEAM)
    rows = rooms.answers("valid", 3)
    rows[1]["customer"] = "train customer 4"
    rooms.write_lines(workdir / "label" / "answers.valid.jsonl", rows)
    text = fails(capsys, "send", workdir, "--labelers-per-prompt=2")
    assert "valid ranking: 'valid-1' is by customer 'train customer 4'" in text
    assert not (workdir / "labelling" / "ledger.jsonl").exists()


def test_a_data_folder_that_mixes_draws_is_not_sent(workdir, capsys):
    run("setup", workdir, "--files", *TEAM)
    own = workdir / "own"
    for kind in ("prompts", "rm_prompts"):
        rooms.write_lines(own / f"{kind}.train.jsonl", [{"id": "p", "prompt": "Ask?"}])
    config = {"seed": 0, "data": {"jsonl": "../own"}}
    (workdir / "label" / "config.json").write_text(json.dumps(config))
    text = fails(capsys, "send", workdir, "--labelers-per-prompt=2")
    assert "own/prompts.train.jsonl: 'p' is also in" in text


def test_prompts_and_gold_items_of_ones_own(workdir, capsys):
    run("setup", workdir, "--files", *TEAM)
    prompts = rooms.write_lines(
        workdir / "ask.jsonl", [{"prompt": f"{i}?"} for i in "ab"]
    )
    gold = {"prompt": "Gold?", "responses": ["x", "y"], "ranks": [2, 1]}
    gold = rooms.write_lines(workdir / "gold.jsonl", [gold])
    run(
        "send",
        workdir,
        "--page=demonstration",
        "--page=ranking",
        f"--prompts={prompts}",
        f"--gold={gold}",
        "--number=1",
        "--labelers-per-prompt=1",
        "--repeats=1",
    )
    found = rooms.entries(Room(workdir))
    assert sum(one.page == "demonstration" for one in found) == 1
    assert sum(one.split == "gold" for one in found) == 5
    assert sum(bool(one.repeat_of) for one in found) == 3


def test_simulated_labelers_do_the_whole_round(tmp_path, capsys):
    workdir, _ = world_room.make(tmp_path, train=12, valid=3)
    run("setup", workdir, "--files", "--simulated")
    run("send", workdir, "--number=10")
    run("simulate", workdir)
    out = capsys.readouterr().out
    assert f"{10 + 18 + 10 * 6} tasks done by 20 simulated labelers" in out
    run("fetch", workdir)
    assert (
        len(rooms.read_lines(Room(workdir).records / "comparisons.train.jsonl")) == 10
    )


def test_a_given_server_has_a_token_for_each_labeler(workdir, capsys, monkeypatch):
    class Desk:
        def __init__(self, seat, *, title):
            self.labeler = seat.labeler

        def setup(self):
            return {"ranking": f"http://here/{self.labeler}"}

    monkeypatch.setattr("instructgpt.labelling.studio.StudioDesk", Desk)
    rows = [
        {"labeler": n, "token": f"secret {n}"} for n in ("ann", "ben", "cem", "dan")
    ]
    tokens = rooms.write_lines(workdir / "tokens.jsonl", rows)
    flags = ("--address=http://there:80/", f"--tokens={tokens}")
    text = fails(capsys, "setup", workdir, *TEAM, *flags)
    assert "labeler 'eva' has no token; add a row" in text
    assert "give both" in fails(capsys, "setup", workdir, "--address=http://there")
    rows.append({"labeler": "eva", "token": "secret eva", "address": "http://eva"})
    rooms.write_lines(tokens, rows)
    run("setup", workdir, *flags)
    out = capsys.readouterr().out
    assert "http://here/ann" in out and "labelers share a server" in out
    assert "secret" not in out
    seats = read_seats(workdir / "labelling")
    assert seats[4] == Seat("eva", "heldout", "http://eva", "", "", "secret eva")
    assert seats[0].address == "http://there:80"
    mode = (workdir / "labelling" / "seats.json").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    rooms.write_lines(tokens, [{"labeler": "fay", "token": "x"}])
    assert "tokens.jsonl:1: 'fay' is not" in fails(capsys, "setup", workdir, *flags)


def test_passwords_are_shown_when_asked_for_alone(workdir, capsys, monkeypatch):
    def start(folder, labelers, *, host, port):
        seats = [
            Seat(n, g, "http://x", f"{n}@here", "pass", "tok")
            for n, g in labelers.items()
        ]
        write_seats(folder, seats)
        return seats

    class Desk:
        def __init__(self, seat, *, title):
            assert title == workdir.name

        def setup(self):
            return {}

    monkeypatch.setattr("instructgpt.labelling.server.start", start)
    monkeypatch.setattr("instructgpt.labelling.studio.StudioDesk", Desk)
    run("start", workdir, *TEAM)
    out = capsys.readouterr().out
    assert "ann@here" in out and "tok" not in out and "pass\n" not in out
    run("setup", workdir, "--show-logins")
    out = capsys.readouterr().out
    assert "pass\n" in out and "tok" not in out


def test_help_says_what_each_action_does(capsys):
    for argv in (["--help"], *([name, "--help"] for name in label.ACTIONS)):
        with pytest.raises(SystemExit):
            label.main(argv)
    out = capsys.readouterr().out
    assert all(says in " ".join(out.split()) for _, says in label.ACTIONS.values())


def test_status_says_whether_the_servers_run(workdir, capsys):
    run("setup", workdir, "--files", *TEAM)
    run("status", workdir)
    assert "server" not in capsys.readouterr().out
    room = Room(workdir)
    seat = Seat("ann", "training", "http://127.0.0.1:1", "ann@localhost", "p", "t")
    write_seats(room.folder, [seat])
    run("status", workdir)
    assert "the servers do not run; start them again" in capsys.readouterr().out
