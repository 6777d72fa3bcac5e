import asyncio
import hmac

import pytest
from starlette.responses import PlainTextResponse

from clarp.serve.guard import HEADERS, Guard, Hosts

TOKEN = "a-token-of-some-length"


def answer(guard, path="/api/about", **headers):
    """(status, headers) of a request that has passed the guard or not."""
    sent = []
    headers = {"host": "127.0.0.1:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    async def send(message):
        sent.append(message)

    asyncio.run(guard(scope, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


LOCAL = Guard(PlainTextResponse("through"), Hosts.of("127.0.0.1"))
WIDE = Guard(PlainTextResponse("through"), Hosts.of("0.0.0.0", ["clarp.lab"]))
NAMED = Guard(PlainTextResponse("through"), Hosts.of("127.0.0.1", ["CLARP.lab"]))
SECRET = Guard(PlainTextResponse("through"), Hosts.of("127.0.0.1"), TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:8000", "[::1]:8000", "127.8.8.8"])
def test_this_machines_own_names(host):
    assert answer(LOCAL, host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "evil.com:8000",
        "127.0.0.1.evil.com",
        "localhost.evil.com",
        "192.168.0.4:8000",
        "",
        "[",
        "a@127.0.0.1@evil.com",
        "127.0.0.1:8000:9",
        "2130706433.",
        "xn--localhost",
    ],
)
def test_other_names(host):
    assert answer(LOCAL, host=host)[0] == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("192.168.0.4:8000", 200),
        ("clarp.lab", 200),
        ("Clarp.Lab", 200),
        ("evil.com", 400),
        ("localhost", 200),
    ],
)
def test_bound_to_every_address(host, status):
    assert answer(WIDE, host=host)[0] == status
    assert answer(NAMED, host=host)[0] == (400 if host.startswith("192") else status)


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8000", 200),
        ("https://127.0.0.1:8000", 200),
        ("http://127.0.0.1:8001", 403),
        ("http://evil.com", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:8000.evil.com", 403),
    ],
)
def test_origins(origin, status):
    assert answer(LOCAL, origin=origin)[0] == status
    assert answer(LOCAL, "/", origin=origin)[0] == status


def test_names_have_no_case():
    """Browsers send the origin in lower case, and the host as it was typed, or other programs the other way round."""
    for host, origin in (
        ("LocalHost:8000", "http://localhost:8000"),
        ("localhost:8000", "http://LOCALHOST:8000"),
    ):
        assert answer(LOCAL, host=host, origin=origin)[0] == 200


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 200), ("none", 200), ("same-site", 403), ("cross-site", 403)]
)
def test_what_the_browser_says_of_the_asking_page(site, status):
    assert answer(LOCAL, sec_fetch_site=site)[0] == status
    assert answer(LOCAL, "/", sec_fetch_site=site)[0] == 200  # a link to the page may be followed


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Basic {TOKEN}", 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        (TOKEN, 401),
        ("", 401),
        ("Bearer \xe9", 401),
    ],
)
def test_tokens(authorization, status):
    found, headers = answer(SECRET, authorization=authorization)
    assert found == status
    assert ("www-authenticate" in headers) == (status == 401)


@pytest.mark.parametrize("given", [TOKEN, TOKEN[:-1], "x" * 10_000, ""])
def test_tokens_are_compared_in_constant_time(given, monkeypatch):
    """By the function that is made for it, and in texts of one length whatever is sent."""
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda *both: compared.append(both) or real(*both))
    assert answer(SECRET, authorization=f"Bearer {given}")[0] == (200 if given == TOKEN else 401)
    ((known, shown),) = compared
    assert len(known) == len(shown) == 32
    assert TOKEN.encode() not in (known, shown)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/", 200), ("/page/app.js", 200), ("/api/openapi.json", 200), ("/api/", 401), ("/apix", 401)],
)
def test_what_needs_no_token(path, status):
    assert answer(SECRET, path)[0] == status


@pytest.mark.parametrize(
    ("guard", "path", "headers"),
    [
        (LOCAL, "/", {}),
        (LOCAL, "/api/about", {}),
        (LOCAL, "/", {"host": "evil.com"}),
        (SECRET, "/api/about", {}),
        (LOCAL, "/api/about", {"origin": "http://evil.com"}),
    ],
)
def test_every_answer_has_the_security_headers(guard, path, headers):
    found = answer(guard, path, **headers)[1]
    assert {name: found.get(name.lower()) for name in HEADERS} == HEADERS
    assert found["cache-control"] == ("no-store" if path.startswith("/api") else "no-cache")
    assert "default-src 'self'" in found["content-security-policy"]
    assert "frame-ancestors 'none'" in found["content-security-policy"]
