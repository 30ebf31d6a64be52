"""A small HTTP client for commands: one request at a time, on Python's own library, which loads fast.

A server that was there once is waited for: it may restart. One that was never there is reported at once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request

from server import __version__
from server.cli.opener import new_opener
from server.cli.output import remark
from server.cli.settings import Settings, config_directory
from server.cli.trouble import Code, Trouble

Json = dict[str, Any]
Query = Mapping[str, Any]

ANSWER_S = 30.0
"""How long an answer may take, beyond what it was asked to wait."""
WAIT_S = 25
"""How long a server may let us wait for news: there are proxies that cut connections that are silent for 30 s."""
SILENCE_S = 40.0
"""A stream that says nothing for so long is broken: servers send something every 15 s."""
PATIENCE_S = 300.0
"""How long a server is waited for that was there once."""
ONCE_S = 10.0
"""How long a command that asks only once waits for one that is just restarting."""
BREAK_S = 0.2
"""Between an answer that broke and the next try, so that one that breaks at once does not spin."""
LONGEST_BREAK_S = 5.0
PASSING = (429, 502, 503, 504)
LONGEST_ERROR = 64 * 1024


class Refused(Trouble):
    """The server's answer is an error."""

    def __init__(self, status: int, message: str, hints: list[str]) -> None:
        wrong = 300 <= status < 500 and status != 429
        unavailable = status in PASSING and status != 429
        super().__init__(
            message, *hints, code=Code.USAGE if wrong else Code.UNREACHABLE if unavailable else Code.FAILED
        )
        self.status = status


class Unreachable(Trouble):
    """No server answers."""


class Strange(Trouble):
    """Something answers that is no Pollux, or one of another version."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(
            f"what answers at {url} is no Pollux of version {__version__}: {why}", SAY_WHERE, code=Code.UNREACHABLE
        )


class Answer(NamedTuple):
    body: Json
    etag: str


class _Object(dict[str, Any]):
    """An object of an answer. To look for something in vain is no fault of ours."""

    def __init__(self, found: Json, url: str) -> None:
        super().__init__(found)
        self._url = url

    def __missing__(self, name: str) -> None:
        raise Strange(self._url, f"{name!r} is missing")


class Client:
    """Asks one server. `on_away` is told why it does not answer while it is waited for, and None when it does again."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.on_away: Callable[[Trouble | None], None] = self._remark
        self._reached = False
        self._away: Trouble | None = None
        self._opener = new_opener(settings.url)

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        patience_s: float = ONCE_S,
    ) -> Answer:
        """The object of an answer, and its entity tag. The path is relative to `/v1/`, unless it begins with a slash.

        Raises:
            Refused, Unreachable

        """
        began = time.monotonic()
        while True:
            left_s = patience_s - (time.monotonic() - began)
            with self.open(
                method, path, body, query=query, headers=headers, silence_s=ANSWER_S + wait_s, patience_s=left_s
            ) as answer:
                try:
                    return Answer(self.parsed(answer.read()), answer.headers.get("ETag") or "")
                except (OSError, HTTPException) as error:  # it broke on the way
                    broken = self._unreachable(error)
            if time.monotonic() - began + BREAK_S > patience_s:
                raise broken
            self.away(broken)
            time.sleep(BREAK_S)

    def get(self, path: str, query: Query | None = None, **options: Any) -> Json:
        """The object of an answer to GET."""
        return self.call("GET", path, query=query, **options).body

    @contextmanager
    def open(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        silence_s: float = SILENCE_S,
        patience_s: float = ONCE_S,
    ) -> Iterator[HTTPResponse]:
        """An answer with status 200, to be read inside the block; leaving the block hangs up.

        Raises:
            Refused, Unreachable

        """
        request = self._request(method, path, body, query, headers)
        answer = self._persistently(lambda: self._opener.open(request, timeout=silence_s), patience_s)
        with answer:
            yield answer

    def parsed(self, raw: bytes) -> Json:
        """An object of an answer, or of an event.

        Raises:
            Strange: it is none; and where something is looked for in it, or in those inside of it, in vain

        """
        url = self.settings.url
        try:
            found = json.loads(raw, object_hook=lambda found: _Object(found, url))
        except ValueError:
            raise Strange(url, "it does not speak JSON") from None
        if not isinstance(found, _Object):
            raise Strange(url, "it answers with no object")
        return found

    def away(self, trouble: Trouble) -> None:
        """Tell that the server does not answer as it should, and will be asked again."""
        self.on_away(trouble)
        self._away = trouble

    def _remark(self, trouble: Trouble | None) -> None:
        if trouble is not None and self._away is None:
            remark(f"{trouble.headline}; trying again …")

    def _persistently(self, ask: Callable[[], Any], patience_s: float) -> Any:
        deadline, pause_s = time.monotonic() + patience_s, 0.1
        while True:
            wait_s: float | None = None
            try:
                answer = ask()
            except HTTPError as error:
                self._reached = True
                trouble: Trouble = self._refusal(error)
                if error.code in PASSING:
                    wait_s = max(pause_s, _seconds(error.headers.get("Retry-After")))
            except (URLError, OSError, HTTPException) as error:
                trouble = self._unreachable(error)
                # What fails while it connects is a URLError. Whatever breaks later, somebody is there.
                self._reached |= not isinstance(error, URLError)
                if self._reached:
                    wait_s = pause_s
            else:
                self._reached = True
                if self._away is not None:
                    self._away = None
                    self.on_away(None)
                return answer
            if wait_s is None or time.monotonic() + wait_s > deadline:
                raise trouble
            self.away(trouble)
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, LONGEST_BREAK_S)

    def _request(
        self, method: str, path: str, body: Json | None, query: Query | None, headers: Mapping[str, str] | None
    ) -> Request:
        given = {name: value for name, value in (query or {}).items() if value not in (None, "", [], ())}
        place = path if path.startswith("/") else f"/v1/{path}"
        url = f"{self.settings.url}{place}" + (f"?{urlencode(given, doseq=True)}" if given else "")
        data = None if body is None else json.dumps(body).encode()
        # The scheme was checked: it is http or https.
        request = Request(url, data=data, method=method)  # noqa: S310
        request.add_header("User-Agent", f"pollux/{__version__}")
        if data is not None:
            request.add_header("Content-Type", "application/json")
        if self.settings.key:
            request.add_header("Authorization", f"Bearer {self.settings.key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        return request

    def _refusal(self, error: HTTPError) -> Refused:
        status, url = error.code, self.settings.url
        with error:
            raw = error.read(LONGEST_ERROR)
        if 300 <= status < 400:
            to = error.headers.get("Location", "elsewhere")
            return Refused(status, f"{url} leads to {to}: is the address right?", [SAY_WHERE])
        try:
            message = str(json.loads(raw)["error"]["message"])
        except (ValueError, LookupError, TypeError):
            return Refused(status, f"{url} answered {status} {error.reason}, and not as Pollux does", [SAY_WHERE])
        hints = []
        if status == 401:
            hints.append(f"Set POLLUX_API_KEY, or key in {config_directory() / 'config.toml'}, for {url}.")
        elif status == 404 and "esponse with id" in message:
            hints.append(UNKNOWN)
        elif status == 404 and urlsplit(error.url).path in message:
            hints.append(SAY_WHERE)
        return Refused(status, message, hints)

    def _unreachable(self, error: Exception) -> Unreachable:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        reason = getattr(reason, "strerror", None) or reason
        said = str(reason) or type(error).__name__
        hints = next((hints for sign, hints in TLS_HINTS.items() if sign in said), (SAY_WHERE, START))
        return Unreachable(f"{self.settings.url} can't be reached: {said}", *hints, code=Code.UNREACHABLE)


UNKNOWN = "It may have expired, or be another key's: a key sees its own, the master key sees all."
TLS_HINTS = {
    "mismatch": ("Name the server as its certificate does.",),
    "CERTIFICATE_VERIFY": (
        "To trust another authority than those of this machine: SSL_CERT_FILE=/path/to/its/certificate.pem",
    ),
    "WRONG_VERSION": ("It answers without TLS: is its address http://…?",),
}
"""What to do about an error of TLS, by a part of what it says; the first one that fits."""
SAY_WHERE = "Say where your server is: POLLUX_URL=https://…, --url, or url in ~/.config/pollux/config.toml."
START = "To try Pollux on this machine: pollux dev"


def path_of(response_id: str) -> str:
    """The path of a response. Its id may hold a slash."""
    return f"responses/{quote(response_id, safe='')}"


def page_of(client: Client, response_id: str) -> str:
    """Where a response is shown in a browser."""
    return f"{client.settings.url}/ui/#/r/{quote(response_id, safe='')}"


def _seconds(text: str | None) -> float:
    """What `Retry-After` says, as a number or as a date."""
    try:
        seconds = float(text or 0)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text or "").timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(60.0, max(0.0, seconds))
