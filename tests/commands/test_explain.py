"""`clarp explain` of many photos: reading, explaining and writing side by side, and what they must not change."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarp import background, models
from clarp.cli import main
from clarp.commands import pipeline, writing
from clarp.commands.writing import Opened, Writer
from clarp.explainer import Explainer
from clarp.files import write_atomically
from clarp.images import open_photo

TOY = """
import time
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()

labels = ["ant", "bee", "cow", "dog"]

def preprocess(image):
    time.sleep(DELAY)
    if image.size == (12, 12):
        raise KeyboardInterrupt
    if image.size == (13, 13):
        raise RuntimeError("unlucky size")
    if image.size == (14, 14):
        return torch.full((3, 16, 16), torch.nan)
    side = 24 if image.size == (24, 24) else 16
    pixels = torch.frombuffer(bytearray(image.resize((side, side)).tobytes()), dtype=torch.uint8)
    return pixels.view(side, side, 3).permute(2, 0, 1) / 255
"""
UNREADABLE, UNLUCKY, NAN = (0, 0), (13, 13), (14, 14)


def clarp(*arguments):
    """Run the command line in this process, and return its exit code."""
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return ending.value.code or 0


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def files_of(folder):
    return [Path(photo["file"]).name for photo in manifest_of(folder)["photos"]]


def relevance_of(folder):
    return [np.load(folder / p["explanations"][0]["relevance"]) for p in manifest_of(folder)["photos"]]


def errors(printed):
    """What standard error has besides notes."""
    return [line for line in printed.err.splitlines() if not line.startswith("clarp: note: ")]


def made(folder, sizes):
    """Photos of noise, in this order; of (0, 0) a file that is none."""
    folder.mkdir()
    for number, size in enumerate(sizes):
        path = folder / f"{number:02}.png"
        if size == UNREADABLE:
            path.write_text("no photo")
            continue
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.fixture
def toy(tmp_path):
    path = tmp_path / "toy.py"
    path.write_text(TOY.replace("DELAY", "0"))
    return f"{path}:build"


@pytest.fixture
def quick(monkeypatch):
    """Pictures that cost nothing, for tests of what is around them."""
    monkeypatch.setattr(writing, "encoded", lambda *_: b"picture")


MIXED = (16, 16), (16, 16), UNREADABLE, (24, 24), (24, 24), UNLUCKY, (24, 24), (16, 16), NAN, (16, 16)


class TestWhatStays:
    def test_arrays_are_those_of_one_photo_after_the_other_to_the_last_bit(self, tmp_path, toy, quick):
        photos, out = made(tmp_path / "photos", MIXED), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--batch-size", 3, "--out", out) == 1
        classifier = models.load(toy)
        explainer = Explainer(classifier.module, "ssglrp", bounds=classifier.bounds, labels=classifier.labels)
        alone = [[0, 1], [3, 4, 6], [7], [9]]  # a size each, at most three; NaN spoils its batch
        expected = [
            relevance.numpy()
            for batch in alone
            for relevance in explainer(
                torch.stack([classifier.preprocess(open_photo(photos / f"{n:02}.png")) for n in batch]),
                batch_size="auto",
            ).relevance
        ]
        found = relevance_of(out)
        assert len(found) == len(expected) == 7
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))

    def test_batches_end_where_pieces_of_several_processes_do(self, tmp_path, toy, quick, monkeypatch):
        sizes, explanations = [], pipeline.Pipeline._explanations

        def counted(self, batch):
            sizes.append(len(batch))
            return explanations(self, batch)

        monkeypatch.setattr(pipeline.Pipeline, "_explanations", counted)
        photos = made(tmp_path / "photos", [UNREADABLE] + [(16, 16)] * 19)
        assert clarp("explain", photos, "--model", toy, "--batch-size", 8, "--out", tmp_path / "out") == 1
        assert sizes == [8, 7, 4]  # of the first 16 photos, one can't be read

    def test_the_order_is_that_of_the_photos_whatever_takes_longest(
        self, tmp_path, toy, quick, monkeypatch, capsys
    ):
        write = Writer.write

        def slow(self, item):
            time.sleep(0.05 * (int(item.photo.path.stem) % 3 == 0))
            return write(self, item)

        monkeypatch.setattr(Writer, "write", slow)
        monkeypatch.setattr(pipeline, "cores", lambda: 3)
        photos, out = made(tmp_path / "photos", MIXED), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--batch-size", 2, "--out", out) == 1
        expected = ["00.png", "01.png", "03.png", "04.png", "06.png", "07.png", "09.png"]
        assert files_of(out) == expected
        printed = capsys.readouterr()
        told = [Path(line).name for line in printed.out.splitlines() if line.startswith(str(photos))]
        assert told == expected
        skipped = [line.split(": ")[1] for line in printed.err.splitlines() if "skipped" in line]
        assert skipped == [f"skipped {photos / name}" for name in ("02.png", "05.png", "08.png")]

    def test_notes_have_the_names_of_their_photos_in_order(self, tmp_path, toy, quick, capsys):
        photos = made(tmp_path / "photos", [(16, 16)] * 5)
        for number in (1, 3):
            greys = np.full((16, 16), 1000 * number, np.uint16)
            Image.fromarray(greys).save(photos / f"{number:02}.png")
        assert clarp("explain", photos, "--model", toy, "--out", tmp_path / "out") == 0
        notes = [line for line in capsys.readouterr().err.splitlines() if "greys: " in line]
        assert [line.split(": ")[2] for line in notes] == [str(photos / "01.png"), str(photos / "03.png")]


class TestBounds:
    def test_few_photos_are_held_however_slow_writing_is(self, tmp_path, toy, monkeypatch):
        monkeypatch.setattr(pipeline, "cores", lambda: 2)
        monkeypatch.setattr(background, "cores", lambda: 2)
        held, most = weakref.WeakSet(), []
        opened = Opened.__init__

        def counted(self, *arguments, **named):
            opened(self, *arguments, **named)
            held.add(self)

        def slow(_, item):
            time.sleep(0.01)
            most.append(len(held))
            return {"file": str(item.photo.path), "predictions": [], "explanations": []}

        monkeypatch.setattr(Opened, "__init__", counted)
        monkeypatch.setattr(Writer, "write", slow)
        photos, out = made(tmp_path / "photos", [(16, 16)] * 40), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--batch-size", 2, "--out", out) == 0
        assert len(most) == len(files_of(out)) == 40
        # A batch each is read, explained and written; one photo for each thread, one that shows that a batch is full.
        assert max(most) <= 3 * 2 + 2 + 4


class TestWhatFails:
    def test_a_photo_that_cannot_be_drawn_costs_itself(self, tmp_path, toy, quick, monkeypatch):
        write = Writer.write

        def picky(self, item):
            if item.photo.path.stem == "01":
                raise ValueError("a picture of this size can't be kept.")
            return write(self, item)

        monkeypatch.setattr(Writer, "write", picky)
        photos, out = made(tmp_path / "photos", [(16, 16)] * 4), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--out", out) == 1
        assert files_of(out) == ["00.png", "02.png", "03.png"]
        (failed,) = manifest_of(out)["failed"]
        assert failed == {
            "file": str(photos / "01.png"),
            "error": "it can't be drawn: a picture of this size can't be kept.",
        }

    def test_a_full_disk_stops_it_with_one_sentence(self, tmp_path, toy, quick, monkeypatch, capsys):
        def full(path, write, **named):
            if path.name.startswith("03.") and path.suffix == ".npy":
                raise OSError(errno.ENOSPC, "No space left on device")
            write_atomically(path, write, **named)

        monkeypatch.setattr(writing, "write_atomically", full)
        photos, out = made(tmp_path / "photos", [(16, 16)] * 40), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--batch-size", 2, "--out", out, "--json") == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (said,) = errors(printed)
        assert said.startswith(f"clarp: {out / '03.'}")
        assert "can't be written (No space left on device); make room" in said
        done = files_of(out)
        assert done[:3] == ["00.png", "01.png", "02.png"]
        assert "03.png" not in done
        assert len(done) < 20  # it did not go on

    def test_where_not_even_the_manifest_can_be_written(self, tmp_path, toy, quick, monkeypatch, capsys):
        def gone(_, item):
            (tmp_path / "out").rename(tmp_path / "elsewhere")
            raise OSError(errno.ENOENT, "No such file or directory")

        monkeypatch.setattr(Writer, "write", gone)
        photos = made(tmp_path / "photos", [(16, 16)])
        assert clarp("explain", photos, "--model", toy, "--out", tmp_path / "out") == 2
        (said,) = errors(capsys.readouterr())
        assert said == "clarp: [Errno 2] No such file or directory"


class TestWhatIsStopped:
    def test_everything_that_was_explained_is_kept(self, tmp_path, toy, quick, monkeypatch, capsys):
        write = Writer.write

        def slow(self, item):
            time.sleep(0.1)
            return write(self, item)

        monkeypatch.setattr(Writer, "write", slow)
        photos, out = made(tmp_path / "photos", [(16, 16)] * 5 + [(12, 12)]), tmp_path / "out"
        assert clarp("explain", photos, "--model", toy, "--batch-size", 2, "--out", out) == 130
        assert files_of(out) == [f"{number:02}.png" for number in range(4)]  # the fifth waited for a sixth
        assert "stopped after 4 of 6 photos" in capsys.readouterr().err
        assert len(relevance_of(out)) == 4

    @pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise there")
    @pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
    def test_no_file_is_half_written(self, tmp_path, sent):
        (tmp_path / "toy.py").write_text(TOY.replace("DELAY", "0.02"))
        photos, out = made(tmp_path / "photos", [(16, 16)] * 300), tmp_path / "out"
        command = [sys.executable, "-m", "clarp", "explain", photos, "--model", f"{tmp_path}/toy.py:build"]
        process = subprocess.Popen(
            [*map(str, command), "--batch-size", "2", "--out", str(out)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # A shell ignores SIGINT for what it runs in the background, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            end = time.monotonic() + 60
            while len(list(out.glob("*.png"))) < 3 and time.monotonic() < end:
                time.sleep(0.02)
            process.send_signal(sent)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
        pictures = list(out.glob("*.png"))
        assert 3 <= len(pictures) < 300
        for path in pictures:
            with Image.open(path) as picture:
                picture.load()
        arrays = list(out.glob("*.npy"))
        assert all(np.load(path).shape == (3, 16, 16) for path in arrays)
        if sent == signal.SIGINT:
            assert process.returncode == 130
            assert not list(out.glob(".*"))
            assert len(files_of(out)) == len(pictures) == len(arrays)
            assert f"stopped after {len(pictures)} of 300 photos" in errors
        else:
            assert not (out / "manifest.json").exists()


class TestPictures:
    def test_without(self, tmp_path, toy, capsys):
        photos = made(tmp_path / "photos", [(16, 16)] * 3)
        for out, options in (("with", ()), ("without", ("--no-pictures",))):
            assert clarp("explain", photos, "--model", toy, "--out", tmp_path / out, *options) == 0
        without = tmp_path / "without"
        assert {path.suffix for path in without.iterdir()} == {".npy", ".json"}
        manifest = manifest_of(without)
        assert manifest["pictures"] is None
        told = capsys.readouterr().out
        for photo in manifest["photos"]:
            (explanation,) = photo["explanations"]
            assert "overlay" not in explanation
            assert f": {without / explanation['relevance']}\n" in told
        for one, other in zip(relevance_of(tmp_path / "with"), relevance_of(without), strict=True):
            assert np.array_equal(one, other)

    def test_formats(self, tmp_path, toy):
        photos, pixels = made(tmp_path / "photos", [(16, 16)]), {}
        for name, kind in (("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")):
            out = tmp_path / name
            assert clarp("explain", photos, "--model", toy, "--format", name, "--out", out) == 0
            manifest = manifest_of(out)
            assert manifest["pictures"] == name
            (explanation,) = manifest["photos"][0]["explanations"]
            assert explanation["overlay"].endswith(f".{name}")
            with Image.open(out / explanation["overlay"]) as picture:
                assert picture.format == kind
                pixels[name] = np.asarray(picture.convert("RGB")).astype(int)
        assert np.array_equal(pixels["png"], pixels["webp"])
        assert np.abs(pixels["png"] - pixels["jpg"]).mean() < 3

    def test_an_unknown_format(self, tmp_path, toy, capsys):
        photos = made(tmp_path / "photos", [(16, 16)])
        assert clarp("explain", photos, "--model", toy, "--format", "gif", "--out", tmp_path / "out") == 2
        assert capsys.readouterr().err == "clarp: --format is 'gif', expected one of png, jpg, webp.\n"
        assert not (tmp_path / "out").exists()
