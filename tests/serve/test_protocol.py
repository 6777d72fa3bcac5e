"""Connections that are slow, odd, broken or too many: each gets JSON with its headers, and holds nobody else."""

import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection

import httpx
import psutil
import pytest

from clarp.serve.app import application
from clarp.serve.guard import HEADERS
from clarp.serve.limits import Limits
from clarp.serve.protocol import Protocol
from clarp.serve.server import server
from serve.servers import engine, photo, serving
from serve.test_command import MODEL

TOKEN = "0123456789abcdef"


def asked(address: str, raw: bytes, seconds: float = 10, *, shut: bool = False) -> bytes:
    """Everything that comes back for these bytes until the server hangs up, or says nothing more for a while."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        found = b""
        try:
            connection.sendall(raw)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(65536):
                found += piece
        except (TimeoutError, ConnectionError):
            pass
        return found


def checked(answer: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers and detail of an answer that must have the documented form."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    for name, value in HEADERS.items():
        assert headers[name.lower()] == value, name
    assert headers["content-type"] == "application/json"
    document = json.loads(body[: int(headers["content-length"])])
    assert list(document) == ["detail"]
    return int(first.split()[1]), headers, document["detail"]


def request(line: str = "GET /api/about", **headers: str) -> bytes:
    sent = {"Host": "127.0.0.1", "Connection": "close", **headers}
    return "\r\n".join([f"{line} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]).encode(
        "latin-1"
    )


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "binary": bytes(range(256)) + b"\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\nConnection: close\r\n\r\nSM\r\n\r\n",
    "HTTP/9": b"GET / HTTP/9.9\r\nHost: x\r\nConnection: close\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nnothing\r\n\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nA: \0\r\n\r\n",
    "two lengths": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a negative length": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
    "a length of 5000 digits": request("POST /api/predict", **{"Content-Length": "9" * 5000}),
    "an unknown coding": request("POST /api/predict", **{"Transfer-Encoding": "gzip"}),
    "a chunk of no length": request("POST /api/predict", **{"Transfer-Encoding": "chunked"}) + b"zz\r\n\r\n",
    "a chunk of endless length": request("POST /api/predict", **{"Transfer-Encoding": "chunked"})
    + b"f" * 30
    + b"\r\n",
    "a path with spaces": b"GET /a b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a path of letters that aren't ASCII": "GET /é HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode(),
}


@pytest.fixture(params=["open", "with a token"], scope="module")
def either(request, toy):
    """A server; the second wants a token."""
    with serving(application([toy], token=None if request.param == "open" else TOKEN)) as address:
        yield address


@pytest.mark.parametrize("which", MALFORMED)
def test_what_is_no_http(address, which):
    status, headers, detail = checked(asked(address, MALFORMED[which]))
    assert status in {400, 431}
    assert headers.get("connection", "close") == "close"
    assert detail


ODD = [
    "http://[",
    "http://[::1",
    "http://]",
    "null",
    "\xff\xfe",
    "http://a:b:c",
    "//",
    "http://127.0.0.1:99999999999",
    ":" * 100,
]


@pytest.mark.parametrize("value", ODD)
@pytest.mark.parametrize("name", ["Origin", "Host"])
@pytest.mark.parametrize("token", ["", "wrong", TOKEN])
def test_odd_origins_and_hosts(either, name, value, token):
    bearer = {"Authorization": f"Bearer {token}"} if token else {}
    for line in ("GET /api/about", "POST /api/predict", "GET /"):
        status, _, _ = checked(asked(either, request(line, **{name: value, **bearer})))
        assert status in ({403} if name == "Origin" else {400})


@pytest.mark.parametrize(
    "line",
    [
        "OPTIONS *",
        "CONNECT 127.0.0.1:1",
        "TRACE /",
        "GET http://127.0.0.1/nowhere",
        "BREW /api/about",
        "DELETE /api/predict",
        "GET /%00%ff%2e%2e/%2e%2e/etc/passwd",
        "GET /api/../../etc/passwd",
        "POST /api/mask?region=1",
        "GET /api/classes?model=%ff%00",
    ],
)
def test_odd_requests(either, line):
    status, _, _ = checked(asked(either, request(line)))
    assert status in {400, 401, 404, 405, 422}


def test_an_upgrade_is_answered_as_a_plain_request(address):
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "x",
        "Sec-WebSocket-Version": "13",
    }
    answer = asked(address, request("GET /api/nowhere", **upgrade), 2)
    assert checked(answer)[0] == 404


class TestHeaders:
    def test_the_parser_has_a_bound_whatever_is_installed(self, toy):
        app = application([toy])
        made = server(app).config
        assert issubclass(made.http, Protocol)
        assert made.ws == "none"

    @pytest.mark.parametrize("line", [b"X: " + b"a" * 1000 + b"\r\n", b"X: a\r\n", b"A" * 1000])
    def test_megabytes_of_them_are_refused_and_not_kept(self, address, line):
        host, port = address.removeprefix("http://").split(":")
        before = psutil.Process().memory_info().rss
        connections = []
        for _ in range(20):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connections.append(connection)
            try:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n")
                for _ in range(40):
                    connection.sendall(line * (100_000 // len(line)))
            except ConnectionError:
                pass
        assert psutil.Process().memory_info().rss - before < 40 << 20
        for connection in connections:
            connection.close()
        assert httpx.get(f"{address}/api/about").status_code == 200

    def test_the_refusal(self, address):
        status, _, detail = checked(asked(address, request(X="a" * 700_000)))
        assert status == 431
        assert "too long" in detail


@contextmanager
def limited(monkeypatch, most, **options):
    monkeypatch.setattr("clarp.serve.server._connections", lambda: most)
    with serving(application([engine()], **options)) as address:
        yield address


class TestTooMany:
    @pytest.mark.parametrize("token", [None, TOKEN])
    def test_connections_beyond_the_limit(self, monkeypatch, token):
        with limited(monkeypatch, 8, token=token) as address, ExitStack() as stack:
            host, port = address.removeprefix("http://").split(":")
            for _ in range(8):
                stack.enter_context(socket.create_connection((host, int(port))))
            status, headers, detail = checked(asked(address, request()))
            assert (status, headers["retry-after"]) == (503, "2")
            assert "too many connections" in detail
            for _ in range(8):
                stack.enter_context(socket.create_connection((host, int(port))))
            status, headers, _ = checked(asked(address, b"", 3))
            assert (status, headers["retry-after"]) == (503, "2")
            stack.close()
            time.sleep(0.2)
            bearer = {"Authorization": f"Bearer {token}"} if token else {}
            assert httpx.get(f"{address}/api/about", headers=bearer).status_code == 200

    @pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
    def test_exhausted_descriptors(self, tmp_path):
        path = tmp_path / "toy.py"
        path.write_text(MODEL)
        shell = f"ulimit -n 100; exec {sys.executable} -m clarp serve --port 0 --model {path}:build"
        process = subprocess.Popen(
            ["bash", "-c", shell], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            address = re.search(r"http://[0-9.:]+", process.stdout.readline())[0]
            host, port = address.removeprefix("http://").split(":")
            assert httpx.post(f"{address}/api/predict", content=photo()).status_code == 200
            before = psutil.Process(process.pid).num_fds()
            connections = []
            for _ in range(150):
                connection = socket.socket()
                connection.settimeout(5)
                connection.connect((host, int(port)))
                connections.append(connection)
            time.sleep(1)
            for connection in connections:
                connection.close()
            time.sleep(1.5)
            assert httpx.post(f"{address}/api/predict", content=photo(seed=1)).status_code == 200
            assert psutil.Process(process.pid).num_fds() <= before + 1
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=10)
            assert "Traceback" not in errors
            assert errors.count("\n") < 10
        finally:
            process.kill()
            process.communicate()


def trickle(connection: socket.socket) -> None:
    """A letter at a time, for five seconds."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        connection.sendall(b"G")
        time.sleep(0.05)


def drain(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


class TestSlow:
    def test_a_head_that_never_ends(self, address, monkeypatch):
        monkeypatch.setattr(Protocol, "head_seconds", 0.5)
        for begin in (b"", b"GET /api/about HTTP/1.1\r\n", b"GET"):
            began = time.monotonic()
            status, headers, detail = checked(asked(address, begin))
            assert (status, headers["connection"]) == (408, "close")
            assert "no request within 0.5 s" in detail
            assert time.monotonic() - began < 3

    def test_crumbs_of_a_head_do_not_prolong_it(self, address, monkeypatch):
        monkeypatch.setattr(Protocol, "head_seconds", 0.5)
        host, port = address.removeprefix("http://").split(":")
        with (
            socket.create_connection((host, int(port)), timeout=5) as connection,
            pytest.raises(ConnectionError),
        ):
            trickle(connection)

    def test_the_next_request_of_a_connection_has_its_own_time(self, address, monkeypatch):
        monkeypatch.setattr(Protocol, "head_seconds", 0.6)
        with httpx.Client(base_url=address) as client:
            for _ in range(5):
                assert client.get("/api/about").status_code == 200
                time.sleep(0.2)

    def test_silence_between_requests_ends_the_connection(self, monkeypatch):
        monkeypatch.setattr("clarp.serve.server.SILENT_SECONDS", 1)
        with (
            serving(application([engine()])) as address,
            closing(HTTPConnection(address.removeprefix("http://"), timeout=10)) as connection,
        ):
            for pause in (0.5, 0):  # less than the second doesn't end it
                connection.request("GET", "/api/about")
                connection.getresponse().read()
                same = connection.sock
                time.sleep(pause)
            began = time.monotonic()
            drain(same)  # which ends when the server hangs up
            assert 0.8 < time.monotonic() - began < 2.5

    def test_an_answer_that_nobody_takes(self, address, monkeypatch):
        monkeypatch.setattr(Protocol, "stalled_seconds", 0.5)
        host, port = address.removeprefix("http://").split(":")
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect((host, int(port)))
            connection.settimeout(10)
            connection.sendall(request(Connection="keep-alive") * 3000)
            time.sleep(2.5)
            with pytest.raises(ConnectionError):
                drain(connection)
        assert httpx.get(f"{address}/api/about").status_code == 200

    def test_a_body_in_crumbs(self, address):
        """Each chunk of one byte costs the server as much as a chunk of 64 kB; while it parses them, nobody else is served."""
        body = b"1\r\nx\r\n" * 400_000
        slowest = 0.0
        done = threading.Event()

        def others():
            nonlocal slowest
            while not done.is_set():
                began = time.monotonic()
                assert httpx.get(f"{address}/api/about", timeout=30).status_code == 200
                slowest = max(slowest, time.monotonic() - began)

        good = threading.Thread(target=others)
        good.start()
        hostile = [
            threading.Thread(
                target=asked,
                args=(address, request("POST /api/predict", **{"Transfer-Encoding": "chunked"}) + body),
            )
            for _ in range(10)
        ]
        for thread in hostile:
            thread.start()
        for thread in hostile:
            thread.join()
        done.set()
        good.join()
        assert slowest < 2

    def test_the_refusal_of_crumbs(self, address):
        sent = request("POST /api/predict", **{"Transfer-Encoding": "chunked"}) + b"1\r\nx\r\n" * 2000
        status, _, detail = checked(asked(address, sent))
        assert status == 400
        assert "pieces of a few bytes each" in detail

    def test_chunks_as_clients_send_them(self, address):
        data = photo((400, 300))

        def pieces():
            for start in range(0, len(data), 1000):
                yield data[start : start + 1000]

        assert httpx.post(f"{address}/api/predict", content=pieces()).status_code == 200


def test_slow_uploads_have_no_place_in_the_queue():
    with serving(application([engine(limits=Limits(waiting=1))])) as address, ExitStack() as stack:
        host, port = address.removeprefix("http://").split(":")
        for _ in range(20):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.sendall(request("POST /api/predict", **{"Content-Length": "1000"}) + b"x")
        time.sleep(0.3)
        for seed in range(5):
            assert httpx.post(f"{address}/api/predict", content=photo(seed=seed)).status_code == 200


SLOW = MODEL.replace(
    "def preprocess(image):",
    "def preprocess(image):\n    import time\n    if image.size == (13, 13): time.sleep(60)",
)


class TestTheEnd:
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
    def test_ctrl_c_ends_it_within_two_seconds_whatever_runs(self, tmp_path, how):
        path = tmp_path / "toy.py"
        path.write_text(SLOW)
        process = subprocess.Popen(
            [sys.executable, "-m", "clarp", "serve", "--port", "0", "--model", f"{path}:build"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            address = re.search(r"http://[0-9.:]+", process.stdout.readline())[0]
            host, port = address.removeprefix("http://").split(":")
            with ExitStack() as stack:
                for body in [photo((13, 13))] * 5 + [b"x"]:
                    connection = stack.enter_context(socket.create_connection((host, int(port))))
                    head = request("POST /api/predict", **{"Content-Length": str(max(len(body), 9))})
                    connection.sendall(head + body)
                stack.enter_context(socket.create_connection((host, int(port))))
                time.sleep(1)
                began = time.monotonic()
                process.send_signal(how)
                _, errors = process.communicate(timeout=10)
                assert time.monotonic() - began < 2
            assert "Traceback" not in errors
            assert process.returncode in {0, 130, -signal.SIGTERM, 143}
        finally:
            process.kill()
            process.communicate()


def test_a_traceback_is_logged_once():
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.exc_info)
    broken = engine()
    broken.predict = lambda *_: {}["a defect"]
    with serving(application([broken])) as address:
        logging.getLogger("uvicorn.error").addHandler(handler)
        try:
            for _ in range(5):
                answer = httpx.post(f"{address}/api/predict", content=photo())
                assert answer.status_code == 500
                assert answer.json()["detail"].startswith("the server failed with a KeyError")
                assert answer.headers["x-frame-options"] == "DENY"
            deadline = time.monotonic() + 10
            while len(records) < 5 and time.monotonic() < deadline:  # it logs after it has answered
                time.sleep(0.05)
        finally:
            logging.getLogger("uvicorn.error").removeHandler(handler)
    assert [bool(one) for one in records] == [True, False, False, False, False]
