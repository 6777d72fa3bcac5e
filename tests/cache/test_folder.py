"""The folder: damaged files, two processes at once, no room, and where it lies."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch

from cache.nets_in_files import SHAPE, graph, same
from clarp import network as network_module
from clarp.cache import default_folder
from clarp.cache import folder as folder_module
from clarp.network import Network


@pytest.mark.parametrize("place", [0, 70, 0.5, -1])
def test_a_damaged_file(place: float, net: ModuleType, tmp_path: Path, captures: list) -> None:
    first = graph(net.build(), tmp_path)
    (path,) = tmp_path.glob("*.graph")
    content = bytearray(path.read_bytes())
    content[int(place * len(content)) if place == 0.5 else int(place)] ^= 1
    path.write_bytes(content)
    assert same(graph(net.build(), tmp_path), first)
    assert len(captures) == 2
    assert same(graph(net.build(), tmp_path), first)
    assert len(captures) == 2


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_a_file_cut_short(size: int, net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    (path,) = tmp_path.glob("*.graph")
    path.write_bytes(path.read_bytes()[:size])
    graph(net.build(), tmp_path)
    assert len(captures) == 2


WRITER = """
import sys
import torch
sys.path.insert(0, {folder!r})
import net_in_a_file
from clarp.network import Network
{more}
print("ready", flush=True)
graph = Network(net_in_a_file.build(), cache={folder!r}).graph({shape!r}, torch.float32)
print(len(graph.nodes), flush=True)
"""


def start(folder: Path, more: str = "") -> subprocess.Popen[str]:
    source = WRITER.format(folder=str(folder), shape=SHAPE, more=textwrap.dedent(more))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_two_processes_at_once_and_one_killed_while_it_writes(
    net: ModuleType, tmp_path: Path, captures: list
) -> None:
    both = [start(tmp_path), start(tmp_path)]
    counts = [process.communicate(timeout=240)[0].split() for process in both]
    assert counts[0] == counts[1]
    assert [path.suffix for path in tmp_path.glob("*.graph")] == [".graph"]
    (path,) = tmp_path.glob("*.graph")
    path.unlink()
    # os.fsync comes after the bytes and before the rename: there it dies.
    killed = start(tmp_path, "import os, signal\nos.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)")
    killed.communicate(timeout=240)
    assert killed.returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("*.graph"))
    (left,) = tmp_path.glob(".*.tmp")
    os.utime(left, (time.time() - 2 * folder_module.ABANDONED,) * 2)
    graph(net.build(), tmp_path)
    assert len(captures) == 1
    assert not left.exists()


def test_a_folder_that_can_t_be_written_to(net: ModuleType, tmp_path: Path, captures: list) -> None:
    (tmp_path / "file").write_text("in the way")
    for _ in range(2):
        graph(net.build(), tmp_path / "file" / "folder")
    assert len(captures) == 2


def test_a_folder_that_was_deleted_meanwhile(net: ModuleType, tmp_path: Path, captures: list) -> None:
    network = Network(net.build(), cache=tmp_path / "cache")
    for size in (12, 13):
        network.graph((3, size, 12), torch.float32)
        shutil.rmtree(tmp_path / "cache")
    assert len(captures) == 2
    graph(net.build(), tmp_path / "cache")
    graph(net.build(), tmp_path / "cache")
    assert len(captures) == 3


def test_the_oldest_goes_first(net: ModuleType, tmp_path: Path, monkeypatch) -> None:
    graph(net.build(), tmp_path)
    (first,) = tmp_path.glob("*.graph")
    os.utime(first, (1, 1))
    monkeypatch.setattr(folder_module, "LIMIT", first.stat().st_size + 10)
    graph(net.build(doubled=True), tmp_path)
    (second,) = tmp_path.glob("*.graph")
    assert second != first


@pytest.mark.parametrize(("room", "kept"), [(4000, "abcd"), (2000, "cd"), (1999, "d"), (-1, "")])
def test_no_more_goes_than_must(room: int, kept: str, net: ModuleType, tmp_path: Path, monkeypatch) -> None:
    """Four files of 1000 bytes beside the one that is written, which stays even if it alone is too much."""
    graph(net.build(), tmp_path / "elsewhere")
    (own,) = (tmp_path / "elsewhere").glob("*.graph")
    folder = tmp_path / "cache"
    folder.mkdir()
    for used, name in enumerate("abcd", start=1):
        (folder / f"{name}.graph").write_bytes(bytes(1000))
        os.utime(folder / f"{name}.graph", (used, used))
    monkeypatch.setattr(folder_module, "LIMIT", own.stat().st_size + room)
    graph(net.build(), folder)
    assert {path.stem for path in folder.iterdir()} == {own.stem, *kept}


def test_what_is_used_stays_longer(net: ModuleType, tmp_path: Path) -> None:
    graph(net.build(), tmp_path)
    (path,) = tmp_path.glob("*.graph")
    os.utime(path, (1, 1))
    graph(net.build(), tmp_path)
    assert path.stat().st_mtime > 1


def test_a_temporary_file_of_another_process_stays(net: ModuleType, tmp_path: Path) -> None:
    other = tmp_path / ".other.graph.1.tmp"
    other.write_bytes(b"being written")
    graph(net.build(), tmp_path)
    assert other.exists()


def test_the_memory_keeps_the_last_sizes(net: ModuleType) -> None:
    network = Network(net.build())
    first = network.graph(SHAPE, torch.float32)
    for size in range(network_module.KEPT - 1):
        network.graph((3, 13 + size, 12), torch.float32)
    assert network.graph(SHAPE, torch.float32) is first
    assert network.input_shape() == SHAPE
    network.graph((3, 12, 13), torch.float32)
    assert network.graph(SHAPE, torch.float32) is first
    assert len(network._captured) == network_module.KEPT


def test_where_the_folder_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CLARP_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "clarp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_folder() == Path.home() / ".cache" / "clarp"
    monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "own"))
    assert default_folder() == tmp_path / "own"
    monkeypatch.setenv("CLARP_CACHE", "OFF")
    assert default_folder() is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLARP_CACHE", str(tmp_path / "file"))
    with pytest.raises(ValueError, match=r"CLARP_CACHE is .* a file; expected a folder, or off"):
        default_folder()
