"""Listening: the socket, the token, and the server around the application."""

import asyncio
import logging
import os
import secrets
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn

from clarp.serve.guard import Guard
from clarp.serve.protocol import CONNECTIONS, SILENT_SECONDS, Protocol

TOKEN_VARIABLE = "CLARP_TOKEN"  # noqa: S105  the variable's name
_SHORTEST = 16


@dataclass(frozen=True)
class Address:
    """Where the server listens.

    Attributes:
        host: an address or a name of this machine.
        port: 0 for any that is free.
    """

    host: str
    port: int

    @property
    def local(self) -> bool:
        """Whether only this machine can reach it."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def listen(self) -> socket.socket:
        """A socket that listens.

        Raises:
            OSError: the address is not this machine's, or the port is taken.
        """
        try:
            family, _, _, _, address = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)[0]
            return socket.create_server(address[:2], family=family, backlog=256)
        except OSError as error:
            reason = (error.strerror or str(error)).partition(" (")[0]
            raise OSError(
                f"can't listen at {self.host}, port {self.port} ({reason}): give an address of this machine "
                "(--host) and a port that is free (--port)."
            ) from error

    def url(self, port: int, token: str | None) -> str:
        """What to open. The token is behind the #, which browsers do not send, so no log has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port}/" + (f"#token={token}" if token else "")


def token_for(address: Address, wanted: bool | None) -> str | None:
    """The token that requests have to bear, or None.

    Args:
        address: where the server listens; elsewhere than on loopback there is a token unless it is unwanted.
        wanted: yes, no, or None to decide by the address.

    Returns:
        The value of the variable CLARP_TOKEN, or else a new one.

    Raises:
        ValueError: the variable's value is too short to be a secret, or is none that fits a header.
    """
    if wanted is False or (wanted is None and address.local):
        return None
    given = os.environ.get(TOKEN_VARIABLE)
    if given is None:
        return secrets.token_urlsafe(24)
    if len(given) < _SHORTEST or not given.isascii() or not given.isprintable() or " " in given:
        raise ValueError(
            f"{TOKEN_VARIABLE} is no token: expected at least {_SHORTEST} letters, digits or signs without "
            "spaces; or leave it out, and a random one is made."
        )
    return given


def run(app: Guard, listening: socket.socket) -> None:
    """Serve until the process is told to stop (Ctrl-C).

    Args:
        app: the application.
        listening: the socket.
    """
    server(app).run(sockets=[listening])


def server(app: Guard) -> uvicorn.Server:
    """The HTTP server around the application."""
    most = _connections()
    found = _Server(
        uvicorn.Config(
            app,
            http=type("Bounded", (Protocol,), {"most": most}),
            ws="none",
            loop="asyncio",
            log_level="error",  # what strangers send is no news
            server_header=False,
            proxy_headers=False,
            backlog=min(128, most),
            timeout_keep_alive=SILENT_SECONDS,
            timeout_graceful_shutdown=1,
        )
    )
    logger = logging.getLogger("uvicorn.error")
    if not any(isinstance(one, _Once) for one in logger.filters):
        logger.addFilter(_Once())
    return found


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(_in_one_line)
        await super().startup(sockets)


def _in_one_line(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a connection that went wrong in one line, and the same message once a minute."""
    error, now = context.get("exception"), time.monotonic()
    if now - _said.get(context["message"], -_QUIET) >= _QUIET:
        _said[context["message"]] = now
        logging.getLogger("uvicorn.error").error(
            "%s (%s: %s)", context["message"], type(error).__name__, error
        )


_QUIET = 60.0
_said: dict[str, float] = {}


class _Once(logging.Filter):
    """Logs a traceback once, and then one line; requests that the end of the server broke off leave none."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[str, str, int]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None:
            return "timeout graceful shutdown exceeded" not in record.getMessage()
        if isinstance(error, asyncio.CancelledError):
            return False
        *_, last = traceback.extract_tb(error.__traceback__) or [traceback.FrameSummary("", 0, "")]
        key = (type(error).__name__, last.filename, last.lineno or 0)
        if key in self._seen:
            record.exc_info, record.args = None, ()
            record.msg = f"again {key[0]} at line {key[2]} of {Path(key[1]).name}"
        self._seen.add(key)
        return True


def _connections() -> int:
    """How many at once: fewer than the file descriptors, for photos and files need some too."""
    if sys.platform == "win32":
        return CONNECTIONS
    import resource  # noqa: PLC0415  not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY:
        return CONNECTIONS
    return max(4, min(CONNECTIONS, soft // 3 - 8))
