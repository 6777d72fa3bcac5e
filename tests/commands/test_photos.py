"""`clarp explain` by several processes: files and manifest are those of one, whatever happens to them."""

import os
import signal
import subprocess
from collections import Counter

import psutil
import pytest

from evaluation.toys import ENVIRONMENT, command, lines_of, started, until
from evaluation.watched import (
    check_manifest_has_what_is_there,
    evaluated,
    files_of,
    manifest_of,
    names_of,
    opened,
    same_maps,
    watched_photos,
)

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    with watched_photos(tmp_path_factory.mktemp("toys")) as found:
        yield found


def begun(folder, photos):
    """Wait until workers have opened so many."""
    until(lambda: len(lines_of(folder / "opened.txt")) >= photos)


def test_all_is_as_by_one_process_and_each_photo_is_opened_once(toys, tmp_path, capfd):
    folder, arguments = toys
    evaluated(*arguments, folder / "whole")
    whole = capfd.readouterr()
    opened(folder)
    out = tmp_path / "out"
    assert evaluated(*arguments, out, "--workers", "2") == 1
    said = capfd.readouterr()
    same_maps(folder, out)
    assert said.out.replace(str(out), str(folder / "whole")) == whole.out
    assert said.err == whole.err
    found = opened(folder)
    assert len({process for process, _ in found}) == 2
    assert len({digest for _, digest in found}) == len(found) == 60


def test_a_killed_worker_costs_its_piece_only(toys, tmp_path):
    folder, arguments = toys
    opened(folder)
    process = started(*arguments, tmp_path / "out", "--workers", "2")
    begun(folder, 25)
    ((busy, _), *_) = Counter((folder / "opened.txt").read_text().split()[::2]).most_common()
    os.kill(int(busy), signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    same_maps(folder, tmp_path / "out")
    times = Counter(digest for _, digest in opened(folder))
    assert len(times) == 60
    assert set(times.values()) <= {1, 2}
    assert sum(count == 2 for count in times.values()) <= 16


@pytest.mark.slow
def test_a_piece_that_ends_its_worker_twice_fails_and_the_others_are_there(toys, tmp_path, capsys):
    folder, arguments = toys
    opened(folder)
    evaluated(*arguments, tmp_path / "seen", "--workers", "1")
    poison = opened(folder)[20][1]  # in the second piece
    (folder / "poison").write_text(poison)
    out = tmp_path / "out"
    try:
        assert evaluated(*arguments, out, "--workers", "2") == 1
    finally:
        (folder / "poison").unlink()
    expected, names = manifest_of(folder / "whole")["photos"], names_of(folder / "whole")
    assert manifest_of(out)["photos"] == expected[:15] + expected[31:]
    unreadable, *failed = manifest_of(out)["failed"]
    assert unreadable["file"].endswith("004b.png")
    assert [failure["file"].rpartition("/")[2] for failure in failed] == names[15:31]
    said = (
        "the process that explained photos 17 to 32 (015.png to 030.png) ended 2 times: signal 9 (SIGKILL)."
    )
    assert all(failure["error"].startswith(said) for failure in failed)
    assert f"clarp: skipped {failed[0]['file']}: {said} Fewer workers" in capsys.readouterr().err


@pytest.mark.parametrize("everybody", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_what_was_explained_before_ctrl_c_is_kept_and_no_process_is(toys, tmp_path, everybody):
    """Ctrl-C goes to all processes of the terminal, and kill -INT to one."""
    folder, arguments = toys
    opened(folder)
    out = tmp_path / "out"
    process = subprocess.Popen(
        command(*arguments, out, "--workers", "2"),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    until(lambda: len(list(out.glob("*.npy"))) >= 6, process)
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) > 2
    (os.killpg if everybody else os.kill)(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    done = len(names_of(out))
    assert 6 <= done < 60
    assert f"stopped after {done} of 61 photos" in errors
    assert "Traceback" not in errors
    check_manifest_has_what_is_there(out)
    assert psutil.wait_procs(below, timeout=20)[1] == []


@pytest.mark.slow
def test_a_file_that_cannot_be_written_stops_it_with_one_sentence(toys, tmp_path, capsys):
    folder, arguments = toys
    out = tmp_path / "out"
    relevance = manifest_of(folder / "whole")["photos"][7]["explanations"][0]["relevance"]
    (out / relevance).mkdir(parents=True)
    assert evaluated(*arguments, out, "--workers", "2") == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "note:" not in line]
    assert (
        f"clarp: {out / relevance} can't be written (Is a directory); make room, or name another" in said[-1]
    )
    done = names_of(out)
    assert "007.png" not in done
    assert {"000.png", "001.png"} <= set(done)
    assert len(done) < 60


def test_a_file_that_explains_by_several_processes(toys, tmp_path):
    _, (_, photos, _, model, *more) = toys
    file = tmp_path / "explain.pt2"
    assert evaluated("export", "--model", model, "--size", "24", "--out", file) == 0
    arguments = ["explain", photos, "--model", file, *more]
    assert evaluated(*arguments, tmp_path / "one") == 1
    assert evaluated(*arguments, tmp_path / "two", "--workers", "2") == 1
    assert manifest_of(tmp_path / "two") == manifest_of(tmp_path / "one")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert len(names_of(tmp_path / "one")) == 60


@pytest.mark.slow
def test_another_engine_by_several_processes(toys, tmp_path, capfd):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    _, arguments = toys
    arguments = [*arguments[:2], "--method", "lrp", "--engine", "onnxruntime", *arguments[2:]]
    assert evaluated(*arguments, tmp_path / "one") == 1
    assert evaluated(*arguments, tmp_path / "two", "--workers", "2") == 1
    assert "recording" in capfd.readouterr().err
    assert manifest_of(tmp_path / "two") == manifest_of(tmp_path / "one")
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")


class TestRefusals:
    def test_another_model_in_the_workers(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":other") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "out", "--workers", "1") == 2
        said = "a worker computes with something else than this process; what differs:\n  model, weights: "
        assert said in capsys.readouterr().err
        assert list((tmp_path / "out").iterdir()) == []

    def test_an_error_in_a_worker_is_the_command_s(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":wrong") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "out", "--workers", "1") == 2
        assert "toy.py:wrong failed with RuntimeError: no room for it" in capsys.readouterr().err

    @pytest.mark.slow
    def test_workers_that_end_while_they_load(self, toys, tmp_path, capsys):
        _, arguments = toys
        arguments = [str(argument).replace(":build", ":dying") for argument in arguments]
        assert evaluated(*arguments, tmp_path / "out", "--workers", "1") == 2
        said = "3 workers one after the other ended while they loaded the model: signal 9"
        assert said in capsys.readouterr().err
