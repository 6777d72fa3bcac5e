"""A program that was exported for a fixed number of images, as one for any number.

``torch.export`` writes the batch into every shape (``view(x.shape[0], -1)`` becomes ``view(3, -1)``), and a
size alone doesn't say whether it is the batch: qkv are three too. So the program is run once more on a batch
that has a name, which says in every value where the batch is, and the sizes in its shapes are replaced where
they are the batch's. Where that takes a guess (a batch of one is in no shape and in all), a wrong one either
doesn't run, or computes other logits, which the check of the captured graph finds.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

aten = torch.ops.aten

TRACED = 29
"""Images in the batch that the program is run on: a number that is hardly the size of anything else."""

VIEWS = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)  # noqa: SLF001  an ATen name
EXPANDS = (aten.expand.default, aten.broadcast_to.default)
FILLS = (aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format)
NEW = (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default)


def for_any_batch(
    program: ExportedProgram, example: Tensor, rows: Sequence[Tensor] = ()
) -> ExportedProgram | None:
    """The same program with a dynamic batch, None where its batch can't be told from its other sizes.

    Args:
        program: takes images like these and no others.
        example: images (B, C, H, W).
        rows: further inputs with a row for each image, (B, ...).
    """
    values = [one.new_zeros(TRACED, *one.shape[1:]) for one in (example, *rows)]
    try:
        found = torch.export.export(
            _Rebatched(program.module(), len(example)),
            tuple(values),
            dynamic_shapes=dynamic(len(rows)),
            strict=False,
        )
    except Exception:  # noqa: BLE001  torch.export documents none; the program is what it was
        return None
    shapes = [node.meta["val"].shape for node in found.graph.find_nodes(op="placeholder")]
    return found if any(shape and isinstance(shape[0], torch.SymInt) for shape in shapes) else None


def dynamic(rows: int) -> tuple[Any, ...]:
    """For ``torch.export``: the batch of ``forward(images, *rows)`` is dynamic in all of them."""
    batch = {0: Dim.AUTO}
    return (batch, (batch,) * rows) if rows else (batch,)


class _Rebatched(nn.Module):
    """Runs a program for ``batch`` images on another number of them."""

    def __init__(self, program: nn.Module, batch: int) -> None:
        super().__init__()
        self.program, self.batch = program, batch

    def forward(self, images: Tensor, *rows: Tensor) -> Any:
        """What the program returns."""
        assert isinstance(self.program, fx.GraphModule)
        with fx.traceback.preserve_node_meta():  # its modules and source lines
            return _Interpreter(self.program, self.batch, images.shape[0]).run(images, *rows)


class _Interpreter(fx.Interpreter):
    def __init__(self, program: fx.GraphModule, old: int, new: Any) -> None:
        super().__init__(program)
        self.old, self.new = old, new

    def call_module(self, target: Any, args: Any, kwargs: Any) -> None:
        """The only modules in a program are its checks of its inputs' shapes."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """With the new batch in its shapes."""
        if target in FILLS:
            args = (self._fill(args[0]), *args[1:])
        elif target in NEW:
            args = (args[0], self._fill(args[1]), *args[2:])
        elif target is aten.unflatten.int:
            args = (args[0], args[1], self._unflatten(args[0], args[1], list(args[2])))
        elif (change := self._change(target)) is not None:
            args = (args[0], change(args[0], list(args[1])), *args[2:])
        return super().call_function(target, args, kwargs)

    def _change(self, target: Any) -> Callable[[Tensor, list[Any]], list[Any]] | None:
        if target in VIEWS:
            return self._view
        if target in EXPANDS:
            return self._expand
        return self._repeat if target is aten.repeat.default else None

    def _fill(self, sizes: Sequence[Any]) -> list[Any]:
        """A constant for each image has the batch in front, if it has it at all."""
        return [self.new, *sizes[1:]] if len(sizes) > 1 and sizes[0] == self.old else list(sizes)

    def _expand(self, x: Tensor, sizes: list[Any]) -> list[Any]:
        axis = self._axis(x)
        if axis is None:
            return self._fill(sizes)
        sizes[axis - x.ndim] = -1
        return sizes

    def _unflatten(self, x: Tensor, dim: int, sizes: list[Any]) -> list[Any]:
        """Of the sizes that the batch's axis is split into, the first that can hold it: the outermost."""
        if self._axis(x) != dim % x.ndim:
            return sizes
        others = prod(size for size in sizes if size != -1)
        sizes = [self._old(x.shape[dim]) // others if size == -1 else size for size in sizes]
        axis = next((a for a, size in enumerate(sizes) if size == self.old), 0)
        sizes[axis] = sizes[axis] // self.old * self.new
        return sizes

    def _repeat(self, x: Tensor, counts: list[Any]) -> list[Any]:
        return counts if self._axis(x) is not None or x.shape[0] != 1 else self._fill(counts)

    def _view(self, x: Tensor, sizes: list[Any]) -> list[Any]:
        """The axis that takes the batch over: its size is a multiple of it, and it holds the same values.

        Best is one that is the batch alone; else not the last, where the features are; else one with as much
        before it as before.
        """
        batch = self._axis(x)
        if batch is None:
            return sizes
        old = [self._old(size) for size in x.shape]
        sizes = [prod(old) // -prod(sizes) if size == -1 else size for size in sizes]
        before, others = prod(old[:batch]), old[batch] // self.old
        most = before * others, prod(old[batch + 1 :]) * others
        found = [
            axis
            for axis, size in enumerate(sizes)
            if size % self.old == 0 and prod(sizes[:axis]) <= most[0] and prod(sizes[axis + 1 :]) <= most[1]
        ]
        axis = min(
            found,
            key=lambda axis: (
                sizes[axis] != self.old,
                axis == len(sizes) - 1,
                prod(sizes[:axis]) != before,
                axis,
            ),
        )
        sizes[axis] = sizes[axis] // self.old * self.new
        return sizes

    def _axis(self, x: Tensor) -> int | None:
        return next((axis for axis, size in enumerate(x.shape) if not isinstance(size, int)), None)

    def _old(self, size: Any) -> int:
        if not isinstance(size, torch.SymInt):
            return int(size)
        return int(size.node.expr.subs({self.new.node.expr: self.old}))
