"""A watermark that a trained network relies on is found by name, and its twin without one raises no alarm."""

import json

import pytest
import torch

from clarp.cli import main
from evaluation.findings.planted import SHARE, trained, write_photos

pytest.importorskip("pyarrow")
pytest.importorskip("scipy")


def command(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert not ended.value.code


@pytest.fixture
def reported(tmp_path):
    """Train, evaluate and report; the findings, and the photos that bear the watermark."""
    torch.set_num_threads(1)

    def run(name, *, trained_on, asked_of):
        folder = tmp_path / name
        folder.mkdir()
        model = trained(folder / "toy.py", planted=trained_on)
        marked = write_photos(folder / "photos", 30, planted=asked_of)
        options = ("--methods", "ssglrp,lrp", "--metrics", "sparseness", "--out", folder / "run")
        command("evaluate", folder / "photos", "--model", f"{model}:build", *options)
        command("report", folder / "run", "--resamples", 100)
        return json.loads((folder / "run" / "report" / "findings.json").read_text()), marked

    return run


def test_the_watermark_is_found_by_class_place_share_and_photos(reported):
    findings, marked = reported("planted", trained_on=True, asked_of=True)
    marks = findings["marks at a fixed place"]
    assert [(mark["name"], mark["place"], mark["method"]) for mark in marks] == [
        ("cow", "bottom left", "ssglrp"),
        ("cow", "bottom left", "lrp"),
    ]
    assert len(marked) == pytest.approx(30 * SHARE, abs=3)
    for mark in marks:
        left, top, right, bottom = mark["box"]
        assert left <= 6.5 / 48 <= right  # the middle of the watermark
        assert top <= 41.5 / 48 <= bottom
        photos = set(mark["photos"])
        assert len(photos & marked) >= 0.9 * len(marked)
        assert len(photos - marked) <= 2  # an object may stand there
        assert mark["share of the photos"] == pytest.approx(len(photos) / mark["photos with a map"])


def test_its_twin_without_a_watermark_gives_no_finding(reported):
    findings, _ = reported("twin", trained_on=False, asked_of=False)
    assert findings["marks at a fixed place"] == []


def test_the_same_network_on_photos_without_it_gives_none(reported):
    findings, _ = reported("clean", trained_on=True, asked_of=False)
    assert findings["marks at a fixed place"] == []
