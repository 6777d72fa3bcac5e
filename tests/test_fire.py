"""Thousands of hostile inputs by seed, each a clear answer within its time and memory, seen from outside of the process.

`make test` tries some hundreds, `make test-slow` fourteen thousand.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil
import pytest

import fire
from serve.servers import photo
from serve.test_command import MODEL

pytest.importorskip("pycocotools")
HERE = Path(__file__).parent
SECONDS = 40.0
"""For one input on a machine that is busy: three decodes of at most ten or thirty seconds of processor time are among them."""
MEMORY = 700 << 20
"""Of the process that reads, without the decoders, which have their own bound."""
COUNTS = {"image": 120, "json": 120, "xml": 100, "csv": 100, "tar": 100, "index": 100, "http": 100}


class Reader:
    """A process that reads what it is told, and a clock that ends it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __call__(self, kind: str, data: bytes) -> dict[str, object]:
        if self._process is None:
            command = [sys.executable, "-W", "ignore", HERE / "fire.py"]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process = self._process
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({"kind": kind, "bytes": len(data)}).encode() + b"\n" + data)
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = b""
        timer.cancel()
        if not line:
            self._end()
            return {"wrong": "the process ended, or took too long"}
        if psutil.Process(process.pid).memory_info().rss > MEMORY:
            self._end()
            return {"wrong": "too much memory"}
        return json.loads(line)


def tried(kind: str, count: int, first: int = 0) -> Counter[str]:
    """How many were read and refused; the first that went wrong is told."""
    found: Counter[str] = Counter()
    with Reader() as read:
        for seed, data in fire.inputs(kind, count, first):
            answer = read(kind, data)
            assert "wrong" not in answer, f"{kind} {seed}: {answer['wrong']}"
            said = str(answer["said"])
            assert "Traceback" not in said
            assert answer["read"] or len(said) > 10, f"{kind} {seed}: {said!r}"
            assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said) or kind != "xml", (
                f"{kind} {seed}: {said!r}"
            )
            found["read" if answer["read"] else "refused"] += 1
    return found


@contextmanager
def served(folder: Path) -> Iterator[tuple[psutil.Process, str, int]]:
    """``clarp serve`` in a process of its own."""
    (folder / "toy.py").write_text(MODEL)
    command = [sys.executable, "-m", "clarp", "serve", "--port", "0", "--model", f"{folder / 'toy.py'}:build"]
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(os.environ)
        )
    try:
        found = re.search(r"http://([0-9.]+):([0-9]+)", process.stdout.readline())
        yield psutil.Process(process.pid), found[1], int(found[2])
    finally:
        process.kill()
        process.communicate()


def answered(host: str, port: int, data: bytes, patience: float = SECONDS) -> bytes:
    """What comes back until the server hangs up, or says nothing for so long."""
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        found = b""
        try:
            connection.sendall(data)
            connection.settimeout(patience)
            while piece := connection.recv(65536):
                found += piece
        except (ConnectionError, TimeoutError):
            pass
        return found


def good(host: str, port: int) -> bool:
    body = photo()
    head = f"POST /api/predict HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    return answered(host, port, head.encode() + body).startswith(b"HTTP/1.1 200")


def served_all(folder: Path, count: int, first: int = 0) -> Counter[str]:
    """Statuses of so many requests."""
    found: Counter[str] = Counter()
    with served(folder) as (process, host, port):
        assert good(host, port)
        before = process.memory_info().rss, process.num_fds()
        for seed, data in fire.inputs("http", count, first):
            answer = answered(host, port, data, 0.5).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
            status = answer[9:12].decode() or "waits for more"
            # What promises more than it has is waited for, longer than anybody waits here.
            assert status == "waits for more" or status[0] in "24" or status == "503", (
                f"http {seed}: {answer[:300]!r}"
            )
            if status[0] == "4" and not data.startswith(b"HEAD"):
                head, _, body = answer.partition(b"\r\n\r\n")
                assert b"content-security-policy" in head.lower(), f"http {seed}: {head!r}"
                assert body.startswith(b'{"detail":'), f"http {seed}: {body[:200]!r}"
            found[status] += 1
        assert good(host, port)
        time.sleep(0.5)
        assert process.memory_info().rss - before[0] < 150 << 20
        assert process.num_fds() <= before[1] + 3
    assert "Traceback" not in (folder / "errors").read_text()
    return found


@pytest.mark.parametrize("kind", fire.TRIED)
def test_hostile_files(kind):
    found = tried(kind, COUNTS[kind])
    assert found["refused"] > COUNTS[kind] // 4
    assert found["read"] > 0


def test_hostile_requests(tmp_path):
    found = served_all(tmp_path, COUNTS["http"])
    assert found["200"] > 0
    assert sum(number for status, number in found.items() if status.startswith("4")) > COUNTS["http"] // 4


def test_there_are_more_than_three_hundred():
    assert sum(COUNTS.values()) >= 300


@pytest.mark.slow
def test_fourteen_thousand(tmp_path):
    """The table of SECURITY.md: 2,000 of each kind."""
    table = {kind: tried(kind, 2000, 1000) for kind in fire.TRIED}
    table["http"] = served_all(tmp_path, 2000, 1000)
    for kind, found in table.items():
        print(kind, sum(found.values()), dict(found))  # noqa: T201  with -s
    assert sum(sum(found.values()) for found in table.values()) == 14_000
