"""Label Studio itself, for tests that are skipped where it is not installed."""

import functools
import os
import re
from typing import Any

import pytest
import requests

from instructgpt.labelling.environment import VARIABLE
from instructgpt.labelling.seats import Seat

needs_label_studio = pytest.mark.skipif(
    not os.environ.get(VARIABLE),
    reason=f"{VARIABLE} names no program label-studio of an environment of its own",
)
SECONDS = 60.0  # that a call may take


def by_token(seat: Seat) -> requests.Session:
    """A session with the API token of an account."""
    session = plain()
    session.headers["Authorization"] = f"Token {seat.token}"
    return session


def by_cookie(seat: Seat, password: str | None = None) -> requests.Session:
    """A session that has logged in on the page, as a browser does."""
    session = plain()
    page = f"{seat.address}/user/login/"
    form = session.get(page).text
    secret = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form).group(1)
    fields = {
        "email": seat.login,
        "password": seat.password if password is None else password,
        "csrfmiddlewaretoken": secret,
    }
    session.post(page, data=fields, headers={"Referer": page})
    session.headers["X-CSRFToken"] = session.cookies.get("csrftoken", "")
    session.headers["Referer"] = seat.address
    return session


def plain() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.request = functools.partial(session.request, timeout=SECONDS)
    return session


def ask(session: requests.Session, method: str, url: str, **more: Any) -> Any:
    """A call that must be granted; returns its JSON."""
    reply = session.request(method, url, **more)
    assert reply.ok, (method, url, reply.status_code, reply.text[:300])
    return reply.json()
