"""Several processes on one machine: the table is that of one process, whatever happens to them."""

import os
import signal
import subprocess
from collections import Counter

import psutil
import pytest

from clarp.data import pack
from clarp.data.opening import open_dataset
from data.buckets import s3_server
from evaluation.toys import ENVIRONMENT, command, lines_of, parts_of, started, until
from evaluation.watched import evaluated, opened, same_table, stored_rows, watched_toys

pytest.importorskip("pyarrow.parquet")
pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    with watched_toys(tmp_path_factory.mktemp("toys")) as found:
        yield found


def test_the_table_is_that_of_one_process_and_each_loads_its_model_once(toys, tmp_path, capsys):
    folder, arguments = toys
    opened(folder)
    assert evaluated(*arguments, tmp_path / "run", "--workers", "2") == 0
    assert "60 images, 60 of them computed now" in capsys.readouterr().out
    same_table(folder, tmp_path / "run")
    found = opened(folder)
    workers = {process for process, _ in found}
    assert len(workers) <= 2
    # Each opens the run's first picture once more, to see what the model makes of it.
    assert len(found) == 60 + len(workers)
    assert evaluated(*arguments, tmp_path / "run", "--workers", "3") == 0
    assert "60 images, 0 of them computed now" in capsys.readouterr().out


def test_photos_in_an_object_store(toys, tmp_path, capsys):
    """Each process reads pieces of shards for itself; the table is that of the photos on the disk."""
    folder, arguments = toys
    with s3_server(os.environ):
        pytest.importorskip("fsspec").filesystem("s3").mkdir("toys")
        pack(open_dataset(str(folder / "photos")), "s3://toys/shards", photos_per_shard=7)
        given = [arguments[0], "s3://toys/shards", *arguments[2:]]
        assert evaluated(*given, tmp_path / "run", "--workers", "2") == 0
        assert "60 images, 60 of them computed now" in capsys.readouterr().out
        same_table(folder, tmp_path / "run")
        assert evaluated(*given, "s3://toys/run", "--workers", "2") == 0
        assert "60 images, 60 of them computed now: s3://toys/run/rows." in capsys.readouterr().out
        assert stored_rows("s3://toys/run") == (folder / "whole" / "rows.parquet").read_bytes()


def test_a_killed_worker_costs_its_part_only(toys, tmp_path):
    folder, arguments = toys
    opened(folder)
    process = started(*arguments, tmp_path / "run", "--workers", "2")
    until(lambda: len(lines_of(folder / "opened.txt")) >= 25, process)
    ((busy, _), *_) = Counter((folder / "opened.txt").read_text().split()[::2]).most_common()
    os.kill(int(busy), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    same_table(folder, tmp_path / "run")
    log = opened(folder)
    times = Counter(digest for _, digest in log)
    workers = len({process for process, _ in log})
    assert workers in {2, 3}  # on a busy machine the rest may be done before the third has begun
    (_, first), *others = times.most_common()
    assert first in {workers + 1, workers + 2}  # the run's first picture, which each opens once more
    assert len(others) == 59
    assert {count for _, count in others} <= {1, 2}
    assert sum(count == 2 for _, count in others) <= 16


@pytest.mark.slow
def test_a_part_that_ends_its_worker_twice_is_named_and_the_others_are_there(toys, tmp_path, capsys):
    folder, arguments = toys
    opened(folder)
    evaluated(*arguments, tmp_path / "seen", "--workers", "1")
    poison = opened(folder)[-1][1]  # in the last part
    (folder / "poison").write_text(poison)
    out = tmp_path / "run"
    try:
        assert evaluated(*arguments, out, "--workers", "2") == 2
    finally:
        (folder / "poison").unlink()
    said = capsys.readouterr().err
    assert "pictures 49 to 60 (" in said
    assert "2 times: signal 9 (SIGKILL)" in said
    assert "Fewer workers need less memory" in said
    assert parts_of(out) == parts_of(folder / "whole")[:3]
    assert sum(digest == poison for _, digest in opened(folder)) == 2
    assert evaluated(*arguments, out, "--workers", "2") == 0
    same_table(folder, out)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_goes_on_and_leaves_no_process(toys, tmp_path, how):
    """Ctrl-C goes to all processes of the terminal, kill -9 to one."""
    folder, arguments = toys
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments, out, "--workers", "2"),
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    until(lambda: len(parts_of(out)) >= 2, process)  # the checksum of the last may be missing
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) > 2
    if how == signal.SIGINT:
        os.killpg(process.pid, how)
    else:
        process.kill()
    _, errors = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        lines = [line for line in errors.splitlines() if "note:" not in line]
        assert lines == ["clarp: stopped; the same command goes on from here."]
    assert psutil.wait_procs(below, timeout=20)[1] == []
    done = len(parts_of(out))
    assert 0 < done < 4
    opened(folder)
    assert evaluated(*arguments, out, "--workers", "2") == 0
    same_table(folder, out)
    assert len({digest for _, digest in opened(folder)}) < 60


class TestRefusals:
    def test_another_model_in_the_workers(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":other") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", "--workers", "1") == 2
        said = capsys.readouterr().err
        assert (
            "a worker computes with something else than this process; what differs:\n  model, weights: "
            in said
        )
        assert not (tmp_path / "run" / "run.json").exists()

    @pytest.mark.slow
    def test_workers_that_end_while_they_load(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":dying") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", "--workers", "1") == 2
        assert (
            "3 workers one after the other ended while they loaded the model: signal 9"
            in capsys.readouterr().err
        )

    def test_an_error_in_a_worker_is_the_run_s(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":wrong") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", "--workers", "1") == 2
        assert "toy.py:wrong failed with RuntimeError: no room for it" in capsys.readouterr().err

    def test_other_threads_than_those_of_the_run(self, toys, tmp_path, capsys, monkeypatch):
        folder, arguments = toys
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert evaluated(*arguments, folder / "whole", "--workers", "1") == 2
        assert "threads (OMP_NUM_THREADS): 1 -> 2" in capsys.readouterr().err
