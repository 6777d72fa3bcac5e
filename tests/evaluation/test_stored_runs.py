"""Runs in an object store: the table is that of a run on a disk, whatever is killed or written twice."""

import os
import threading

import numpy as np
import pytest

from clarp.data.opening import open_dataset
from clarp.data.problems import StoreError
from clarp.evaluation.confident import confident
from clarp.evaluation.files import LocalFiles, StoredFiles, run_files
from clarp.evaluation.findings import Findings
from clarp.evaluation.run import Run
from clarp.evaluation.settings import Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.store import Store, part_name
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import write
from clarp.models import load
from data.buckets import s3_server
from evaluation.toys import ENVIRONMENT, parts_of, started, toy_model, toy_photos, until
from evaluation.watched import caching, evaluated, stored_rows

fsspec = pytest.importorskip("fsspec", reason='needs pip install "clarp[remote]"')
arrow = pytest.importorskip("pyarrow")
PHOTOS = 80
METRIC = "patch-masking:size=5:fill=mean"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos, a model that was captured, and ``whole``, their run on a disk."""
    root = tmp_path_factory.mktemp("stored")
    toy_photos(root / "photos", PHOTOS)
    toy_model(root, 0.02)
    with caching(root):
        assert evaluated(*arguments(root), root / "whole") == 0
        yield root


def arguments(root):
    found = ["evaluate", root / "photos", "--model", f"{root / 'toy.py'}:build", "--methods", "lrp"]
    return [*found, "--metrics", METRIC, "--batch-size", "4", "--out"]


@pytest.fixture
def memory(tmp_path):
    """A URL of this process's memory, and its file system."""
    system = fsspec.filesystem("memory")
    name = f"/run-{tmp_path.name}"
    yield f"memory:/{name}", system
    if system.exists(name):
        system.rm(name, recursive=True)


def run(folder, out, **settings):
    classifier = load(f"{folder / 'toy.py'}:build")
    opened = open_dataset(str(folder / "photos"), classifier.labels)
    chosen = Settings(("lrp",), metrics([METRIC]), batch_size=4, **settings)
    return Run(opened, classifier, chosen, out)


def objects(system, url, place=""):
    """What lies in a folder of a run, without what another process is writing."""
    system.invalidate_cache()
    path = f"{url}/{place}".rstrip("/")
    return sorted(system.ls(path, detail=False)) if system.exists(path) else []


def test_killed_with_a_part_by_half_it_goes_on_to_the_same_table_and_report(folder, capsys):
    with s3_server(os.environ, ENVIRONMENT):
        system, url = fsspec.filesystem("s3"), "s3://runs/deep/run"
        system.mkdir("runs")
        process = started(*arguments(folder), url)
        until(lambda: len(objects(system, url, "parts")) >= 3, process)
        process.kill()
        process.communicate()
        there = objects(system, url, "parts")
        assert 3 <= len(there) < 5
        assert not any("rows" in name for name in objects(system, url))
        system.pipe_file(there[1], system.cat_file(there[1])[:500])  # as a store without atomic writes has it
        assert evaluated(*arguments(folder), url) == 0
        said = capsys.readouterr()
        left = PHOTOS - 16 * (len(there) - 1)
        assert f"{PHOTOS} images, {left} of them computed now: s3://runs/deep/run/rows." in said.out
        assert "damaged, and made anew: parts/00000016-00000032.parquet" in said.err
        table = (folder / "whole" / "rows.parquet").read_bytes()
        assert stored_rows(url) == table
        assert len(objects(system, url, "parts")) == len(parts_of(folder / "whole")) == 5

        other = [*arguments(folder), url, "--limit", "8"]
        assert evaluated(*other) == 2
        assert f"{url} has a run of something else; what changed:\n  limit: nothing -> 8" in (
            capsys.readouterr().err
        )
        assert evaluated("report", url, "--resamples", "200") == 0
        assert f"{url}/report/summary.csv\n" in capsys.readouterr().out
        report = Report.of(Store(folder / "whole"), "lrp", resamples=200)
        write(report, folder / "report", Findings.of(Store(folder / "whole"), seed=0))
        for path in (folder / "report").iterdir():
            if path.suffix != ".png":
                assert system.cat_file(f"{url}/report/{path.name}") == path.read_bytes()
        assert system.exists(f"{url}/report/index.html")


def test_two_at_once_do_no_harm(folder, memory):
    url, _ = memory
    runs = [run(folder, url) for _ in range(2)]
    for one in runs:
        one.fingerprint()  # the model is captured
    both, outcomes = threading.Barrier(2), []

    def advance(done, _):
        if done == 0:
            both.wait()  # until each knows that all parts are missing

    def complete(one):
        outcomes.append(one.complete(advance))

    others = [threading.Thread(target=complete, args=(one,)) for one in runs]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [outcome.computed for outcome in outcomes] == [PHOTOS, PHOTOS]
    assert stored_rows(url) == (folder / "whole" / "rows.parquet").read_bytes()
    again = run(folder, url).complete()
    assert (again.computed, again.damaged) == (0, ())
    assert Store(url).damaged() == ()
    pairs = zip(Store(url).pictures(), Store(folder / "whole").pictures(), strict=True)
    assert all(one.equals(other) for one, other in pairs)


def test_parts_of_one_range_with_different_bytes_all_count(memory):
    """A part says which methods its process found lossy until then, so two processes' bytes may differ."""
    url, system = memory
    schema = arrow.schema([("value", arrow.int64())])
    store = Store(url)
    store.begin({"model": "a"}, {})
    for lost in ((), ("lrp",)):
        Store(url).write_part(0, 2, {"value": [1, 2]}, schema, [], lost=lost)
    assert len(objects(system, url, "parts")) == 2
    fresh = Store(url)
    assert fresh.missing([(0, 2), (2, 4)]) == [(2, 4)]
    assert fresh.part_rows() == [2]
    assert fresh.rows().column("value").to_pylist() == [1, 2]
    first, _ = objects(system, url, "parts")
    system.pipe_file(first, system.cat_file(first)[:-1])
    assert Store(url).has(0, 2)
    assert Store(url).damaged() == ()


def test_two_that_begin_different_runs_at_once(memory, monkeypatch):
    """Nobody can lock the folder, so whoever sees another's run.json withdraws its own."""
    url, _ = memory
    refresh = StoredFiles.refresh

    def late(files):
        monkeypatch.setattr(StoredFiles, "refresh", refresh)
        Store(url).files.write("run.json", lambda file: file.write(b'{"fingerprint": {"model": "b"}}'))
        refresh(files)

    monkeypatch.setattr(StoredFiles, "refresh", late)
    with pytest.raises(ValueError, match="another process began a run of something else there"):
        Store(url).begin({"model": "a"}, {})
    assert Store(url).about() == {"fingerprint": {"model": "b"}}
    with pytest.raises(ValueError, match="model: b -> a"):
        Store(url).begin({"model": "a"}, {})


@pytest.mark.parametrize("seed", range(3))
def test_rot_is_noticed(folder, memory, seed):
    """A bit of every object in turn."""
    url, system = memory
    chance = np.random.default_rng(seed)
    store = Store(url)
    store.begin({"model": "a"}, {})
    schema = arrow.schema([("value", arrow.int64())])
    store.write_part(0, 2, {"value": [1, 2]}, schema, [])
    store.write_pictures(0, 2, {"value": [1, 2]}, schema)
    store.merge([(0, 2)], [])
    names = [name for place in ("", "parts", "pictures") for name in objects(system, url, place)]
    files = [name for name in names if system.isfile(name)]
    assert len(files) == 5
    for name in files:
        before = system.cat_file(name)
        content = bytearray(before)
        content[chance.integers(len(content))] ^= 1 << int(chance.integers(8))
        system.pipe_file(name, bytes(content))
        fresh = Store(url)
        if "/run." in name:
            with pytest.raises(ValueError, match=r"run\.json is damaged"):
                fresh.about()
        else:
            assert len(fresh.damaged()) == 1
        if "/parts/" in name:
            assert not fresh.has(0, 2)
        if "/rows." in name:
            assert not fresh.complete
        if "/pictures/" in name:
            assert list(fresh.pictures()) == [None]
        system.pipe_file(name, before)


def test_a_run_json_by_half_is_written_again(memory):
    url, system = memory
    Store(url).begin({"model": "a"}, {})
    (name,) = objects(system, url)
    system.pipe_file(name, b"{")
    Store(url).begin({"model": "a"}, {})
    assert Store(url).about() == {"fingerprint": {"model": "a"}}


def test_parts_without_a_run_and_a_folder_without_one(memory):
    url, system = memory
    with pytest.raises(ValueError, match=r"has no run\.json"):
        Store(url).about()
    system.pipe_file(f"{url}/parts/00000000-00000016.{'0' * 64}.parquet", b"PAR1")
    with pytest.raises(ValueError, match=r"has parts/\*\.parquet but no run\.json"):
        Store(url).begin({"model": "a"}, {})


def test_photos_for_mosaics_are_kept_there(folder, memory, monkeypatch):
    url, _ = memory
    classifier = load(f"{folder / 'toy.py'}:build")
    opened = open_dataset(str(folder / "photos"), classifier.labels)
    first, device = confident(opened, classifier, url, "cpu", 0.26), "cpu"
    assert 0 < len(first) < PHOTOS
    monkeypatch.setattr("clarp.evaluation.confident._found", lambda *_: pytest.fail("looked again"))
    assert [s.id for s in confident(opened, classifier, url, device, 0.26)] == [s.id for s in first]


@pytest.mark.slow
def test_a_bucket_that_is_not_there(folder, capsys):
    with s3_server(os.environ):
        assert evaluated(*arguments(folder), "s3://no-such-bucket/run") == 2
        assert "s3://no-such-bucket/run does not exist" in capsys.readouterr().err
        assert not fsspec.filesystem("s3").exists("no-such-bucket")


@pytest.mark.slow
def test_a_store_that_fails_stops_the_run_which_goes_on(folder, memory, monkeypatch):
    url, system = memory
    opened = type(system).open

    def failing(self, path, mode="rb", **options):
        if "/parts/00000032" in path and mode == "wb":
            raise ConnectionError("the cable is out")
        return opened(self, path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(system), "open", failing)
        with pytest.raises(StoreError, match="ConnectionError: the cable is out"):
            run(folder, url).complete()
    assert Store(url).has(0, 16)
    assert not Store(url).has(32, 48)
    outcome = run(folder, url).complete()
    assert 16 <= outcome.computed < PHOTOS
    assert outcome.damaged == ()


def test_where_a_run_is_decides_how_it_is_written(tmp_path):
    assert isinstance(run_files("s3://bucket/run/"), StoredFiles)
    assert isinstance(run_files(str(tmp_path)), LocalFiles)
    assert isinstance(run_files(tmp_path), LocalFiles)
    assert part_name(0, 16) == "parts/00000000-00000016.parquet"
