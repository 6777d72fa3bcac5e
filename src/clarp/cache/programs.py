"""Converted functions of programs on disk, beside the captured graphs."""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from clarp import __version__
from clarp.cache.folder import LIMIT, evict
from clarp.cache.form import document_of
from clarp.cache.key import code_of
from clarp.files import read_regular, write_atomically
from clarp.propagation import Plan

SUFFIX = ".onnx"
LENGTH = 64
MADE_BY = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")


def program_key(plan: Plan, *circumstances: object) -> str | None:
    """A hash that is the same only for the same function of the same network; None where there is none.

    Args:
        plan: the network with its rules.
        circumstances: whatever else the function depends on; each ``repr`` is its value.
    """
    digest = hashlib.sha256()
    try:
        for part in _parts(plan, circumstances):
            digest.update(f"{len(part)}:".encode() + part)
    except ValueError:  # an operation or a rule of the user's own
        return None
    return digest.hexdigest()


def _parts(plan: Plan, circumstances: Iterable[object]) -> Iterable[bytes]:
    """What the function depends on.

    Raises:
        ValueError: it has an object of the user's own.
    """
    said = [*circumstances, torch.__version__, f"clarp {__version__}", code_of("."), *map(_version, MADE_BY)]
    for step in plan:
        if type(step.rule).__module__.partition(".")[0] != "clarp":
            raise ValueError(f"a rule of another package, {step.rule!r}")
        said.append((step.rule, step.signs, step.reads_pixels, step.constant))
    for one in said:
        yield repr(one).encode()
    yield document_of(plan.graph).encode()
    for name, tensor in plan.graph.tensors.items():
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"no {name}"


@dataclass(frozen=True)
class ProgramCache:
    """Converted functions of earlier processes; a file is used if it is whole and the user's own.

    Attributes:
        folder: made when first written to.
    """

    folder: Path

    def load(self, key: str) -> bytes | None:
        """What was saved under a key of :func:`program_key`, or None."""
        try:
            content = read_regular(self._path(key), LIMIT, own=True)
        except OSError:
            return None
        payload = content[LENGTH:]
        if hashlib.sha256(payload).hexdigest().encode() != content[:LENGTH]:
            return None
        with suppress(OSError):
            self._path(key).touch()
        return payload

    def save(self, key: str, payload: bytes) -> None:
        """Write it; nothing happens if it or the folder can't be written."""
        content = hashlib.sha256(payload).hexdigest().encode() + payload
        with suppress(OSError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path(key), lambda file: file.write(content), private=True)
            evict(self.folder)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"
