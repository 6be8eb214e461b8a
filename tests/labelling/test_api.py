"""Calls of the API: what is tried again, and the line that each mistake gives."""

import socket

import pytest

from instructgpt.errors import UserError
from instructgpt.labelling import api
from instructgpt.labelling.api import Api
from tests.labelling.fake_studio import USER, serving


@pytest.fixture
def studio(monkeypatch):
    monkeypatch.setattr(api, "_FIRST", 0.5)
    monkeypatch.setattr(api, "_LATER", 5.0)
    with serving() as studio:
        yield studio


def test_a_right_account_is_known_by_its_user(studio):
    assert Api(studio.seat()).check() == USER


def test_a_server_that_is_not_there(studio):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    seat = studio.seat()._replace(address=f"http://127.0.0.1:{port}")
    says = rf"^http://127.0.0.1:{port}: the server does not answer; see whether"
    with pytest.raises(UserError, match=says):
        Api(seat).check()


@pytest.mark.parametrize("address", ["nowhere", "http://", "ftp://x"])
def test_an_address_that_is_none(studio, address):
    with pytest.raises(UserError, match=r"is no address of a server"):
        Api(studio.seat()._replace(address=address)).check()


@pytest.mark.parametrize("release", ["1.22.9", "0.9.1"])
def test_a_server_that_is_too_old(studio, release):
    studio.release = release
    with pytest.raises(UserError, match=rf"runs Label Studio {release}, which is too"):
        Api(studio.seat()).check()


@pytest.mark.parametrize("release", [None, "next", ""])
def test_a_server_that_is_no_label_studio(studio, release):
    studio.release = release
    with pytest.raises(UserError, match=r"is no Label Studio"):
        Api(studio.seat()).check()


def test_a_wrong_token_is_named_by_its_labeler_and_not_shown(studio):
    with pytest.raises(UserError, match=r"refuses the token of labeler 'ann'") as error:
        Api(studio.seat("wr0ng")).check()
    assert "wr0ng" not in str(error.value)


def test_a_busy_server_is_asked_again(studio):
    studio.faults = {"GET /api/version/": [500, 429], "GET whoami": [503]}
    waits = []
    assert Api(studio.seat(), sleep=waits.append).check() == USER
    assert waits == [0.2, 0.4, 0.2]


def test_a_server_that_stays_busy_is_given_up(studio):
    studio.faults = {"GET whoami": [500] * 99}
    with pytest.raises(UserError, match=r"whoami gives 500; see whether Label Studio"):
        Api(studio.seat(), sleep=lambda _: None).check()


def test_what_is_refused_is_not_tried_again(studio):
    studio.faults = {"GET whoami": [403] * 9}
    with pytest.raises(UserError, match=r"whoami gives 403: 'database-is-locked"):
        Api(studio.seat()).check()
    assert studio.calls.count("GET /api/current-user/whoami") == 1


def test_no_proxy_is_asked_for_this_machine(studio, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert Api(studio.seat()).check() == USER
