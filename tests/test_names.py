"""Whatever a file or a class is called: one photo's trouble is one photo's trouble, and no name is obeyed by a terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow")
MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()

labels = ["=cmd|' /C calc'!A0", "@sum", "a\\x1b]0;title\\x07b", "樹" * 75, "\\u202eevil $x_{$"]

def preprocess(image):
    pixels = torch.frombuffer(bytearray(image.resize((16, 16)).tobytes()), dtype=torch.uint8)
    return pixels.view(16, 16, 3).permute(2, 0, 1) / 255
"""
NAMES = [
    b"not \xff\xfe utf-8",
    ("樹" * 75).encode(),
    "é🦓👩‍🔬".encode(),
    b"two\nlines",
    b"$'`touch x`",
    "\u202egnp.exe".encode(),
    b"\x1b[31mred\x1b]0;title\x07",
    "c1\x9b31m".encode(),
    b"-rf",
    b"=1+1",
    b"<script>alert(1)",
    b"%00%2e%2e",
    b"$x_{$",
    b"a" * 240,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos with all of these names, and one that can't be opened."""
    root = tmp_path_factory.mktemp("names")
    (root / "toy.py").write_text(MODEL)
    photos = os.fsencode(root / "photos")
    (root / "photos").mkdir()
    good = root / "good.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(good)
    for name in NAMES:
        shutil.copy(good, photos + b"/" + name + b".png")
    (root / "photos" / os.fsdecode(b"broken \xff\x1b[31m.png")).write_bytes(b"no photo")
    return root


def clarp(folder: Path, *arguments: str | bytes, **environment: str) -> tuple[int, bytes, bytes]:
    process = subprocess.run(
        [sys.executable, "-m", "clarp", *arguments],
        cwd=folder,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, "CLARP_CACHE": str(folder / "cache"), **environment},  # the model is captured once
    )
    return process.returncode, process.stdout, process.stderr


def few(folder: Path) -> list[str]:
    """Three photos, and the one that can't be opened."""
    names = [
        b"not \xff\xfe utf-8.png",
        b"\x1b[31mred\x1b]0;title\x07.png",
        "c1\x9b31m.png".encode(),
        b"broken \xff\x1b[31m.png",
    ]
    return [os.fsdecode(b"photos/" + name) for name in names]


def harmless(text: bytes) -> None:
    """No letter that a terminal obeys, but for the end of the line."""
    decoded = text.decode()
    assert not {letter for letter in decoded if ord(letter) < 32 and letter != "\n"}
    assert not {letter for letter in decoded if 0x7F <= ord(letter) < 0xA0 or letter in "\u202e\u2066"}
    assert "Traceback" not in decoded


@pytest.fixture(scope="module")
def explained(folder):
    return clarp(
        folder,
        "explain",
        "photos",
        "--model",
        "toy.py:build",
        "--out",
        "maps",
        "--method",
        "lrp",
        "--target",
        "0,2,3,4",
    )


def test_explain_makes_every_map(folder, explained):
    code, out, errors = explained
    assert code == 1, errors
    harmless(out)
    harmless(errors)
    assert errors.count(b"skipped") == 1
    manifest = json.loads((folder / "maps" / "manifest.json").read_text())
    assert {os.fsencode(Path(photo["file"]).name) for photo in manifest["photos"]} == {
        name + b".png" for name in NAMES
    }
    for photo in manifest["photos"]:
        for explanation in photo["explanations"]:
            assert np.load(folder / "maps" / explanation["relevance"]).shape == (3, 16, 16)
            assert (folder / "maps" / explanation["overlay"]).stat().st_size > 1000
    (failed,) = manifest["failed"]
    assert os.fsencode(Path(failed["file"]).name) == b"broken \xff\x1b[31m.png"


def test_names_of_what_is_written_are_plain(folder, explained):
    for path in (os.fsencode(path.name) for path in (folder / "maps").iterdir()):
        harmless(path)
        assert b"\n" not in path
        assert len(path) < 215  # with what a file that is being written has besides, 255


def test_json_is_a_document_and_obeyed_by_no_terminal(folder):
    code, out, _ = clarp(
        folder,
        "explain",
        *few(folder),
        "--model",
        "toy.py:build",
        "--out",
        "maps2",
        "--method",
        "lrp",
        "--json",
    )
    assert code == 1
    harmless(out)
    assert len(json.loads(out)["photos"]) == 3


def test_a_terminal_without_these_letters(folder):
    code, out, _ = clarp(
        folder,
        "explain",
        *few(folder),
        "--model",
        "toy.py:build",
        "--out",
        "maps3",
        "--method",
        "lrp",
        PYTHONIOENCODING="ascii",
    )
    assert code == 1
    assert out.isascii()


@pytest.fixture(scope="module")
def evaluated(folder):
    root = folder / "set"
    shutil.copytree(folder / "photos", root / "@sum")
    return clarp(
        folder,
        "evaluate",
        "set",
        "--model",
        "toy.py:build",
        "--methods",
        "lrp",
        "--metrics",
        "patch-masking:size=3",
        "--out",
        "run",
    )


@pytest.fixture(scope="module")
def reported(folder, evaluated):
    return clarp(folder, "report", "run", "--reference", "lrp", "--resamples", "100")


def test_evaluate_and_report_hold(folder, evaluated, reported):
    code, out, errors = evaluated
    assert code == 1, errors
    harmless(out)
    harmless(errors)
    problems = json.loads((folder / "run" / "problems.json").read_text())
    assert problems["count"] == 1
    code, out, errors = reported
    assert code == 0, errors
    harmless(out)
    page = (folder / "run" / "report" / "index.html").read_text()
    assert "<script>alert" not in page


def test_a_spreadsheet_runs_no_class_name(folder, reported):
    table = (folder / "run" / "report" / "classes.csv").read_text()
    assert "'@sum" in table
    for line in table.splitlines():
        for cell in line.split(","):
            assert not cell.strip('"').startswith(("=", "+", "@"))


def test_an_argument_that_is_no_file_is_told_harmlessly(folder):
    code, _, errors = clarp(folder, "explain", b"\xff\x1b[31m.png", "--model", "toy.py:build")
    assert code == 2
    harmless(errors)
