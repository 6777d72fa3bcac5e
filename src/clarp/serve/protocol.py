"""Connections: how long they may be silent, how many there may be, and what is answered to what is no HTTP.

uvicorn's parser h11, with bounds of time and a refusal in the API's own form. Its other parser, httptools,
has no bound for headers.
"""

import asyncio
import json
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from clarp.serve.guard import HEADERS

HEAD_BYTES = 2**16
"""Of a request's line and headers: a mask's rectangles are in the query."""
HEAD_SECONDS = 30.0
"""For them to arrive."""
STALLED_SECONDS = 30.0
"""For a client to take what waits for it."""
SILENT_SECONDS = 5
"""Between an answer and the next request of a connection."""
CONNECTIONS = 512
_LINGERING = 1.0
_FREE_PIECES, _BYTES_A_PIECE = 64, 64
"""So many pieces of a body may be small; all others have so many bytes on average."""
_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


class _Connection(h11.Connection):
    """Refuses bodies in pieces of a few bytes: each costs as much as a whole piece, and blocks all others."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self._pieces = self._bytes = 0
        self.failure: h11.RemoteProtocolError | None = None

    def next_event(self) -> Any:
        try:
            event = super().next_event()
        except h11.RemoteProtocolError as error:
            self.failure = error
            raise
        if isinstance(event, h11.Request):
            self._pieces = self._bytes = 0
        elif isinstance(event, h11.Data):
            self._pieces += 1
            self._bytes += len(event.data)
            if self._pieces > _FREE_PIECES + self._bytes // _BYTES_A_PIECE:
                self.failure = h11.RemoteProtocolError(f"a body in {self._pieces} pieces of a few bytes each")
                raise self.failure
        return event


class Protocol(H11Protocol):
    """One connection.

    Beyond :data:`CONNECTIONS` a request is refused with 503. Where far more come, they are refused unheard.
    """

    most = CONNECTIONS
    head_seconds = HEAD_SECONDS
    stalled_seconds = STALLED_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.conn = _Connection()
        self._refused = False
        self._head: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Somebody is there."""
        super().connection_made(transport)
        extra = len(self.connections) - self.most
        if extra > max(4, self.most // 8):
            # Who waits a moment here has a descriptor for that long, and there may be none left for others.
            lingering = _LINGERING if extra <= self.most // 2 else 0.0
            self._refuse(503, "busy: too many connections; try again in 2 s.", lingering)
        elif len(self.connections) > self.most:
            self.app = _full
        self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        """Something arrived; after a refusal it is dropped."""
        if self._refused:
            return
        super().data_received(data)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        """The next request's head has its own time."""
        self._forget_timer("_head")
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is there any more."""
        self._forget_timer("_head")
        self._forget_timer("_stalled")
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends."""
        if self._refused:
            self.transport.close()
            return
        with suppress(h11.LocalProtocolError):
            super().shutdown()

    def pause_writing(self) -> None:
        """The client takes nothing more for now."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stalled_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It takes something."""
        self._forget_timer("_stalled")
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        failure = self.conn.failure if isinstance(self.conn, _Connection) else None
        status = failure.error_status_hint if failure is not None else 400
        self._refuse(
            status if status in _REASONS else 400,
            f"the request is no HTTP that is read here: {failure or msg}.",
        )

    def _wait_for_head(self) -> None:
        """Bound the time until the next head; pieces of it don't prolong that."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_timer("_head")
        elif self._head is None and not self._refused:
            self._head = self.loop.call_later(self.head_seconds, self._late)

    def _late(self) -> None:
        self._refuse(408, f"no request within {self.head_seconds:g} s.")

    def _forget_timer(self, name: str) -> None:
        timer = getattr(self, name)
        if timer is not None:
            timer.cancel()
            setattr(self, name, None)

    def _refuse(self, status: int, detail: str, lingering: float = _LINGERING) -> None:
        """Say why, and hang up; a moment later, for who is still sending would lose the answer otherwise."""
        self._refused = True
        self._forget_timer("_head")
        self._unset_keepalive_if_required()
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        if self.transport.is_closing():
            return
        self.transport.write(_raw(status, detail))
        if not lingering:
            self.transport.close()
            return
        with suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(lingering, self.transport.close)


def _raw(status: int, detail: str) -> bytes:
    body = json.dumps({"detail": detail}).encode()
    headers = {
        **HEADERS,
        "Cache-Control": "no-store",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    if status == 503:
        headers["Retry-After"] = "2"
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _full(_: Any, __: Any, send: Any) -> None:
    """The answer where there are too many connections."""
    head, _, body = _raw(503, "busy: too many connections; try again in 2 s.").partition(b"\r\n\r\n")
    headers = [tuple(line.split(b": ", 1)) for line in head.split(b"\r\n")[1:]]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
