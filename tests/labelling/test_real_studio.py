"""Label Studio itself: what the desk makes of it, and who sees what."""

import re
import socket
import stat
from pathlib import Path

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling import server
from instructgpt.labelling.interface import FLAGS, Rating, Task, Work
from instructgpt.labelling.seats import read_seats
from instructgpt.labelling.studio import StudioDesk
from tests.labelling.real_studio import (
    ask,
    by_cookie,
    by_token,
    needs_label_studio,
    plain,
)

pytestmark = [needs_label_studio, pytest.mark.slow]
WHO = {"ann": "training", "dan": "heldout"}
TEXT = "An <b>answer</b> & more:\n\n    code\n😀 ä \\ \" ' " + "long " * 400
PAGES = {
    "demonstration": Task("d", "demonstration", ("Hi", "Hello."), "secret of dan"),
    "rating": Task("r", "rating", (), "secret of dan", (TEXT,)),
    "ranking": Task("k", "ranking", (), "p", tuple(f"{i} {TEXT}" for i in range(5))),
    "final": Task("f", "final", (), "p", tuple(f"{i} {TEXT}" for i in range(9))),
}
WORK = {
    "demonstration": Work("d", seconds=3.25, response=TEXT),
    "rating": Work("r", ratings=(Rating(4, dict.fromkeys(FLAGS, True)),), note=TEXT),
    "ranking": Work("k", ranks=(2, 1, 2, 3, 3), seconds=1.0),
    "final": Work(
        "f",
        ratings=tuple(Rating(i % 7 + 1, {"harmful_advice": i > 4}) for i in range(9)),
        ranks=(9, 8, 7, 6, 5, 4, 3, 2, 1),
        note="n",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mini") / "labelling"
    server.start(folder, WHO)
    yield folder
    server.stop(folder)


@pytest.fixture(scope="module")
def seats(folder):
    return {seat.labeler: seat for seat in read_seats(folder)}


@pytest.fixture(scope="module")
def dans(seats):
    """Dan's desk, with a task done on each page."""
    desk = StudioDesk(seats["dan"], title="mini")
    desk.setup()
    for page, task in PAGES.items():
        desk.put(page, [task, task._replace(key=f"{task.key}-skipped")])
        desk.submit(page, task.key, WORK[page])
        desk.submit(page, f"{task.key}-skipped", Work("", skipped=True, seconds=2.0))
    return desk


def test_what_is_handed_in_comes_back_from_every_page(dans):
    for page, task in PAGES.items():
        skipped = f"{task.key}-skipped"
        tasks = {task.key: task, skipped: task._replace(key=skipped)}
        dans.put(page, list(tasks.values()))
        done, left_out = dans.finished(page, tasks)
        assert done._replace(when="") == WORK[page]
        assert left_out == Work(skipped, skipped=True, seconds=2.0, when=left_out.when)
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", done.when)


def test_setup_again_changes_nothing(dans, seats):
    assert StudioDesk(seats["dan"], title="mini").setup() == dans.setup()


def test_a_skipped_task_and_a_done_one_do_not_come_again(dans, seats):
    session, url = by_token(seats["dan"]), dans.setup()["rating"]
    project = re.search(r"projects/(\d+)", url).group(1)
    reply = session.get(f"{seats['dan'].address}/api/projects/{project}/next/")
    assert reply.status_code == 404


def test_a_personal_access_token_serves_as_well(seats, dans):
    dan = seats["dan"]
    token = ask(by_token(dan), "POST", f"{dan.address}/api/token/")["token"]
    assert token.count(".") == 2
    assert StudioDesk(dan._replace(token=token), title="mini").setup() == dans.setup()
    wrong = dan._replace(token=token[:-9] + "wr0ngwr0n")
    with pytest.raises(UserError, match=r"refuses the token of labeler 'dan'"):
        StudioDesk(wrong, title="mini").setup()


def paths(seat):
    """Everything of a labeler's that has an id, as "METHOD path"."""
    session, at = by_token(seat), seat.address
    (project, *_) = (
        one["id"]
        for one in ask(session, "GET", f"{at}/api/projects/")["results"]
        if one["title"] == "mini: rating"
    )
    rows = ask(session, "GET", f"{at}/api/tasks/?project={project}&fields=all")
    task = next(row for row in rows["tasks"] if row["data"]["key"] == "r")
    user = ask(session, "GET", f"{at}/api/current-user/whoami")
    ids = {"project": project, "task": task["id"], "user": user["id"]}
    ids |= {"annotation": task["annotations"][0]["id"]}
    ids |= {"organization": user["active_organization"]}
    drafts = f"{at}/api/tasks/{ids['task']}/drafts"
    ids["draft"] = ask(session, "POST", drafts, json={"result": []})["id"]
    views = {"project": project, "data": {}}
    ids["view"] = ask(session, "POST", f"{at}/api/dm/views/", json=views)["id"]
    exports = f"{at}/api/projects/{project}/exports/"
    ids["export"] = ask(session, "POST", exports, json={})["id"]
    return [line.format(**ids) for line in PATHS.split("\n") if line]


PATHS = """
GET /api/projects/
GET /api/projects/{project}/
PATCH /api/projects/{project}/
GET /api/projects/{project}/next/
GET /api/projects/{project}/summary/
GET /api/projects/{project}/sample-task/
GET /api/projects/{project}/annotators/
GET /api/projects/{project}/export?exportType=JSON
GET /api/projects/{project}/exports/
GET /api/projects/{project}/exports/{export}
GET /api/projects/{project}/exports/{export}/download
POST /api/projects/{project}/import
GET /api/tasks/?project={project}
GET /api/tasks/?view={view}
GET /api/tasks/{task}/
PATCH /api/tasks/{task}/
DELETE /api/tasks/{task}/
GET /api/tasks/{task}/annotations/
POST /api/tasks/{task}/annotations/
GET /api/tasks/{task}/drafts
GET /api/annotations/{annotation}/
PATCH /api/annotations/{annotation}/
DELETE /api/annotations/{annotation}/
GET /api/drafts/{draft}/
GET /api/dm/views/{view}/
GET /api/dm/project/?project={project}
POST /api/dm/actions/?project={project}&id=delete_tasks
GET /api/users/
GET /api/users/{user}/
GET /api/organizations/{organization}
GET /api/organizations/{organization}/memberships
GET /api/invite
GET /api/storages/?project={project}
GET /api/storages/s3/?project={project}
GET /api/storages/export/s3?project={project}
POST /api/storages/s3/
GET /api/webhooks/?project={project}
GET /projects/{project}/data
GET /projects/{project}/data?labeling=1
GET /projects/{project}/settings/
GET /projects/{project}/data/export
GET /organization/
GET /user/account/
"""


def test_a_labeler_is_refused_everything_of_another_by_page_and_by_api(seats, dans):
    ann, dan = seats["ann"], seats["dan"]
    assert ann.address != dan.address
    lines = paths(dan)
    cookies = by_cookie(ann)
    assert cookies.get(f"{ann.address}/user/account/").ok  # ann is logged in at home
    granted = []
    for line in lines:
        method, _, path = line.partition(" ")
        body = None if method in ("GET", "DELETE") else {}
        for session in (by_token(ann), cookies, plain()):
            reply = session.request(
                method, dan.address + path, json=body, allow_redirects=False
            )
            to_login = "/user/login/" in reply.headers.get("Location", "")
            if reply.status_code not in (401, 403, 404) and not to_login:
                granted.append((line, reply.status_code))
            assert "secret of dan" not in reply.text
    assert not granted
    # All of it is still there.
    (work, _) = dans.finished("rating", {"r": PAGES["rating"]})
    assert work._replace(when="") == WORK["rating"]


def test_the_same_ids_at_home_show_nothing_of_another(seats, dans):
    ann, dan = seats["ann"], seats["dan"]
    StudioDesk(ann, title="mini").setup()
    lines = paths(dan)
    for line in lines:
        method, _, path = line.partition(" ")
        if method == "GET":
            for session in (by_token(ann), by_cookie(ann)):
                text = session.get(ann.address + path).text
                assert "secret of dan" not in text, line
                assert dan.login not in text, line


def test_nobody_signs_up(seats):
    ann = seats["ann"]
    page = f"{ann.address}/user/signup/"
    invitation = ask(by_token(ann), "GET", f"{ann.address}/api/invite")["token"]
    for token in ("", invitation, "x"):
        session = plain()
        form = session.get(page, params={"token": token}).text
        secret = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', form).group(1)
        fields = {
            "email": "eve@localhost",
            "password": "long enough",
            "csrfmiddlewaretoken": secret,
        }
        headers = {"Referer": page}
        reply = session.post(
            page, params={"token": token}, data=fields, headers=headers
        )
        assert reply.status_code == 403
    assert (
        not by_cookie(ann._replace(login="eve@localhost"), "long enough")
        .get(f"{ann.address}/api/current-user/whoami")
        .ok
    )


def test_no_password_is_a_default_one(seats):
    assert len({seat.password for seat in seats.values()}) == len(seats)
    assert len({seat.token for seat in seats.values()}) == len(seats)
    for seat in seats.values():
        assert min(len(seat.password), len(seat.token)) >= 16
        url = f"{seat.address}/api/current-user/whoami"
        assert by_cookie(seat).get(url).ok
        for login in (seat.login, "default_user@localhost", "admin@localhost"):
            for password in ("", "admin", "password", login):
                assert not by_cookie(seat._replace(login=login), password).get(url).ok


def test_the_admins_pages_are_closed_to_labelers(seats):
    for path in ("/admin/", "/django-rq/", "/data/local-files/?d=etc/passwd"):
        url = seats["ann"].address + path
        reply = by_cookie(seats["ann"]).get(url, allow_redirects=False)
        assert reply.status_code in (302, 403, 404)


def test_only_this_machine_is_listened_to(seats):
    for seat in seats.values():
        port = int(seat.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
        listeners = [
            line.split()[1]
            for table in Path("/proc/net").glob("tcp*")
            for line in table.read_text().splitlines()
            if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
        ]
        assert listeners in ([f"0100007F:{port:04X}"], [])  # [] without /proc


def test_no_secret_is_left_where_others_read_it(folder, seats):
    secrets = {text for seat in seats.values() for text in (seat.password, seat.token)}
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix in (".log", ".lock", ""):
            text = path.read_text(errors="replace")
            assert not [secret for secret in secrets if secret in text], path
    for path in (folder / "server").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "seats.json").stat().st_mode) == 0o600


def test_servers_are_started_once_and_keep_their_seats(folder, seats):
    assert server.is_running(folder)
    assert server.start(folder, {"dan": "heldout"}) == list(seats.values())
    with pytest.raises(UserError, match=r"'dan' is in the group 'heldout' and cannot"):
        server.start(folder, {"dan": "training"})
    taken = int(seats["ann"].address.rpartition(":")[2])
    with pytest.raises(UserError, match=r"the server of 'ann' runs at .* stop"):
        server.start(folder, {}, port=taken + 1)


def test_a_stopped_server_comes_back_as_it_was(folder, seats, dans):
    assert server.stop(folder)
    assert not server.is_running(folder)
    assert not server.stop(folder)
    assert server.start(folder, {}) == list(seats.values())
    works = dans.finished("ranking", {"k": PAGES["ranking"]})
    assert next(works)._replace(when="") == WORK["ranking"]
