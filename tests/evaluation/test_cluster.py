"""A real Ray cluster of several nodes: the table is that of one process, whatever happens to them."""

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from contextlib import contextmanager

import pytest

from clarp.workers.cluster import RayTasks
from data.buckets import s3_server
from evaluation.toys import ENVIRONMENT, command, lines_of, parts_of, started, until
from evaluation.watched import evaluated, opened, same_table, stored_rows, watched_toys

pytest.importorskip("ray", reason='needs pip install "clarp[ray]"')

from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    with watched_toys(tmp_path_factory.mktemp("toys")) as found:
        yield found


@contextmanager
def cluster_of(nodes, **head):
    """A cluster of so many nodes with a CPU each, besides a head without one, and its address."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **head})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture(scope="module")
def cluster():
    with cluster_of(2) as found:
        yield found


def on(cluster, *more):
    return ["--engine", "ray", "--address", cluster.address, *more]


def begun(folder, out, *, photos=20):
    """Wait until workers are in the middle of it."""
    until(lambda: len(lines_of(folder / "opened.txt")) >= photos)
    assert len(parts_of(out)) < 4


def test_the_table_is_that_of_one_process_and_each_part_is_computed_once(toys, cluster, tmp_path, capfd):
    folder, arguments = toys
    opened(folder)
    out = tmp_path / "run"
    assert evaluated(*arguments, out, *on(cluster)) == 0
    said = capfd.readouterr()
    assert "60 images, 60 of them computed now" in said.out
    assert "ray" not in said.out.lower().replace(str(tmp_path).lower(), "")
    assert [line for line in said.err.splitlines() if "note:" not in line] == []
    same_table(folder, out)
    found = opened(folder)
    assert len(found) == 60 + len({process for process, _ in found})
    assert evaluated(*arguments, out, *on(cluster)) == 0
    assert "60 images, 0 of them computed now" in capfd.readouterr().out
    # Processes of this machine go on with a cluster's run, and the other way round.
    (out / "parts" / parts_of(out)[1]).unlink()
    assert evaluated(*arguments, out, "--workers", "1") == 0
    same_table(folder, out)


def test_a_killed_worker_costs_its_part_only(toys, cluster, tmp_path):
    folder, arguments = toys
    opened(folder)
    process = started(*arguments, tmp_path / "run", *on(cluster))
    begun(folder, tmp_path / "run")
    ((busy, _), *_) = Counter((folder / "opened.txt").read_text().split()[::2]).most_common()
    os.kill(int(busy), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    same_table(folder, tmp_path / "run")
    times = Counter(digest for _, digest in opened(folder)).most_common()[
        1:
    ]  # each opens the first once more
    assert len(times) == 59
    assert {count for _, count in times} <= {1, 2}
    assert sum(count == 2 for _, count in times) <= 16


def test_a_run_in_an_object_store(toys, cluster, tmp_path, capfd):
    """Only the command writes there, so machines of the cluster need no access to the run."""
    folder, arguments = toys
    with s3_server(os.environ):
        pytest.importorskip("fsspec").filesystem("s3").mkdir("runs")
        assert evaluated(*arguments, "s3://runs/ray", *on(cluster)) == 0
        assert "60 images, 60 of them computed now: s3://runs/ray/rows." in capfd.readouterr().out
        assert stored_rows("s3://runs/ray") == (folder / "whole" / "rows.parquet").read_bytes()


@pytest.mark.slow
def test_a_lost_node_costs_its_part_and_a_new_one_is_used(toys, tmp_path):
    folder, arguments = toys
    opened(folder)
    with cluster_of(1) as cluster:
        lost = cluster.add_node(num_cpus=1)
        process = started(*arguments, tmp_path / "run", *on(cluster))
        begun(folder, tmp_path / "run")
        cluster.remove_node(lost, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    same_table(folder, tmp_path / "run")
    times = Counter(digest for _, digest in opened(folder)).most_common()[1:]
    assert sum(count > 1 for _, count in times) <= 16


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_is_ended_goes_on(toys, cluster, tmp_path, how):
    folder, arguments = toys
    opened(folder)
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(*arguments, out, *on(cluster)), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    until(lambda: len(parts_of(out)) >= 2, process)  # the checksum of the last may be missing
    process.send_signal(how)
    _, errors = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130
        lines = [line for line in errors.splitlines() if "note:" not in line]
        assert lines == ["clarp: stopped; the same command goes on from here."]
    assert 0 < len(parts_of(out)) < 4
    assert evaluated(*arguments, out, *on(cluster)) == 0
    same_table(folder, out)


@pytest.mark.slow
def test_a_part_that_ends_its_worker_five_times_is_named_and_the_others_are_there(
    toys, cluster, tmp_path, capsys
):
    folder, arguments = toys
    opened(folder)
    evaluated(*arguments, tmp_path / "seen", "--workers", "1")
    poison = opened(folder)[-1][1]  # in the last part
    (folder / "poison").write_text(poison)
    out = tmp_path / "run"
    try:
        assert evaluated(*arguments, out, *on(cluster)) == 2
    finally:
        (folder / "poison").unlink()
    said = capsys.readouterr().err
    assert "pictures 49 to 60 (" in said
    assert "5 times: " in said
    assert parts_of(out) == parts_of(folder / "whole")[:3]
    assert sum(digest == poison for _, digest in opened(folder)) == 5
    assert evaluated(*arguments, out, *on(cluster, "--workers", "1")) == 0
    same_table(folder, out)


@pytest.mark.slow
def test_without_an_address_a_cluster_of_this_machine_comes_and_goes(toys, tmp_path):
    folder, arguments = toys
    assert evaluated(*arguments, tmp_path / "run", "--engine", "ray", "--workers", "2") == 0
    same_table(folder, tmp_path / "run")


class TestRefusals:
    def test_an_address_where_nobody_answers(self, tmp_path, monkeypatch):
        """Ray remembers clusters that have ended, and would look for one for minutes."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            address = f"127.0.0.1:{server.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)  # of other tests
        for given in ("auto", address, f"ray://{address}"):
            began = time.monotonic()
            with (
                pytest.raises(ValueError, match=rf"^no Ray cluster answers at '{given}': .*refused"),
                RayTasks(given).started(None, most=1),
            ):
                pass
            assert time.monotonic() - began < 10
        (tmp_path / "ray" / "ray_current_cluster").unlink()
        with (
            pytest.raises(ValueError, match=r"^no Ray cluster answers at 'auto': Could not find any running"),
            RayTasks("auto").started(None, most=1),
        ):
            pass

    def test_another_model_in_the_cluster(self, toys, cluster, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":other") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", *on(cluster)) == 2
        said = "a worker computes with something else than this process; what differs:\n  model, weights: "
        assert said in capsys.readouterr().err
        assert not (tmp_path / "run" / "run.json").exists()

    @pytest.mark.slow
    def test_workers_that_end_while_they_load(self, toys, cluster, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":dying") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", *on(cluster)) == 2
        said = "5 workers one after the other ended while they loaded the model: "
        assert said in capsys.readouterr().err

    def test_an_error_in_a_worker_is_the_run_s(self, toys, cluster, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":wrong") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "run", *on(cluster)) == 2
        assert "toy.py:wrong failed with RuntimeError: no room for it" in capsys.readouterr().err

    @pytest.mark.parametrize(
        "more_and_said",
        [
            (["--gpus-per-worker", "0.5"], "a worker needs 1 CPUs and 0.5 GPUs of one machine, and those of"),
            (["--device", "cuda"], "a worker needs 1 CPUs and 1 GPUs of one machine"),
            (["--device", "cuda:1"], "Ray chooses the GPUs"),
            (["--device", "cpu", "--gpus-per-worker", "1"], "leave out one of them"),
        ],
    )
    def test_what_no_machine_of_the_cluster_has(self, toys, cluster, tmp_path, capsys, more_and_said):
        (_, arguments), (more, said) = toys, more_and_said
        assert evaluated(*arguments, tmp_path / "run", *on(cluster, *more)) == 2
        assert said in capsys.readouterr().err
