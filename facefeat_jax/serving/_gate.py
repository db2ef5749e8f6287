"""What every request passes, around the routes: who may ask, how much may be sent, and the line of the log.

What its headers refuse is not read. Refusals are one line of JSON: `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.exceptions import HTTPException

from facefeat_jax.serving._log import JsonLog
from facefeat_jax.serving._service import Service
from facefeat_jax.system.text import format_size

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
PREDICT = "/v1/predict"
_HEALTH = ("/healthz", "/healthz/live")
_OPEN = ("/", "/docs", "/openapi.json", *_HEALTH)  # where there is a token, and /page/ and /examples/
_UPLOAD_S = 120.0  # for the whole body
_LINGER_S = 2.0  # for a client that sends before it reads: closed at once, it would not see the answer
_UPLOADS_AT_A_TIME = 8  # of the largest size: more bytes than that are not held, whoever sends them
_REQUESTS = 512  # at a time

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


class Gate:
    """An ASGI application around another.

    Args:
      app: the routes.
      service: whose places are taken.
      log: gets a line for each request.
      hosts: names that requests may be sent to; None for any.
      token: what requests have to bring, in `Authorization: Bearer`; None for nothing.
      max_upload: bytes of a request.
      routes: paths that may be written down as they are.

    Attributes:
      log: that of the arguments.
      max_upload: that of the arguments.
    """

    def __init__(
        self,
        app: Any,
        *,
        service: Service,
        log: JsonLog,
        hosts: Collection[str] | None,
        token: str | None,
        max_upload: int,
        routes: Collection[str],
    ):
        self._app = app
        self._service = service
        self.log = log
        self._hosts = None if hosts is None else {name.lower() for name in hosts}
        self._token = None if token is None else token.encode()
        self.max_upload = max_upload
        self._routes = routes
        self._held = 0  # bytes of uploads
        self._requests = 0  # that are not answered yet

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = _Request(self, scope, receive, send)
        self._requests += 1
        try:
            if refusal := self._refusal(scope, request.headers):
                await request.refuse(*refusal)
            else:
                await self._app(scope, request.receive, request.send)
        except asyncio.CancelledError:  # the server stops, and this request took too long
            request._is_whole = True  # what still comes is not waited for
            if request.status is None:
                await request.refuse(503, "the server is stopping; try again in a moment")
        finally:
            self._requests -= 1
            self._held -= request.received
            self._write_down(scope, request)

    def _refusal(self, scope: MutableMapping[str, Any], headers: dict[str, str]) -> tuple[int, str] | None:
        if self._requests > _REQUESTS and scope["path"] not in _HEALTH:
            return 503, f"more than {_REQUESTS} requests are being answered; try again in a moment"
        host = headers.get("host", "")
        if self._hosts is not None and _name_of(host) not in self._hosts and scope["path"] not in _HEALTH:
            return 421, "this server does not answer under that host name; start it with --allow-host NAME"
        if (origin := headers.get("origin")) is not None and origin.partition("://")[2].lower() != host.lower():
            return 403, "pages of other sites may not use this server"
        if self._token is not None and not self._is_open(scope["path"]):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                return 401, "give the server's token: Authorization: Bearer TOKEN"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self.max_upload:
            return self.too_large
        # Places are taken when all pictures have come; where there is none, they need not come.
        if scope["method"] == "POST" and scope["path"] == PREDICT and self._service.places.is_full:
            return BUSY
        return None

    def close(self) -> bool:
        """Ends the threads of the service; returns whether all of them have ended, which takes 3 s at most."""
        return self._service.close()

    @property
    def too_large(self) -> tuple[int, str]:
        """The refusal of a body that is too large."""
        return 413, f"the request is larger than {format_size(self.max_upload)}; send fewer or smaller pictures"

    def take(self, count: int) -> bool:
        """Counts bytes of an upload; returns whether there is room for them."""
        self._held += count
        return self._held <= _UPLOADS_AT_A_TIME * self.max_upload

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in _OPEN or path.startswith(("/page/", "/examples/"))

    def _write_down(self, scope: MutableMapping[str, Any], request: _Request) -> None:
        path, seconds = scope["path"], time.perf_counter() - request.started
        route = path if path in self._routes else "/page/" if path.startswith(("/page/", "/examples/")) else "other"
        status = request.status or 499  # the client has gone
        self._service.metrics.request(route, status, seconds)
        self.log.write(
            "request",
            id=request.id,
            method=scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other",
            route=route,
            status=status,
            ms=round(1000 * seconds, 1),
            bytes=request.received or None,
            **request.about,
        )


BUSY = (503, "too many pictures are waiting; try again in a moment")


class _Request:
    """A request on its way: what has come, and what was answered."""

    def __init__(self, gate: Gate, scope: MutableMapping[str, Any], receive: Receive, send: Send):
        self._gate, self._receive, self._send = gate, receive, send
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.id = secrets.token_hex(8)
        self.started = time.perf_counter()
        self.received = 0  # bytes
        self.status: int | None = None
        self.about: dict[str, Any] = {}  # for the log: numbers only
        self._is_whole = self.headers.get("content-length", "0") == "0" and "transfer-encoding" not in self.headers
        scope["facefeat"] = self

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Takes places in the queue for the pictures of this request, and gives them back.

        Raises:
          HTTPException: there are not as many.
        """
        places = self._gate._service.places
        if not places.take(count):
            raise HTTPException(*BUSY)
        try:
            yield
        finally:
            places.give_back(count)

    async def receive(self) -> Message:
        """Gives the next part of the body.

        Raises:
          HTTPException: it is too large, too slow, or there is no room for it now.
        """
        if self._is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout(max(0.0, _UPLOAD_S - (time.perf_counter() - self.started))):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the upload took more than {_UPLOAD_S:.0f} s") from None
        self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        count = len(message.get("body", b""))
        self.received += count
        has_room = self._gate.take(count)
        if self.received > self._gate.max_upload:
            raise HTTPException(*self._gate.too_large)
        if not has_room:
            raise HTTPException(*BUSY)
        return message

    async def send(self, message: Message) -> None:
        """Sends a part of the answer, with the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            more = {**_HEADERS, "x-request-id": self.id}
            if self.status == 503:
                more["retry-after"] = "1"
            if self.status == 401:
                more["www-authenticate"] = "Bearer"
            if not self._is_whole:
                more["connection"] = "close"
            added = [(name.encode(), value.encode()) for name, value in more.items()]
            message = {**message, "headers": [*message.get("headers", []), *added]}
        elif not message.get("more_body", False) and not self._is_whole:
            await self._send({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def refuse(self, status: int, text: str) -> None:
        """Answers with an error."""
        body = json.dumps({"error": text}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _linger(self) -> None:
        """Throws away what still comes, for a short time."""
        if "expect" in self.headers:  # it waits for leave to send
            return
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self._is_whole:
                    message = await self._receive()
                    self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            pass


def _name_of(host: str) -> str:
    """Returns the name in a Host header, without the port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()
