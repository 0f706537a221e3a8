"""Who may ask how much: everything that is refused before a request is read."""

import asyncio
import hmac
import time
from collections import OrderedDict
from typing import Any

from fastapi.responses import JSONResponse

from quickstudy.app.pages import STATIC

__all__ = ["MOST_BYTES", "Guard", "Rates"]

MOST_BYTES = 8 << 20
"""Of a request."""

_OPEN = ("/", "/api/health", "/openapi.json")
_PARTS = 20_000
_BEING_READ = 64 << 20
_CLIENTS = 10_000
_PATIENCE = 10.0


class Rates:
    """What each client may still ask for: so much a second, and twice that at once.

    Args:
        a_second: requests, or what counts like one.
    """

    def __init__(self, a_second: float) -> None:
        self.a_second = a_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether the client may ask once more; if so, that is one less."""
        allowed = self._now(client) >= 1
        self.charge(client, float(allowed))
        return allowed

    def charge(self, client: str, cost: float) -> None:
        """What a request has cost; more than is left has to be waited for."""
        self._left[client] = (self._now(client) - cost, time.monotonic())
        self._left.move_to_end(client)
        while len(self._left) > _CLIENTS:
            self._left.popitem(last=False)

    def _now(self, client: str) -> float:
        capacity = 2 * self.a_second
        if client not in self._left:
            return capacity
        left, then = self._left[client]
        return min(capacity, left + (time.monotonic() - then) * self.a_second)


class Guard:
    """Refuses too many requests, those without the token, other sites' pages and large bodies.

    A body must not pause for 10 seconds, and those being read have 64 MiB together. One of very
    many parts is refused as well: to parse it would keep everybody else waiting.
    """

    def __init__(self, app: Any, rates: Rates, token: str | None) -> None:
        self.app, self.rates, self.token = app, rates, token
        self.being_read = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
        body, refusal = bytearray(), self._refusal(scope, headers)
        try:
            if refusal is None:
                async with asyncio.timeout(6 * _PATIENCE):
                    refusal = await self._read(body, receive)
        except TimeoutError:
            refusal = _no(408, "the request did not come to its end")
        finally:
            self.being_read -= len(body)
        if refusal is None:
            await self.app(scope, _replay(bytes(body), receive), send)
        else:
            await refusal(scope, receive, send)

    def _refusal(self, scope: Any, headers: dict[str, str]) -> JSONResponse | None:
        """What is wrong with a request, as far as its head tells."""
        path = scope["path"]
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host")
        visited = path in _OPEN and headers.get("sec-fetch-mode") == "navigate"  # by a link
        linked = scope["method"] == "GET" and (path == "/" or path.startswith(STATIC) or visited)
        if not linked and (elsewhere or site not in ("none", "same-origin")):
            return _no(403, "pages of other sites may not ask this server")  # nor use up its rate
        if not self.rates.take(str((scope.get("client") or ("",))[0])):
            return _no(429, "too many requests", after=1)
        asks = path not in _OPEN and not path.startswith(STATIC)
        presented = headers.get("authorization", "").removeprefix("Bearer ").encode()
        if asks and self.token and not hmac.compare_digest(presented, self.token.encode()):
            return _no(401, "this server asks for its token: Authorization: Bearer TOKEN")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > MOST_BYTES:
            return _no(413, f"a request has at most {MOST_BYTES} bytes")
        return None

    async def _read(self, body: bytearray, receive: Any) -> JSONResponse | None:
        """Read a body; what is wrong with it, if anything is."""
        more = True
        while more:
            async with asyncio.timeout(_PATIENCE):
                message = await receive()
            if message["type"] != "http.request":  # the client has gone
                return _no(408, "the request did not come to its end")
            part, more = message.get("body", b""), message.get("more_body", False)
            body += part
            self.being_read += len(part)
            if len(body) > MOST_BYTES:
                return _no(413, f"a request has at most {MOST_BYTES} bytes")
            if self.being_read > _BEING_READ:
                return _no(503, "this server is busy; try later", after=1)
        if sum(map(body.count, (b",", b"[", b"{"))) > _PARTS:
            return _no(413, f"a request has at most {_PARTS} parts")
        return None


def _no(status: int, why: str, after: int | None = None) -> JSONResponse:
    headers = None if after is None else {"Retry-After": str(after)}
    return JSONResponse({"detail": why}, status, headers)


def _replay(body: bytes, receive: Any) -> Any:
    """A ``receive`` that gives a body which has been read already."""
    read = False

    async def replay() -> Any:
        nonlocal read
        if read:
            return await receive()
        read = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
