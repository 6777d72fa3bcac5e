"""Entries that somebody else wrote: with a fresh checksum, with another model's graph, or no files at all."""

import hashlib
import io
import json
import os
import pickle
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load, save

from cache.nets_in_files import graph, same
from clarp.cache.checksum import with_checksum, without_checksum
from clarp.cache.form import DOCUMENT
from clarp.files import read_regular

POSIX = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no owners here")


def entry(folder: Path) -> Path:
    (path,) = folder.glob("*.graph")
    return path


def forge(path: Path, change) -> None:
    """Another document or other values, under a checksum that is right."""
    values = load(without_checksum(path.read_bytes()))
    document = json.loads(values[DOCUMENT].numpy().tobytes())
    changed = change(document, values)
    text = json.dumps(document if changed is None else changed).encode()
    values[DOCUMENT] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    payload = save(values)
    path.write_bytes(with_checksum(payload))


def other_values(_, values) -> None:
    for name in values:
        if name.startswith("value."):
            values[name] = values[name] + 1


def _swap(document, kind, **changed) -> None:
    for node in document["nodes"]:
        if node["operation"] == kind:
            node["fields"].update(changed)


FORGERIES = {
    "other weights": other_values,
    "another output": lambda document, _: {**document, "output": document["nodes"][0]["name"]},
    "an unknown output": lambda document, _: {**document, "output": "nowhere"},
    "no nodes": lambda document, _: {**document, "nodes": []},
    "nodes in another order": lambda document, _: {**document, "nodes": document["nodes"][::-1]},
    "a list": lambda *_: [],
    "a number": lambda *_: 3,
    "another link": lambda document, _: {**document, "link": "aten.exp.default"},
    "tensors of others": lambda document, _: {**document, "tensors": {}},
    "the input's shape": lambda document, _: {**document, "input_shape": ["a"]},
    "an operation of no such name": lambda document, _: {
        **document,
        "nodes": [{**document["nodes"][0], "operation": "eval"}],
    },
    "too many fields": lambda document, _: {
        **document,
        "nodes": [{**node, "more": 1} for node in document["nodes"]],
    },
    "no fields": lambda document, _: {
        **document,
        "nodes": [{"operation": node["operation"]} for node in document["nodes"]],
    },
    "strides beyond the memory": lambda document, _: {
        **document,
        "tensors": {name: {"strides": [2**40]} for name in document["tensors"]},
    },
    "deep": lambda document, _: {**document, "outputs": {"a": [[[[[[]]]]]]}},
}


@pytest.mark.parametrize("which", FORGERIES)
def test_a_forged_graph_is_not_believed(which: str, net: ModuleType, tmp_path: Path, captures: list) -> None:
    first = graph(net.build(), tmp_path)
    forge(entry(tmp_path), FORGERIES[which])
    assert same(graph(net.build(), tmp_path), first)
    assert len(captures) == 2


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_executed(net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    ran, content = tmp_path / "ran", io.BytesIO()
    trap = pickle.dumps(Trap(ran))
    torch.save(Trap(ran), content)
    for payload in (trap, content.getvalue()):
        for head in (b"", hashlib.sha256(payload).hexdigest().encode()):
            entry(tmp_path).write_bytes(head + payload)
            graph(net.build(), tmp_path)
    assert len(captures) == 5
    assert not ran.exists()
    pickle.loads(trap)
    assert ran.exists()


def test_the_forger_changes_nothing_but_what_he_says(net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    forge(entry(tmp_path), lambda *_: None)
    graph(net.build(), tmp_path)
    assert len(captures) == 1


@POSIX
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o777])
def test_a_file_that_others_may_write_to(mode: int, net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    entry(tmp_path).chmod(mode)
    graph(net.build(), tmp_path)
    assert len(captures) == 2


@POSIX
def test_what_is_written_is_the_users_own(net: ModuleType, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        graph(net.build(), tmp_path / "cache")
    finally:
        os.umask(old)
    assert entry(tmp_path / "cache").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@POSIX
def test_somebody_elses_file(net: ModuleType, tmp_path: Path, captures: list, monkeypatch) -> None:
    graph(net.build(), tmp_path)
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    graph(net.build(), tmp_path)
    assert len(captures) == 2


@POSIX
def test_links_pipes_and_sparse_giants(net: ModuleType, tmp_path: Path, captures: list) -> None:
    graph(net.build(), tmp_path)
    path = entry(tmp_path)
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    graph(net.build(), tmp_path)
    path.unlink()
    os.mkfifo(path)
    graph(net.build(), tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 42)
    path.chmod(0o600)
    graph(net.build(), tmp_path)
    path.unlink()
    path.mkdir()
    graph(net.build(), tmp_path)
    assert len(captures) == 5
    with pytest.raises(OSError, match="a folder, where a file was expected"):
        read_regular(path, 10, own=True)
