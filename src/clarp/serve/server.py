"""Listening: the socket, the token, and the server around the application."""

import os
import secrets
import socket
from dataclasses import dataclass
from ipaddress import ip_address

import uvicorn

from clarp.serve.guard import Guard

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
        """What to open. The token is behind the #, which browsers keep to themselves, so no log ever has it."""
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
            f"{TOKEN_VARIABLE} is no token: expected at least {_SHORTEST} letters, digits or signs without spaces; or leave it "
            "out, and a random one is made."
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
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=2**16,  # a mask's rectangles are in the query
            limit_concurrency=512,
            timeout_graceful_shutdown=5,
        )
    )
