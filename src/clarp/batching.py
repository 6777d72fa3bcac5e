"""A large batch in parts that fit into memory, and their explanations as one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Literal

import torch

from clarp.explanation import Explanation
from clarp.method import Method
from clarp.propagation import Entry, Ledger, Plan
from clarp.tree import joined

BatchSize = int | Literal["auto"] | None
FRACTION = 0.5
"""The share of free memory that an explanation may take: the estimate is rough."""
WORKING, LEADING = 5, 3
"""How many copies of the largest value one target takes in the backward pass, and how many more for
gradients.
"""
CGROUP = Path("/sys/fs/cgroup")

Explain = Callable[[range, range], Explanation]
"""Explains these images (rows) for these of their targets (columns)."""


def check_batch_size(batch_size: object) -> None:
    """Refuse what is no batch size.

    Raises:
        TypeError: neither a whole number, nor "auto", nor None.
        ValueError: less than one.
    """
    if batch_size is None or batch_size == "auto":
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int):
        raise TypeError(
            f"batch_size is {batch_size!r}, expected a whole number of images, 'auto' or None (all at once)."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected at least 1, 'auto' or None (all at once).")


@dataclass(frozen=True)
class Need:
    """How much memory explanations take, in bytes: an upper bound, measured (docs/performance.md).

    Attributes:
        image: each image, for the values of its forward pass.
        target: each target of each image, for what goes back.
    """

    image: int
    target: int

    @classmethod
    def of(cls, plan: Plan, method: Method, dtype: torch.dtype) -> "Need":
        """From the sizes of all values: a target takes a few copies of the largest, and selection more."""
        sizes = [prod(plan.graph.input_shape), *(prod(node.shape) for node in plan.graph)]
        passes = 1 if method.passes == "signed" else 3  # two, and what they are combined to
        working = (WORKING * passes + (LEADING if method.selections else 0)) * max(sizes)
        kept = sum(sizes) * (2 if method.covering else 1)  # of the image, and of it covered
        return cls(kept * dtype.itemsize, working * dtype.itemsize)

    def fitting(self, targets: int, budget: float) -> tuple[int, int]:
        """How many images, and how many targets of each, are explained at once: at least one."""
        images = int(budget // (self.image + targets * self.target))
        if images >= 1:
            return images, targets
        return 1, max(1, min(targets, int((budget - self.image) // self.target)))


def free_memory(device: torch.device) -> int:
    """How many bytes there are to take: on the GPU, or on this machine and within its container's limit."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    import psutil  # noqa: PLC0415  only where it is asked

    return min([int(psutil.virtual_memory().available), *_container()])


def _container() -> Iterator[int]:
    """What is left of the container's limit, where it has one; what the kernel only caches counts as free."""
    try:
        limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        if limit != "max":
            yield max(0, int(limit) - int(used) + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return


@dataclass
class Parts:
    """Explains part after part; where memory runs out all the same, in half as large ones.

    Attributes:
        explain: one part.
        images: at most so many at once.
        targets: at most so many of each image at once.
    """

    explain: Explain
    images: int
    targets: int

    @classmethod
    def fitting(
        cls, explain: Explain, size: BatchSize, targets: int, need: Need, device: torch.device
    ) -> "Parts":
        """Parts of so many images with all their targets, or for "auto" of what fits into free memory."""
        if isinstance(size, int):
            return cls(explain, size, targets)
        return cls(explain, *need.fitting(targets, FRACTION * free_memory(device)))

    def of(self, rows: range, columns: range) -> Explanation:
        """The explanation of these images for these of their targets.

        Raises:
            torch.OutOfMemoryError: not even one target of one image fits.
        """
        if len(rows) > self.images:
            return _joined(list(self._rows(rows, columns)), 0)
        if len(columns) > self.targets:
            return _joined(list(self._columns(rows, columns)), 1)
        try:
            return self.explain(rows, columns)
        except (RuntimeError, MemoryError) as error:
            if len(rows) * len(columns) == 1 or not _out_of_memory(error):
                raise
        # Outside the except block: the error held on to what the failed part had computed.
        if len(rows) > 1:
            self.images = (len(rows) + 1) // 2
        else:
            self.targets = (len(columns) + 1) // 2
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        return self.of(rows, columns)

    def _rows(self, rows: range, columns: range) -> Iterator[Explanation]:
        while rows:
            part, rows = rows[: self.images], rows[self.images :]
            yield self.of(part, columns)

    def _columns(self, rows: range, columns: range) -> Iterator[Explanation]:
        while columns:
            part, columns = columns[: self.targets], columns[self.targets :]
            yield self.of(rows, part)


def _out_of_memory(error: Exception) -> bool:
    """On the CPU, PyTorch says it in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _joined(parts: Sequence[Explanation], axis: int) -> Explanation:
    """Parts of a batch side by side: images along axis 0, targets along axis 1."""
    names = [*_PER_TARGET, "logits"] if axis == 0 else _PER_TARGET
    values = joined([{name: getattr(part, name) for name in names} for part in parts], axis, (Ledger, Entry))
    return replace(parts[0], **values)


_PER_TARGET = ["relevance", "target", "ledger", "selection_skipped", "empty", "layers"]
