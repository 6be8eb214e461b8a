"""Calls of Label Studio's HTTP API, with an account's token.

The vendor's SDK is not used: it pins other versions of NumPy and of some thirty
packages than this environment has, and a handful of calls need none of it.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests

from instructgpt.errors import UserError, shown
from instructgpt.labelling.environment import VERSION
from instructgpt.labelling.seats import Seat

OLDEST = (1, 23)  # of the releases of Label Studio whose API is spoken here
_TIMEOUT = 120.0  # seconds that one call may take
_FIRST, _LATER = 5.0, 120.0  # seconds of trying before and after the first reply
_BUSY = {408, 425, 429, 500, 502, 503, 504}  # a locked database is a 500
_T = TypeVar("_T")


class _BusyError(Exception):
    """A call that did not come through, which may do so a little later."""


class Api:
    """Label Studio as one account sees it.

    Args:
      seat: The account.
      sleep: Waits for some seconds; replaced in tests.
    """

    def __init__(self, seat: Seat, *, sleep: Callable[[float], None] = time.sleep):
        self.address = seat.address.rstrip("/")
        self._seat = seat
        self._sleep = sleep
        self._patience = _FIRST
        self._bearer = ""  # short-lived, in exchange for a personal access token
        self._session = requests.Session()
        # A proxy that the machine has is not asked for the machine itself.
        local = urlsplit(self.address).hostname in ("127.0.0.1", "localhost", "::1")
        self._session.trust_env = not local
        self._session.auth = self._sign

    def check(self) -> int:
        """Checks the server and the token; returns the id of the account's user.

        Raises:
          UserError: the server is not there or too old, or refuses the token.
        """
        release = self.get("/api/version/", signed=False).get("release")
        try:
            numbers = tuple(int(n) for n in str(release).split(".")[:2])
        except ValueError as error:
            raise UserError(f"{self.address}: is no Label Studio") from error
        if numbers < OLDEST:
            raise UserError(
                f"{self.address}: runs Label Studio {release}, which is too old; "
                f"install {VERSION}"
            )
        return int(self.get("/api/current-user/whoami")["id"])

    def get(self, path: str, *, signed: bool = True, **query: Any) -> dict[str, Any]:
        """What a path gives; tried again as long as the server is busy."""
        return self.insist(lambda: self.call("GET", path, signed=signed, query=query))

    def pages(self, path: str, part: str, **query: Any) -> Iterator[dict[str, Any]]:
        """The elements of a list that the server gives page by page.

        Args:
          path: The list's path.
          part: Key of the elements in a page.
          query: The query; `page_size` is one of its parts.
        """
        number, seen, total = 1, 0, 1
        while seen < total:
            reply = self.get(path, page=number, **query)
            total = int(reply.get("total", reply.get("count", 0)))
            if not reply.get(part):
                break
            seen += len(reply[part])
            yield from reply[part]
            number += 1

    def insist(self, attempt: Callable[[], _T]) -> _T:
        """Repeats an attempt until it comes through.

        A call that seems to have failed may have done its work. So an attempt that
        makes something looks first whether it is there.

        Raises:
          UserError: it did not come through for a while.
        """
        end, pause = time.monotonic() + self._patience, 0.2
        while True:
            try:
                return attempt()
            except _BusyError as error:
                if time.monotonic() + pause > end:
                    raise UserError(
                        f"{self.address}: {error}; see whether Label Studio runs "
                        "there, and start the same line again: nothing is lost"
                    ) from error
            self._sleep(pause)
            pause = min(2 * pause, 5.0)

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Any = None,
        signed: bool = True,
    ) -> dict[str, Any]:
        """One call, to be made within `insist`.

        Raises:
          UserError: the server refuses it.
        """
        what = f"{method} {path}"
        try:
            if signed:
                self._exchange()
            reply = self._session.request(
                method,
                self.address + path,
                json=body,
                params=query,
                timeout=_TIMEOUT,
                auth=self._sign if signed else _unsigned,
                allow_redirects=False,
            )
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _BusyError("the server does not answer") from error
        except requests.RequestException as error:
            raise UserError(f"{self.address}: is no address of a server") from error
        if reply.status_code in _BUSY:
            raise _BusyError(f"{what} gives {reply.status_code}")
        self._patience = _LATER
        if reply.status_code == 401:
            if self._bearer:  # it lasts some minutes
                self._bearer = ""
                raise _BusyError("the token has run out")
            self._refuse_token()
        if not reply.ok:
            raise UserError(
                f"{self.address}: {what} gives {reply.status_code}: {_reason(reply)}"
            )
        if not reply.content:
            return {}
        try:
            return reply.json()
        except ValueError as error:
            raise UserError(f"{self.address}: is no Label Studio") from error

    def _refuse_token(self) -> None:
        raise UserError(
            f"{self.address}: refuses the token of labeler {self._seat.labeler!r}; "
            "copy it anew from the account's page, Account & Settings"
        )

    def _sign(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        scheme = "Bearer" if self._bearer else "Token"
        token = self._bearer or self._seat.token
        request.headers["Authorization"] = f"{scheme} {token}"
        return request

    def _exchange(self) -> None:
        """Gets a short-lived token for a personal access token, a JWT of three parts.

        The legacy tokens of own servers are used as they are.
        """
        if self._bearer or self._seat.token.count(".") != 2:
            return
        reply = self._session.post(
            f"{self.address}/api/token/refresh/",
            json={"refresh": self._seat.token},
            timeout=_TIMEOUT,
            auth=_unsigned,
        )
        if reply.status_code in _BUSY:
            raise _BusyError(f"the exchange of the token gives {reply.status_code}")
        if not reply.ok:
            self._refuse_token()
        self._bearer = reply.json()["access"]


def _unsigned(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _reason(reply: requests.Response) -> str:
    try:
        said = reply.json()
    except ValueError:
        return "no reason"
    if not isinstance(said, dict):
        return shown(said)
    return shown(said.get("validation_errors") or said.get("detail") or said)
