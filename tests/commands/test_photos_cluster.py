"""`clarp explain` by a real Ray cluster: files and manifest are those of one process, whatever happens to it."""

import os
import signal
import subprocess
from collections import Counter

import pytest

from evaluation.toys import ENVIRONMENT, command, lines_of, started, until
from evaluation.watched import (
    check_manifest_has_what_is_there,
    evaluated,
    manifest_of,
    names_of,
    opened,
    same_maps,
    watched_photos,
)

pytest.importorskip("ray", reason='needs pip install "clarp[ray]"')

from ray.cluster_utils import Cluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    with watched_photos(tmp_path_factory.mktemp("toys")) as found:
        yield found


@pytest.fixture(scope="module")
def on():
    """Where there is a head without a CPU, and two nodes with one each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        yield ["--engine", "ray", "--address", cluster.address]
    finally:
        cluster.shutdown()


def test_all_is_as_by_one_process_and_each_photo_is_opened_once(toys, on, tmp_path, capfd):
    folder, arguments = toys
    evaluated(*arguments, folder / "whole")
    whole = capfd.readouterr()
    opened(folder)
    out = tmp_path / "out"
    assert evaluated(*arguments, out, *on) == 1
    said = capfd.readouterr()
    same_maps(folder, out)
    assert said.out.replace(str(out), str(folder / "whole")) == whole.out
    assert said.err == whole.err
    found = opened(folder)
    assert len({process for process, _ in found}) == 2
    assert len({digest for _, digest in found}) == len(found) == 60


@pytest.mark.slow
def test_a_killed_worker_costs_its_piece_only(toys, on, tmp_path):
    folder, arguments = toys
    opened(folder)
    process = started(*arguments, tmp_path / "out", *on)
    log = folder / "opened.txt"
    until(lambda: len(lines_of(log)) >= 20, process)
    ((busy, _), *_) = Counter(log.read_text().split()[::2]).most_common()
    os.kill(int(busy), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    same_maps(folder, tmp_path / "out")
    times = Counter(digest for _, digest in opened(folder))
    assert len(times) == 60
    assert set(times.values()) <= {1, 2}
    assert sum(count == 2 for count in times.values()) <= 16


@pytest.mark.slow
def test_a_piece_that_ends_its_worker_five_times_fails_and_the_others_are_there(toys, on, tmp_path):
    folder, arguments = toys
    opened(folder)
    evaluated(*arguments, tmp_path / "seen", "--workers", "1")
    poison = opened(folder)[20][1]  # in the second piece
    (folder / "poison").write_text(poison)
    out = tmp_path / "out"
    try:
        assert evaluated(*arguments, out, *on) == 1
    finally:
        (folder / "poison").unlink()
    assert sum(digest == poison for _, digest in opened(folder)) == 5
    expected = manifest_of(folder / "whole")["photos"]
    assert manifest_of(out)["photos"] == expected[:15] + expected[31:]
    _, *failed = manifest_of(out)["failed"]
    assert len(failed) == 16
    said = "the process that explained photos 17 to 32 (015.png to 030.png) ended 5 times: "
    assert all(failure["error"].startswith(said) for failure in failed)


@pytest.mark.slow
def test_what_was_explained_before_ctrl_c_is_kept(toys, on, tmp_path):
    folder, arguments = toys
    opened(folder)
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(*arguments, out, *on),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    )
    until(lambda: len(list(out.glob("*.npy"))) >= 6, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    done = len(names_of(out))
    assert 6 <= done < 60
    assert [line for line in errors.splitlines() if "note:" not in line and "skipped" not in line] == [
        f"clarp: stopped after {done} of 61 photos; {out / 'manifest.json'} has those."
    ]
    check_manifest_has_what_is_there(out)


@pytest.mark.slow
def test_a_file_that_cannot_be_written_stops_it_with_one_sentence(toys, on, tmp_path, capsys):
    folder, arguments = toys
    out = tmp_path / "out"
    relevance = manifest_of(folder / "whole")["photos"][7]["explanations"][0]["relevance"]
    (out / relevance).mkdir(parents=True)
    assert evaluated(*arguments, out, *on) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert (
        f"clarp: {out / relevance} can't be written (Is a directory); make room, or name another" in said[-1]
    )
    assert "007.png" not in names_of(out)
    assert {"000.png", "001.png"} <= set(names_of(out))
