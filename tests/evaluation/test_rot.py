"""Bits that rot, and photos that change while a run is at work: noticed, said, and made anew."""

import random
import subprocess
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.cli import main
from clarp.data.opening import open_dataset
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.store import part_name
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import headline
from clarp.files import has_sum, whole
from clarp.models import load
from evaluation.toys import toy_model, toy_photos

parquet = pytest.importorskip("pyarrow.parquet")


def run(root, out) -> Run:
    classifier = load(toy_model(root))
    opened = open_dataset(str(root / "photos"), classifier.labels)
    settings = Settings(("lrp", "ssglrp"), metrics(["patch-masking:size=5:fill=mean"]), batch_size=4)
    return Run(opened, classifier, settings, out)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A complete run of two parts."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("rot")
    toy_photos(root / "photos", 20)
    evaluation = run(root, root / "run")
    evaluation.complete()
    return root, evaluation.store, (evaluation.store.folder / "rows.parquet").read_bytes()


def rotten(path, seed: int) -> bytes:
    """Turn one bit; returns the bytes as they were."""
    chance = random.Random(seed)
    before = path.read_bytes()
    content = bytearray(before)
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)
    return before


def test_each_file_of_a_run_has_its_checksum_as_sha256sum_writes_it(made):
    _, store, _ = made
    paths = [
        path
        for path in store.folder.rglob("*")
        if path.is_file() and path.suffix in {".parquet", ".json", ".npy"}
    ]
    assert {path.name for path in paths} >= {"run.json", "rows.parquet", "problems.json", "mean_image.npy"}
    for path in paths:
        assert whole(path)
        subprocess.run(["sha256sum", "-c", "--quiet", f"{path.name}.sha256"], cwd=path.parent, check=True)


def test_three_hundred_flipped_bits_are_noticed(made):
    _, store, _ = made
    path = store.folder / part_name(0, 16)
    for seed in range(300):
        before = rotten(path, seed)
        assert not store.has(0, 16)
        path.write_bytes(before)
    assert store.has(0, 16)


@pytest.mark.parametrize(
    "name", ["parts/00000000-00000016.parquet", "rows.parquet", "problems.json", "mean_image.npy"]
)
def test_what_rotted_is_made_anew_and_the_table_is_the_same(made, name):
    root, store, table = made
    rotten(store.folder / name, 1)
    assert store.damaged() == (name,)
    outcome = run(root, store.folder).complete()
    assert outcome.damaged == ((name,) if name.startswith("parts") else ())
    assert (store.folder / "rows.parquet").read_bytes() == table
    assert store.damaged() == () if name != "mean_image.npy" else True
    run(root, store.folder).mean_image  # noqa: B018  it is made when it is asked for
    assert store.damaged() == ()


def test_a_checksum_that_is_missing_or_rotted_counts_as_damage(made):
    root, store, table = made
    path = store.folder / part_name(16, 20)
    (path.parent / f"{path.name}.sha256").unlink()
    assert not store.has(16, 20)
    assert not has_sum(path)
    assert run(root, store.folder).complete().computed == 4
    rotten(path.parent / f"{path.name}.sha256", 3)
    assert run(root, store.folder).complete().computed == 4
    assert (store.folder / "rows.parquet").read_bytes() == table


def test_the_report_says_what_it_found_and_uses_none_of_it(made):
    _, store, _ = made
    whole_report = Report.of(store, "ssglrp", resamples=100)
    assert "Damaged" not in headline(whole_report)
    before = rotten(store.folder / "rows.parquet", 0)
    report = Report.of(store, "ssglrp", resamples=100)
    assert repr(report.lines) == repr(whole_report.lines)  # from the parts
    assert "Damaged, and not used: rows.parquet; the same `clarp evaluate` makes them anew." in headline(
        report
    )
    part = store.folder / part_name(0, 16)
    kept = rotten(part, 0)
    report = Report.of(store, "ssglrp", resamples=100)
    assert "parts/00000000-00000016.parquet, rows.parquet" in headline(report)
    assert not report.complete
    assert report.pictures == 4
    (store.folder / "rows.parquet").write_bytes(before)
    part.write_bytes(kept)


def test_a_manifest_that_rotted_is_refused(made, capsys):
    _, store, _ = made
    path = store.folder / "run.json"
    for seed in range(20):
        before = rotten(path, seed)
        with pytest.raises(SystemExit) as ending:
            main(["report", str(store.folder)])
        assert ending.value.code == 2
        assert "run.json is damaged" in capsys.readouterr().err
        path.write_bytes(before)


def test_pictures_that_rotted_are_left_out(made):
    _, store, _ = made
    path = store.folder / "pictures" / "00000000-00000016.parquet"
    before = rotten(path, 5)
    assert [table is None for table in store.pictures()] == [True, False]
    path.write_bytes(before)


@pytest.mark.parametrize("number", [0, 15, 17])
def test_a_photo_that_changes_while_the_run_is_at_work(tmp_path, number):
    """Its part is not kept: the run's fingerprint is of the photo as it was."""
    toy_photos(tmp_path / "photos", 20)
    evaluation = run(tmp_path, tmp_path / "run")
    path = evaluation.samples[number].picture.path
    was = path.read_bytes()
    begun = threading.Event()

    def advance(_done, _total):
        if not begun.is_set():
            begun.set()
            Image.fromarray(np.zeros((20, 20, 3), dtype=np.uint8)).save(path)

    with pytest.raises(
        ValueError, match=f"{evaluation.samples[number].id} changed while the run was at work"
    ):
        evaluation.complete(advance)
    path.write_bytes(was)
    evaluation = run(tmp_path, tmp_path / "run")
    evaluation.complete()
    run(tmp_path, tmp_path / "undisturbed").complete()
    assert (evaluation.store.folder / "rows.parquet").read_bytes() == (
        tmp_path / "undisturbed" / "rows.parquet"
    ).read_bytes()
