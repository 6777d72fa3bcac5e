"""Recorded functions of programs on disk, beside the captured graphs."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from clarp.cache.checksum import with_checksum, without_checksum
from clarp.cache.folder import LIMIT, PROGRAM, keep
from clarp.cache.form import document_of
from clarp.cache.key import code_of
from clarp.files import read_regular
from clarp.propagation import Plan

MADE_BY = ("torch", "onnx", "onnxscript", "onnx-ir", "onnxruntime")


@dataclass(frozen=True)
class ProgramCache:
    """The file of one recorded function; it is used if it is whole and the user's own.

    Attributes:
        path: its folder is made when first written to.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path | None, plan: Plan, function: str) -> "ProgramCache | None":
        """The file, whose name is the same only for the same function of the same network.

        Args:
            folder: None: nothing is kept.
            plan: the network with its rules.
            function: what is done with it.

        Returns:
            None where nothing is kept, as of an operation or a rule of the user's own.
        """
        if folder is None:
            return None
        digest = hashlib.sha256()
        try:
            for part in _parts(plan, function):
                digest.update(f"{len(part)}:".encode() + part)
        except ValueError:
            return None
        return cls(folder / f"{digest.hexdigest()}{PROGRAM}")

    def load(self) -> bytes | None:
        """What was saved, or None."""
        try:
            payload = without_checksum(read_regular(self.path, LIMIT, own=True))
        except (OSError, ValueError):
            return None
        with suppress(OSError):
            self.path.touch()  # now the last used
        return payload

    def save(self, payload: bytes) -> None:
        """Write it; nothing happens if it or the folder can't be written."""
        with suppress(OSError):
            keep(self.path, with_checksum(payload))


def _parts(plan: Plan, function: str) -> Iterator[bytes]:
    """What the function depends on.

    Raises:
        ValueError: it has an object of the user's own.
    """
    yield function.encode()
    yield code_of(".").encode()
    for name in MADE_BY:
        try:
            yield f"{name} {version(name)}".encode()
        except PackageNotFoundError:
            yield f"no {name}".encode()
    for step in plan:
        if type(step.rule).__module__.partition(".")[0] != "clarp":
            raise ValueError(f"a rule of another package, {step.rule!r}")
        yield repr((step.rule, step.signs, step.reads_pixels, step.constant)).encode()
    yield document_of(plan.graph).encode()
    for name, tensor in plan.graph.tensors.items():
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        # Small constants are computed with when the function is recorded.
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
