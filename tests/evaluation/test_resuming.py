"""kill -9 at random moments: the table is that of an uninterrupted run, bit for bit."""

import os
import random
import signal
import subprocess
import time

import pytest

from clarp.cli import main
from evaluation.toys import ENVIRONMENT, METRICS, finished, parts_of, started, toy_model, toy_photos

pytest.importorskip("pyarrow")


def evaluated(*arguments):
    """Run the command line in this process, where nothing is to be killed."""
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    assert not ending.value.code


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A run of 7 parts that takes a few seconds, most of them in the parts: the model was captured before."""
    folder = tmp_path_factory.mktemp("toys")
    photos = toy_photos(folder / "photos", 100)
    methods = ["--methods", "lrp,ssglrp,gradient", "--metrics", METRICS]
    found = ["evaluate", photos, "--model", toy_model(folder, 0.02), *methods, "--batch-size", "4", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLARP_CACHE", str(folder / "cache"))
        patch.setitem(ENVIRONMENT, "CLARP_CACHE", str(folder / "cache"))
        evaluated(*found, folder / "first", "--limit", "1")
        assert list((folder / "cache").glob("*.graph"))
        yield found


@pytest.fixture(scope="module")
def whole(arguments, tmp_path_factory):
    """The uninterrupted run's table, and how long its rows took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    began = time.monotonic()
    process = started(*arguments, out)
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.01)
    ready = time.monotonic()
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(parts_of(out)) == 7
    assert ready > began
    return (out / "rows.parquet").read_bytes(), time.monotonic() - ready


def killed(arguments, out, seconds):
    """Start, wait until the run has begun and then so long, kill; the number of parts that were there."""
    process = started(*arguments, out)
    while not (out / "run.json").exists() and process.poll() is None:
        time.sleep(0.01)
    if parts_of(out):  # a later start: imports and capture come first
        time.sleep(2.0)
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return len(parts_of(out))


def same_after_kills(arguments, whole, out, kills, seed):
    table, seconds = whole
    moments = random.Random(seed)
    counts = [killed(arguments, out, moments.uniform(0, seconds)) for _ in range(kills)]
    last = finished(*arguments, out)
    assert last.returncode == 0, last.stderr
    assert (out / "rows.parquet").read_bytes() == table
    return counts


def test_a_run_killed_at_random_moments_ends_with_the_same_table(arguments, whole, tmp_path):
    counts = same_after_kills(arguments, whole, tmp_path / "run", 3, seed=1)
    assert counts[0] < 7, "the first kill came after the last part: make the run longer"


@pytest.mark.slow
def test_twenty_killed_runs_end_with_twenty_identical_tables(arguments, whole, tmp_path):
    counts = [
        same_after_kills(arguments, whole, tmp_path / str(run), 1, seed=100 + run)[0] for run in range(20)
    ]
    assert len(set(counts)) > 2, f"the kills all came at the same place: {counts}"


def test_a_finished_run_computes_nothing_again(arguments, tmp_path, capsys):
    out = tmp_path / "run"
    evaluated(*arguments, out, "--limit", "8")
    assert "8 images, 8 of them computed now" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in out.glob("parts/*")}
    evaluated(*arguments, out, "--limit", "8")
    assert "8 images, 0 of them computed now" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.glob("parts/*")} == before


@pytest.fixture
def small_disk(tmp_path):
    """A folder that is a file system of its own, of 96 KiB, and how to give it another size."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        return subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False).returncode

    if not hasattr(os, "geteuid") or os.geteuid() or mount("-t", "tmpfs", "-o", "size=96k", "tmpfs"):
        pytest.skip("mounting a small file system needs root on Linux")
    yield folder, lambda size: mount("-o", f"remount,size={size}")
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_a_run_which_goes_on_when_there_is_room(arguments, whole, small_disk):
    folder, resize = small_disk
    full = finished(*arguments, folder / "run")
    assert full.returncode == 2
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    assert 0 < len(parts_of(folder / "run")) < 7
    assert resize("64m") == 0
    last = finished(*arguments, folder / "run")
    assert last.returncode == 0, last.stderr
    assert (folder / "run" / "rows.parquet").read_bytes() == whole[0]
