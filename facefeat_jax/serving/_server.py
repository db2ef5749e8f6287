"""The process of a server: its socket, its signals, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from facefeat_jax.serving._log import JsonLog
from facefeat_jax.system import signals
from facefeat_jax.system.errors import UserError

_GRACE_S = 20  # for requests that are being answered when the server is stopped; Kubernetes kills after 30


def bound(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound to an address and does not listen yet.

    Raises:
      UserError: it can't be bound: the port is in use, say.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        try:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
        except BaseException:
            found.close()
            raise
    except (OSError, UnicodeError) as error:
        raise _no_address(host, port, error) from error
    return found


def listen(found: socket.socket, host: str) -> None:
    """Lets clients connect.

    Raises:
      UserError: another process took the port meanwhile.
    """
    try:
        found.listen(1024)
    except OSError as error:
        raise _no_address(host, found.getsockname()[1], error) from error


def address_of(found: socket.socket) -> str:
    """Returns the http address of a socket."""
    host, port = found.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _no_address(host: str, port: int, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or str(error)
    return UserError(
        f"can't serve at {host} port {port} ({reason}); give another --port or --host, or stop what is there"
    )


class Server(uvicorn.Server):
    """A server that ends when SIGINT or SIGTERM comes: what is being answered then gets its answer.

    A second signal ends the process at once.

    Args:
      app: the ASGI application.
      log: gets what uvicorn has to say.
    """

    def __init__(self, app: Any, log: JsonLog):
        logger = logging.getLogger("uvicorn.error")
        logger.handlers[:], logger.propagate = [log], False
        logger.setLevel(logging.WARNING)
        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it quotes what was sent
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    def answer(self, found: socket.socket) -> None:
        """Answers requests at a bound socket until a signal comes or `should_exit` is set; closes the socket."""
        asyncio.run(self._answer(found))

    async def _answer(self, found: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        if threading.current_thread() is threading.main_thread():
            for number in signals.NUMBERS:
                loop.add_signal_handler(number, self._stop, number)
        await self.serve(sockets=[found])

    def _stop(self, number: int) -> None:
        if self.should_exit:
            os.write(2, b"facefeat: stopped at once\n")
            os._exit(128 + number)
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves signals to `answer`: uvicorn would raise them again when it has ended."""
        yield
