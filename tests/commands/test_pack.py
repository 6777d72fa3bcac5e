"""``clarp pack``, and runs over what it wrote: the table is that of the photos, bit for bit."""

import itertools

import pytest

from clarp.cli import main
from clarp.evaluation.store import Store
from evaluation.toys import parts_of, toy_boxes, toy_model, toy_photos
from evaluation.watched import evaluated

pytest.importorskip("pyarrow.parquet")
OPTIONS = ["--methods", "lrp,ssglrp", "--metrics", "patch_masking:size=5", "--batch-size", "4"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "cache"))
    return toy_model(tmp_path)


def packed(*arguments):
    try:
        main(["pack", *map(str, arguments)])
    except SystemExit as end:
        return end.code
    return 0


def test_the_table_is_that_of_the_photos_and_their_run_goes_on(tmp_path, model, capsys):
    photos = toy_photos(tmp_path / "photos", 24)
    assert packed(photos, "--out", tmp_path / "shards", "--photos-per-shard", "10") == 0
    said = capsys.readouterr().out
    assert (
        said
        == f"24 photos in 3 shards: {tmp_path / 'shards'}\nevaluate: clarp evaluate {tmp_path / 'shards'}\n"
    )
    for name in ("photos", "shards"):
        arguments = ["evaluate", tmp_path / name, "--model", model, *OPTIONS]
        assert evaluated(*arguments, "--out", tmp_path / f"run-{name}") == 0
    first, second = (tmp_path / f"run-{name}" / "rows.parquet" for name in ("photos", "shards"))
    assert first.read_bytes() == second.read_bytes()
    (tmp_path / "run-photos" / "parts" / parts_of(tmp_path / "run-photos")[1]).unlink()
    capsys.readouterr()
    # It is the same data set to a run, so one that was begun with the photos goes on with the shards.
    assert evaluated(*arguments, "--out", tmp_path / "run-photos") == 0
    assert "24 images, 8 of them computed now" in capsys.readouterr().out
    assert first.read_bytes() == second.read_bytes()


def test_with_objects(tmp_path, model):
    boxes = toy_boxes(tmp_path / "boxes", 6)
    assert packed(boxes, "--out", tmp_path / "shards") == 0
    for name in ("boxes", "shards"):
        arguments = ["evaluate", tmp_path / name, "--model", model, "--methods", "lrp"]
        arguments += ["--metrics", "energy-pointing,pointing", "--out", tmp_path / f"run-{name}"]
        assert evaluated(*arguments) == 0
    first, second = (tmp_path / f"run-{name}" / "rows.parquet" for name in ("boxes", "shards"))
    assert first.read_bytes() == second.read_bytes()


def test_a_table_with_names_needs_them(tmp_path, capsys):
    toy_photos(tmp_path / "photos", 4)
    (tmp_path / "photos" / "labels.csv").write_text(
        "file,class\nant/000.png,cow\nbee/001.png,ant\ngone.png,ant\n"
    )
    assert packed(tmp_path / "photos", "--out", tmp_path / "shards") == 2
    assert "class 'cow' is none of class indices" in capsys.readouterr().err
    assert not (tmp_path / "shards").exists()
    (tmp_path / "labels.txt").write_text("ant\nbee\ncow\ndog\n")
    arguments = [tmp_path / "photos", "--out", tmp_path / "shards", "--labels", tmp_path / "labels.txt"]
    assert packed(*arguments) == 1  # one is missing
    said = capsys.readouterr()
    assert said.out.startswith("2 photos in 1 shards, 1 could not be read: ")
    assert "clarp: not packed: gone.png: missing (listed in labels.csv, line 4)" in said.err
    assert "2 other files are no part of the data set, first: cow/002.png" in said.err
    assert packed(*arguments) == 2
    assert "has 000000.tar and others in it" in capsys.readouterr().err


def test_maps_on_another_file_system_are_refused(tmp_path, model, capsys, monkeypatch):
    photos = toy_photos(tmp_path / "photos", 4)
    monkeypatch.chdir(tmp_path)
    assert evaluated("explain", photos / "ant", "--model", model, "--out", "s3://bucket/maps") == 2
    said = "--out is s3://bucket/maps, and maps are written to a folder on a disk: give one, and copy it"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "s3:").exists()


def test_a_store_that_stops_answering_stops_the_run_which_goes_on_later(tmp_path, model, capsys, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    photos = toy_photos(tmp_path / "photos", 40)
    arguments = ["evaluate", photos, "--model", model, "--methods", "lrp", "--batch-size", "4"]
    arguments += [
        "--metrics",
        "patch_masking:size=5:fill=colour",
    ]  # without a mean image, which opens all first
    assert evaluated(*arguments, "--out", tmp_path / "whole") == 0
    try:
        assert packed(photos, "--out", "memory://clarp-run/shards") == 0
        arguments[1] = "memory://clarp-run/shards"
        count, memory = itertools.count(), type(fsspec.filesystem("memory"))
        read = memory.cat_file

        def failing(self, path, **place):
            if path.endswith(".tar") and next(count) >= 25:
                raise ConnectionError("the cable is out")
            return read(self, path, **place)

        with monkeypatch.context() as patch:
            patch.setattr(memory, "cat_file", failing)
            assert evaluated(*arguments, "--out", tmp_path / "run") == 2
        assert (
            "000000.tar can't be read or written: ConnectionError: the cable is out."
            in capsys.readouterr().err
        )
        assert parts_of(tmp_path / "run") == parts_of(tmp_path / "whole")[:1]
        assert Store(tmp_path / "run").problems() == 0
        assert evaluated(*arguments, "--out", tmp_path / "run") == 0
    finally:
        fsspec.filesystem("memory").rm("/clarp-run", recursive=True)
    first, second = (tmp_path / name / "rows.parquet" for name in ("whole", "run"))
    assert first.read_bytes() == second.read_bytes()
