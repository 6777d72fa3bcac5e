"""The examples of docs/serve.md, as a reader would type them, and its figures."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clarp.decoding import STRANGERS
from clarp.images import _MOST_SCANNED, FORMATS
from clarp.render.look import MOST
from clarp.serve.app import application
from clarp.serve.drawing import SIDE
from clarp.serve.engine import Engine
from clarp.serve.limits import Limits
from clarp.serve.protocol import (
    _BYTES_A_PIECE,
    _FREE_PIECES,
    CONNECTIONS,
    HEAD_BYTES,
    HEAD_SECONDS,
    SILENT_SECONDS,
    STALLED_SECONDS,
)
from serve.servers import classifier, photo, serving

PAGE = (Path(__file__).resolve().parents[2] / "docs/serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"


def blocks(language):
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    assert all(ADDRESS in block for block in found)
    return found


@pytest.fixture
def url(tmp_path, monkeypatch):
    """A server of a model with the page's classes, in a folder with the page's photo."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(photo(kind="JPEG"))
    named = replace(classifier(), labels=("tabby", "boxer", "zebra", "espresso"))
    with serving(application([Engine("toy", "toy", named, Limits())])) as found:
        yield found


def test_python(url, capsys):
    for block in blocks("python"):
        exec(block.replace(ADDRESS, url), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["lrp", "tabby"],
        ["lrp", "boxer"],
        ["ssglrp", "tabby"],
        ["ssglrp", "boxer"],
    ]
    assert len(lines) == 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_curl(url, tmp_path):
    for block in blocks("sh"):
        subprocess.run(block.replace(ADDRESS, url), shell=True, check=True, capture_output=True)
    with Image.open(tmp_path / "tabby.png") as drawn:
        assert drawn.width > 450


def test_limits():
    most = Limits()
    for figure in (
        f"{most.photo_bytes // 2**20} MiB; {most.pixels // 10**6} million pixels",
        f"at most {most.aspect} times the shorter",
        f"{most.targets} targets, {most.against} rivals, {most.maps} maps, {most.regions} regions",
        f"a picture of {most.side} pixels a side, and those of an answer together {most.drawn / 10**6:g} million pixels",
        f"at {SIDE} pixels where no `size`",
        f"the photo itself at {MOST} pixels or less",
        f"{most.upload_seconds:g} s for the photo to arrive, {most.seconds:g} s from there",
        f"{most.waiting} requests waiting for it; all photos together {most.bytes_at_once // 2**20} MiB",
        f"the last {most.photos} preprocessed photos",
        f"{STRANGERS.seconds} s of processor time and {STRANGERS.memory >> 20} MiB",
        f"{_MOST_SCANNED // 10**6:,} million pixels",
        f"its head {HEAD_BYTES >> 10} KiB and {HEAD_SECONDS:g} s; {STALLED_SECONDS:g} s to take an answer",
        f"{SILENT_SECONDS} s of silence between requests",
        f"pieces of {_BYTES_A_PIECE} bytes on average, the first {_FREE_PIECES} aside",
        f"| connections | {CONNECTIONS},",
    ):
        assert figure in PAGE
    assert PAGE.count(", ".join(FORMATS).replace("WEBP", "WebP")) == 1


def test_every_path_is_in_the_table():
    with_paths = application([Engine("toy", "toy", classifier(), Limits())]).app.openapi()["paths"]
    for path, operations in with_paths.items():
        for method in operations:
            assert f"| `{method.upper()} {path}` |" in PAGE
