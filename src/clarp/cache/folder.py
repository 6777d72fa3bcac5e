"""The folder of captured graphs, and when one of them may be used."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from clarp.cache.form import from_bytes, to_bytes
from clarp.cache.key import graph_key
from clarp.capture import Graph
from clarp.capture.check import check_logits
from clarp.files import read_regular, write_atomically

VARIABLE = "CLARP_CACHE"
GRAPH, PROGRAM = ".graph", ".program"
"""Suffixes of captured graphs and of recorded functions (:mod:`clarp.cache.programs`)."""
LIMIT = 2 << 30
"""Bytes in the folder; above it, the least recently used files are deleted."""
ABANDONED = 24 * 3600.0
"""After so many seconds, a temporary file belongs to a process that was killed."""


def default_folder() -> Path | None:
    """The folder for captured graphs; None where ``$CLARP_CACHE`` is ``off``.

    ``$CLARP_CACHE``, else ``$XDG_CACHE_HOME/clarp``, else ``~/.cache/clarp``.

    Raises:
        ValueError: ``$CLARP_CACHE`` is a file.
    """
    given = os.environ.get(VARIABLE, "")
    if given.lower() in ("off", "0", "no", "none"):
        return None
    if given:
        folder = Path(given).expanduser()
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{VARIABLE} is {given!r}, a file; expected a folder, or off.")
        return folder
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "clarp"


@dataclass(frozen=True)
class GraphCache:
    """Captured graphs of earlier processes.

    A graph is used only where its key is the same (:func:`~clarp.cache.key.graph_key`), its file is whole,
    the user's own and writable for nobody else, the model gives the same logits as then for the same example
    images, to the last bit, and the graph computes them. Whatever else happens, the model is captured.

    Attributes:
        folder: made when first written to.
    """

    folder: Path

    def path(self, model: nn.Module, *circumstances: object) -> Path | None:
        """The file for this model's graph; None if the model has no key."""
        try:
            return self.folder / f"{graph_key(model, *circumstances)}{GRAPH}"
        except (AttributeError, RecursionError, RuntimeError, TypeError, ValueError):
            return None  # the user's objects may raise when they are read

    def load(
        self, path: Path, model: nn.Module, images: Tensor, own: Callable[[Sequence[Tensor]], Tensor]
    ) -> Graph | None:
        """The graph in a file, or None if it may not be used.

        Args:
            path: from :meth:`path`.
            model: whose tensors the graph shares.
            images: the example images.
            own: what the model gives for them and further inputs, (B, ...) each.
        """
        try:
            stored, then, further = from_bytes(read_regular(path, LIMIT, own=True), _state(model))
        except Exception:  # noqa: BLE001  the file may be forged
            return None
        try:
            rows = [value.to(images.device) for value in further]
            logits = own(rows)
        except ValueError:
            if not further:
                raise
            return None
        if then.dtype != logits.dtype or not torch.equal(then, logits.cpu()):
            return None
        if stored.input_shape != tuple(images.shape[1:]):
            return None
        tensors = {name: tensor.to(logits.device) for name, tensor in stored.tensors.items()}
        graph = replace(stored, tensors=tensors)
        try:
            check_logits(graph, images, logits, rows=rows)
        except Exception:  # noqa: BLE001  a graph of another model may fail in any way
            return None
        with suppress(OSError):
            os.utime(path)
        return graph

    def save(
        self, path: Path, model: nn.Module, graph: Graph, logits: Tensor, rows: Sequence[Tensor] = ()
    ) -> None:
        """Write a graph; nothing happens if it or the folder can't be written.

        Args:
            path: from :meth:`path`.
            model: whose tensors the graph shares.
            graph: the captured network.
            logits: what the model gives for the example images.
            rows: the further inputs of these, (B, ...) each.
        """
        with suppress(OSError, ValueError):
            keep(path, to_bytes(graph, logits, rows, _state(model)))


def keep(path: Path, content: bytes) -> None:
    """Write a file of a cache, and delete the least recently used ones above the limit.

    Raises:
        OSError: it can't be written, or another one not deleted.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content), private=True)
    _evict(path.parent)


def _evict(folder: Path) -> None:
    paths = [path for suffix in (GRAPH, PROGRAM) for path in folder.glob(f"*{suffix}")]
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in paths)
    excess = sum(size for _, size, _ in files) - LIMIT
    for _, size, path in files[:-1]:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess -= size
    for suffix in (GRAPH, PROGRAM):
        for path in folder.glob(f".*{suffix}.*.tmp"):  # what killed processes left
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink(missing_ok=True)


def _state(model: nn.Module) -> dict[str, Tensor]:
    tensors = dict(model.named_parameters(remove_duplicate=False))
    return tensors | dict(model.named_buffers(remove_duplicate=False))
