"""``clarp serve`` as people start it."""

import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager, suppress

import httpx
import numpy as np
import pytest

from clarp.cli import main
from clarp.commands.serve import load, serve
from clarp.serve.engine import Question
from clarp.serve.limits import Limits
from clarp.serve.server import Address, token_for
from serve.servers import photo

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)).eval()

labels = ["ant", "bee", "cow"]

def preprocess(image):
    pixels = torch.frombuffer(bytearray(image.resize((16, 16)).tobytes()), dtype=torch.uint8)
    return pixels.view(16, 16, 3).permute(2, 0, 1) / 255
"""


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(MODEL)
    return f"{path}:build"


@contextmanager
def running(*arguments, **environment):
    """The process, and what it printed when it was ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "clarp", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        yield process, process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def clarp(*arguments, capsys):
    with pytest.raises(SystemExit) as ending:
        main(["serve", *map(str, arguments)])
    return ending.value.code, capsys.readouterr()


def test_it_says_where_answers_who_has_the_token_and_ends_with_ctrl_c(toy):
    with running("--model", toy, "--token", CLARP_TOKEN="0123456789abcdef") as (process, line):
        assert line.startswith("clarp serves toy.py:build at http://127.0.0.1:")
        url, _, token = re.search(r"at (http://\S+)", line)[1].partition("#token=")
        assert token == "0123456789abcdef"
        assert httpx.get(f"{url}api/about").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        answer = httpx.post(f"{url}api/predict", content=photo(), headers=headers)
        assert answer.json()["model"] == "toy.py:build"
        assert "server" not in answer.headers
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
        assert token not in out + errors
        assert "Traceback" not in errors
        assert process.returncode in {0, 130}
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)


def test_an_engine_answers_as_pytorch_does(toy, tmp_path):
    pytest.importorskip("onnxruntime")
    found = []
    for engine in ("torch", "onnxruntime"):
        with running("--model", toy, "--engine", engine, CLARP_CACHE=str(tmp_path)) as (_, line):
            url = re.search(r"at (http://\S+)", line)[1]
            answer = httpx.post(f"{url}api/explain?target=bee", content=photo(), timeout=60)
            assert answer.status_code == 200, answer.text
            (explained,) = answer.json()["maps"]
            found.append(np.load(io.BytesIO(base64.b64decode(explained["heatmap"]))))
    torch, other = found
    assert torch.any()
    assert np.abs(other - torch).max() <= 1e-4 * np.abs(torch).max()


SENT = "what-a-stranger-sent"


def test_what_strangers_send_is_not_logged(toy):
    """In paths, queries, headers, heads that are no HTTP, and files, whether they are answered or refused."""
    head = f"Host: 127.0.0.1\r\nX-Said: {SENT}\r\nConnection: close\r\n"
    damaged = photo()[:200] + SENT.encode()
    broken = [
        f"GET /{SENT}?{SENT}={SENT} HTTP/1.1\r\n{head}\r\n",
        f"GET /api/predict/{SENT} HTTP/1.1\r\n{head}Authorization: Bearer {SENT}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {SENT}\r\nOrigin: http://{SENT}\r\n\r\n",
        f"{SENT}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{SENT}\r\n\r\n",
        f"POST /api/predict HTTP/1.1\r\n{head}Content-Length: 9999\r\n\r\n{SENT}",
        f"POST /api/predict HTTP/1.1\r\n{head}Transfer-Encoding: chunked\r\n\r\n{SENT}\r\n",
    ]
    with running("--model", toy) as (process, line):
        url = re.search(r"http://\S+", line)[0]
        for raw in broken:
            with socket.create_connection(("127.0.0.1", httpx.URL(url).port), timeout=5) as connection:
                connection.sendall(raw.encode())
                connection.shutdown(socket.SHUT_WR)
                with suppress(OSError):
                    while connection.recv(65536):
                        pass
        for body, query in ((photo(), {"model": SENT}), (photo(), {}), (damaged, {}), (SENT.encode(), {})):
            answer = httpx.post(f"{url}api/predict", params=query, content=body, headers={"X-Said": SENT})
            assert answer.status_code in {200, 404, 422}
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=30)
    assert SENT not in out + errors
    assert all(said.startswith("clarp: note: ") for said in errors.splitlines()), errors


@pytest.mark.parametrize(("host", "warned"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_without_a_token_elsewhere_than_on_loopback_it_warns(toy, host, warned, capsys, monkeypatch):
    monkeypatch.setattr("clarp.commands.serve.run", lambda *_: None)
    serve([toy], Address(host, 0), token=False)
    said = capsys.readouterr()
    assert ("everybody who can reach 0.0.0.0 can use this server" in said.err) == warned
    assert "#token" not in said.out


def test_labels_and_output_are_those_of_the_other_commands(toy, tmp_path):
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    (engine,) = load([toy], Limits(), labels=tmp_path / "labels.txt", weights=None)
    assert engine.classifier.labels == ("one", "two", "three")
    found = engine.explain(photo(), Question((), (), ("lrp",)), lambda: False)
    assert 'load("toy.py:build", labels=Path("labels.txt"))' in found.maps[0].python


@pytest.mark.parametrize(
    ("host", "wanted", "has"),
    [
        ("127.0.0.1", None, False),
        ("localhost", None, False),
        ("::1", None, False),
        ("127.0.0.1", True, True),
        ("0.0.0.0", None, True),
        ("::", None, True),
        ("192.168.0.4", None, True),
        ("clarp.lab", None, True),
        ("0.0.0.0", False, False),
    ],
)
def test_who_needs_a_token(host, wanted, has, monkeypatch):
    monkeypatch.delenv("CLARP_TOKEN", raising=False)
    first, second = (token_for(Address(host, 8000), wanted) for _ in range(2))
    assert (first is not None) == has
    assert not has or (first != second and len(first) >= 32)


@pytest.mark.parametrize(
    "token", ["", "short", "has spaces in the middle", "caf\xe9caf\xe9caf\xe9caf\xe9", "0123456789abcdef\n"]
)
def test_what_is_no_token(token, monkeypatch):
    monkeypatch.setenv("CLARP_TOKEN", token)
    with pytest.raises(ValueError, match="at least 16 letters"):
        token_for(Address("127.0.0.1", 8000), wanted=True)


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:80/"), ("::1", "http://[::1]:80/")]
)
def test_urls(host, url):
    assert Address(host, 80).url(80, None) == url


class TestWhatCannotBeServed:
    def test_a_port_that_is_taken(self, toy, capsys):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            code, said = clarp("--model", toy, "--port", taken.getsockname()[1], capsys=capsys)
        assert code == 2
        assert re.search(
            r"can't listen at 127\.0\.0\.1, port \d+ \(Address already in use\).*--port", said.err
        )

    def test_a_host_that_is_not_this_machine(self, toy, capsys):
        code, said = clarp("--model", toy, "--host", "192.0.2.1", "--port", 0, capsys=capsys)
        assert code == 2
        assert "can't listen at 192.0.2.1" in said.err

    def test_a_model_that_is_none(self, capsys):
        code, said = clarp("--model", "resnet5", "--port", 0, capsys=capsys)
        assert code == 2
        assert "unknown model 'resnet5'" in said.err

    def test_weights_for_several_models(self, toy, capsys):
        two = ("--model", toy, "--model", "efficientnet-lite0")
        code, said = clarp(*two, "--labels", "labels.txt", "--port", 0, capsys=capsys)
        assert code == 2
        assert "--labels would be for one model, and --model names 2: serve each by itself" in said.err

    def test_a_model_twice(self, toy, capsys):
        code, said = clarp("--model", toy, "--model", toy, "--port", 0, capsys=capsys)
        assert code == 2
        assert "toy.py:build is served already" in said.err

    def test_without_the_extra(self, toy, capsys, monkeypatch):
        for name in [
            name for name in sys.modules if name.startswith(("clarp.serve", "clarp.commands.serve"))
        ]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        code, said = clarp("--model", toy, capsys=capsys)
        assert code == 2
        assert 'clarp serve needs uvicorn, which is not installed: pip install "clarp[serve]"' in said.err
