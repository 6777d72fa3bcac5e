"""What every request passes first: is it meant for this server, from its own page, by somebody who may?"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CONTENT = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action "
    "'none'; frame-ancestors 'none'"
)
DESCRIPTION = "/api/openapi.json"
"""Which is no secret."""
HEADERS = {
    "Content-Security-Policy": _CONTENT,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


@dataclass(frozen=True)
class Hosts:
    """By which names a browser may reach the server.

    A page elsewhere that points its own name here (DNS rebinding) uses another.

    Attributes:
        names: besides localhost and the loopback addresses; in lower case.
        any_address: every address counts, because the server listens on all of the machine's. No name can
            pose as an address.
    """

    names: frozenset[str] = frozenset()
    any_address: bool = False

    @classmethod
    def of(cls, bound: str, names: Iterable[str] = ()) -> "Hosts":
        """The names for a server bound to an address or a name, and others that it is known by."""
        address = _address(bound)
        everywhere = address is not None and address.is_unspecified
        return cls(frozenset(name.lower() for name in (bound, *names) if name), everywhere)

    def __contains__(self, host: str) -> bool:
        address = _address(host)
        if address is not None and (self.any_address or address.is_loopback):
            return True
        return host.lower() == "localhost" or host.lower() in self.names


@dataclass(frozen=True)
class Guard:
    """An application behind its checks; every answer gets the security headers.

    Attributes:
        app: what is guarded.
        hosts: by which names it may be reached.
        token: what requests below ``/api`` have to bear, or None.
        busy: whether something is being computed.
    """

    app: ASGIApp
    hosts: Hosts
    token: str | None = None
    busy: Callable[[], bool] = lambda: False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        api = scope["path"].startswith("/api") and scope["path"] != DESCRIPTION

        async def decorated(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-store" if api else "no-cache"
            await send(message)

        refusal = self._refusal(Headers(scope=scope), api=api)
        if refusal is None:
            await self.app(scope, receive, decorated)
            return
        status, reason = refusal
        extra = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        await JSONResponse({"detail": reason}, status, extra)(scope, receive, decorated)

    def _refusal(self, headers: Headers, *, api: bool) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if _name(host) not in self.hosts:
            told = "the Host header is not a name of this server; "
            return 400, told + "open it by the address that it printed at the start."
        origin = headers.get("origin")
        elsewhere = origin is not None and _place(origin) != host.lower()
        if elsewhere or (api and headers.get("sec-fetch-site") in {"cross-site", "same-site"}):
            return 403, "the request comes from a page of another site, and only this server's own may ask."
        if api and self.token is not None and not self._bears(headers.get("authorization", "")):
            return 401, "the token is missing or wrong: send the header Authorization: Bearer TOKEN."
        return None

    def _bears(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        # Digests have one length, so that the time of the comparison tells nothing, not even the token's
        # length.
        known, shown = (hashlib.sha256(text.encode()).digest() for text in (self.token or "", given.strip()))
        return hmac.compare_digest(known, shown) and kind.lower() == "bearer"


def _name(host: str) -> str:
    """The name of a Host header, without port; nothing where it is malformed."""
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:]+)(?::[0-9]+)?", host)
    return found[1] if found else ""


def _place(origin: str) -> str:
    """Host and port of an Origin header, in lower case; nothing where it is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
