"""What `clarp explain` makes of what other processes send, in whatever order it comes."""

from contextlib import contextmanager
from pathlib import Path

import pytest

from clarp.commands.explain import explain, prepared
from clarp.commands.photos import ExplainedPiece, PhotosElsewhere
from clarp.commands.pipeline import Remark
from clarp.render import Look
from clarp.session import Session
from clarp.workers.base import AbandonedPiece, Crew
from evaluation.toys import toy_model, toy_photos

COUNT = 40
"""Three pieces: of 16, 16 and 8."""


def made(pieces, number, *, error=None):
    """A piece as a worker sends it: every photo explained, but the piece's second, which could not be read."""
    piece = pieces[number]
    first, bad, *others = piece.stems
    entries = {
        path: {"file": str(path), "predictions": [], "explanations": [entry(piece.stems[path])]}
        for path in (first, *others)
    }
    remarks = (Remark("of all", "once"), Remark(f"of piece {number}"))
    return ExplainedPiece(piece, entries, {bad: "unlucky"}, None, f"cuda:{number}", remarks, error)


def entry(stem):
    target = {"label": "ant", "class": 0, "probability": 0.5}
    return {"target": target, "against": "all", "relevance": f"{stem}.npy"}


class Sending(Crew):
    """Sends what a function makes of the pieces, and writes the files unless it is another machine."""

    def __init__(self, fingerprint, out, make, late):
        self.fingerprint, self._out, self._make, self._late = fingerprint, out, make, late

    def results(self, pieces, shared, advance):
        self._pieces = list(pieces)
        for found in self._make(self._pieces):
            yield self._written(found)

    def stopped(self):
        for found in self._late(self._pieces):
            yield self._written(found)

    def _written(self, found):
        if isinstance(found, ExplainedPiece) and self._out is not None:
            for one in found.entries.values():
                (self._out / one["explanations"][0]["relevance"]).touch()
        return found


class Others:
    def __init__(self, out, make, late=lambda _: ()):
        self._out, self._make, self._late = out, make, late

    @contextmanager
    def started(self, work, *, most):
        assert most == 3
        session = work.load(device="cpu")
        from clarp.commands.photos import fingerprint_of  # noqa: PLC0415  what a worker of the same makes

        yield Sending(fingerprint_of(session), self._out, self._make, self._late)


@pytest.fixture
def given(tmp_path):
    """A pipeline of 40 photos, and how a worker makes its session."""
    model = toy_model(tmp_path)
    toy_photos(tmp_path / "class_folders", COUNT)
    paths = sorted((tmp_path / "class_folders").glob("*/*.png"), key=lambda path: path.name)

    def load(device="cpu"):
        return Session.load(model, device=device)

    pipeline = prepared(
        paths,
        load,
        targets=(),
        against=(),
        method=None,
        composite=None,
        layers=(),
        look=Look("overlay"),
        pictures=False,
        kind="png",
        out=tmp_path / "out",
        batch_size=8,
    )
    return pipeline, load


def names(printed):
    return [Path(line).name for line in printed.splitlines() if line.startswith("/")]


def test_what_is_said_and_written_is_in_the_order_of_the_photos(given, capsys):
    pipeline, load = given
    others = Others(pipeline.writer.out, lambda pieces: [made(pieces, number) for number in (2, 0, 1)])
    manifest = explain(pipeline, report=True, elsewhere=PhotosElsewhere(others, load))
    good = [f"{number:03}.png" for number in range(COUNT) if number not in {1, 17, 33}]
    assert [Path(photo["file"]).name for photo in manifest["photos"]] == good
    assert [Path(failure["file"]).name for failure in manifest["failed"]] == ["001.png", "017.png", "033.png"]
    assert manifest["device"] == "cuda:0, cuda:1, cuda:2"
    said = capsys.readouterr()
    assert names(said.out) == good
    notes = [line for line in said.err.splitlines() if line.startswith("clarp: note: of ")]
    assert [note.removeprefix("clarp: note: ") for note in notes] == [
        "of all",
        "of piece 0",
        "of piece 1",
        "of piece 2",
    ]


def test_a_piece_that_is_given_up_fails_by_name_and_holds_up_no_other(given, capsys):
    pipeline, load = given

    def make(pieces):
        return [made(pieces, 1), AbandonedPiece(pieces[0], 2, "signal 9", "Buy memory."), made(pieces, 2)]

    manifest = explain(
        pipeline, report=True, elsewhere=PhotosElsewhere(Others(pipeline.writer.out, make), load)
    )
    assert [Path(failure["file"]).name for failure in manifest["failed"]][:16] == [
        f"{number:03}.png" for number in range(16)
    ]
    reason = (
        "the process that explained photos 1 to 16 (000.png to 015.png) ended 2 times: signal 9. Buy memory."
    )
    assert manifest["failed"][0]["error"] == reason
    assert len(manifest["photos"]) == len(names(capsys.readouterr().out)) == 15 + 7


def test_an_error_of_one_keeps_what_the_others_have(given):
    pipeline, load = given

    def make(pieces):
        yield made(pieces, 2)
        yield made(pieces, 0, error=OSError("no room"))

    elsewhere = PhotosElsewhere(
        Others(pipeline.writer.out, make, lambda pieces: [made(pieces, 1, error=OSError("none here"))]), load
    )
    with pytest.raises(OSError, match="no room"):
        explain(pipeline, report=False, elsewhere=elsewhere)
    assert len(pipeline.entries) == COUNT - 3
    assert (pipeline.writer.out / "manifest.json").exists()


def test_a_folder_that_is_another_on_the_worker_s_machine(given):
    pipeline, load = given
    others = Others(None, lambda pieces: [made(pieces, 0)])
    with pytest.raises(FileNotFoundError, match="must be a folder that all machines of the cluster share"):
        explain(pipeline, report=False, elsewhere=PhotosElsewhere(others, load))
