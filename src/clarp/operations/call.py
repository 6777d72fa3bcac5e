"""One call of an ATen operation, and the register of what it becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from clarp.operations.base import Operation

Kind = TypeVar("Kind", bound=Operation)


class Refused(Exception):  # noqa: N818  a signal between two functions, never seen by a user
    """This operation can't be lowered; the message says why and what to do."""


FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that an exported value may have; the graph computes in one of them, whichever these are."""

COUNTS = (torch.bool, torch.int64)
"""Conditions, and sums of them."""

Value = fx.Node | str
"""A value in a lowering: one of the exported graph, or the name of an intermediate one."""


@dataclass(frozen=True)
class Intermediate:
    """One of several operations that an ATen operation becomes.

    Attributes:
        name: of its output.
        operation: what it computes.
        inputs: what it reads.
        shape: of its output, without the batch axis.
    """

    name: str
    operation: Operation
    inputs: tuple[Value, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the batch is among a value's axes in the exported graph; in ours it is always first.

    An axis of size B m holds the batch outside and m others inside (the windows of an image, say); here it is
    split, so that (p, B m, q) becomes (B, p, m, q).

    Attributes:
        axis: the batch's, as exported.
        inner: m, 1 where that axis is the batch alone.
    """

    axis: int
    inner: int


@dataclass
class Call:
    """One call of an ATen operation, its arguments by name.

    Attributes:
        node: the call in the exported graph.
        arguments: by the names of ATen's schema, defaults filled in; by position where there is no schema.
        constants: the tensors that do not depend on the input, by the name of their node.
        tensors: where a lowering puts tensors that it computes.
        batch: the size of the batch axis while exporting, a symbol or a number.
        steps: what comes before the operation that a lowering returns, where one ATen operation becomes
            several of ours.
    """

    node: fx.Node
    constants: Mapping[str, Tensor]
    tensors: dict[str, Tensor]
    batch: Any
    arguments: dict[Any, Any] = field(init=False)
    steps: list[Intermediate] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.node.target, OpOverload):
            self.arguments = dict(enumerate(self.node.args))
            return
        schema = self.node.target._schema.arguments  # noqa: SLF001  no public name
        given = dict(zip((a.name for a in schema), self.node.args, strict=False))
        self.arguments = {
            a.name: self.node.kwargs.get(a.name, given.get(a.name, a.default_value)) for a in schema
        }

    def __getitem__(self, name: str | int) -> Any:
        return self.arguments[name]

    def of(self, node: fx.Node) -> "Call":
        """Another call of the same graph."""
        return Call(node, self.constants, self.tensors, self.batch)

    def value(self, name: str | int) -> fx.Node:
        """An argument that must depend on the input."""
        node = self[name]
        if not isinstance(node, fx.Node) or node.name in self.constants:
            raise Refused(f"its argument {name!r} is a constant, expected a value computed from the image")
        return node

    def constant(self, name: str) -> str | None:
        """The name of an argument that must be a constant tensor or None."""
        node = self[name]
        if node is None:
            return None
        if not isinstance(node, fx.Node) or node.name not in self.constants:
            raise Refused(f"its argument {name!r} is computed from the image, expected a constant")
        self.tensors[node.name] = self.constants[node.name]
        return node.name

    def required(self, name: str) -> str:
        """The name of an argument that must be a constant tensor."""
        constant = self.constant(name)
        if constant is None:
            raise Refused(f"its argument {name!r} is None, expected a tensor")
        return constant

    def new(self, suffix: str, tensor: Tensor) -> str:
        """Keep a computed tensor, return its name."""
        name = f"{self.node.name}.{suffix}"
        self.tensors[name] = tensor.to(_value(self.node).device)
        return name

    def number(self, suffix: str, value: float, axes: int | None = None) -> str:
        """Keep a number as a tensor for a value of this many axes (None: the result's); returns its name."""
        axes = len(self.sizes()) if axes is None else axes
        return self.new(suffix, torch.full((1,) * (axes + 1), value, dtype=torch.float64))

    def shape(self, node: fx.Node | None = None) -> tuple[int, ...]:
        """The shape without its batch axis of a value whose first axis is the batch and nothing else."""
        layout, sizes = self.layout(node), self.sizes(node)
        if layout != Layout(0, 1):
            raise Refused(
                f"it mixes the batch with other axes (shape {tuple(_value(node or self.node).shape)})"
            )
        return sizes

    def layout(self, node: fx.Node | None = None) -> Layout:
        """Where the batch is among the axes of a value."""
        shape = _value(node or self.node).shape
        if isinstance(self.batch, int):
            found = [Layout(0, 1)] if shape and shape[0] == self.batch else []
        else:
            symbols: list[tuple[int, Any]] = [
                (axis, size) for axis, size in enumerate(shape) if not isinstance(size, int)
            ]
            shares = [(axis, size.node.expr / self.batch.node.expr) for axis, size in symbols]
            found = [
                Layout(axis, int(inner)) for axis, inner in shares if inner.is_Integer and len(shares) == 1
            ]
        if len(found) != 1:
            raise Refused(f"it mixes the batch with other axes (shape {tuple(shape)}){self._fixed()}")
        return found[0]

    def _fixed(self) -> str:
        """What to do about a batch that only its size tells from other axes."""
        if not isinstance(self.batch, int):
            return ""
        return (
            f", as far as that can be told in a program for exactly {self.batch} image(s): "
            "export it for any number, torch.export.export(model, (images,), dynamic_shapes=({0: Dim.AUTO},))"
        )

    def sizes(self, node: fx.Node | None = None) -> tuple[int, ...]:
        """The shape of any value in our graph, where the batch comes first, without the batch axis."""
        layout, shape = self.layout(node), tuple(_value(node or self.node).shape)
        inner = (layout.inner,) if layout.inner > 1 else ()
        return shape[: layout.axis] + inner + shape[layout.axis + 1 :]

    def axis(self, axis: int, node: fx.Node | None = None) -> int:
        """An axis of the exported value (perhaps negative) as one of ours, where the batch is axis 0."""
        layout = self.layout(node)
        axis %= len(_value(node or self.node).shape)
        if axis == layout.axis:
            raise Refused(f"it works along the batch axis{self._fixed()}")
        return axis + 1 if axis < layout.axis else axis + (layout.inner > 1)

    def aligned(self, constant: Tensor, node: fx.Node | None = None) -> Tensor:
        """A constant that broadcasts over this exported value, as (1, ...) that broadcasts over ours."""
        layout, axes = self.layout(node), len(_value(node or self.node).shape)
        constant = constant.reshape((1,) * (axes - constant.ndim) + constant.shape)
        whole = constant.shape[layout.axis] > 1
        rows = constant.unflatten(layout.axis, (-1, layout.inner if whole else 1)).movedim(layout.axis, 0)
        rows = rows if layout.inner > 1 else rows.squeeze(layout.axis + 1)
        if not _alike(rows[:1].expand_as(rows), rows):
            raise Refused("one of its arguments is a constant that differs between the images of a batch")
        return rows[:1]

    def step(self, operation: Operation, inputs: tuple[Value, ...], shape: tuple[int, ...]) -> str:
        """Add an operation before the one that is returned; gives the name of its output (B, *shape)."""
        name = f"{self.node.name}.{len(self.steps)}"
        self.steps.append(Intermediate(name, operation, inputs, shape))
        return name


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether all values are equal; two that are not a number are."""
    return bool(torch.isclose(a, b, rtol=0, atol=0, equal_nan=True).all())


def _value(node: fx.Node) -> Tensor:
    """What the export recorded of a value; the first of several."""
    value = node.meta["val"]
    first: Tensor = value[0] if isinstance(value, tuple | list) else value
    return first


Lowered = tuple[Operation | None, tuple[Value, ...]]
"""The operation and the values that it reads; None instead of an operation that only passes its one value
on."""
Lowering = Callable[[Call], Lowered]

BatchAxis = Literal["anywhere", "first", "channels"]
"""Where the batch may be among the axes for a lowering to be right: anywhere (it asks for ``sizes`` and
``axis`` in place of ``shape``), or first and alone; "channels": as "first", and it treats every channel by
itself, so that the windows of an image, (B m, C, ...), may be more channels, (B, m C, ...)."""

LOWERINGS: dict[Any, Lowering] = {}
BATCH: dict[Lowering, BatchAxis] = {}
BECOMES: dict[Lowering, type[Operation]] = {}
"""Which class a lowering gives that was registered beside it, by :func:`spelt`."""


def lowers(*targets: Any, batch: BatchAxis = "anywhere") -> Callable[[Lowering], Lowering]:
    """Register the lowering of these ATen operations; its docstring says when it holds."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(targets, function))
        BATCH[function] = batch
        return function

    return register


def spelt(*targets: Any, fields: tuple[str, ...] = ()) -> Callable[[type[Kind]], type[Kind]]:
    """Register how ATen spells an operation on each element of ``self`` alone.

    Args:
        targets: the ATen operations.
        fields: the names of ATen's arguments that are the fields of the class, in their order; numbers become
            floats.
    """

    def register(kind: type[Kind]) -> type[Kind]:
        def lowering(call: Call) -> Lowered:
            given = [call[name] for name in fields]
            return kind(*(value if isinstance(value, str) else float(value) for value in given)), (
                call.value("self"),
            )

        lowers(*targets)(lowering)
        BECOMES[lowering] = kind
        return kind

    return register


def per_axis(value: Any, length: int) -> tuple[int, ...]:
    """A list of ATen's, which stands for all axes where it has one entry."""
    values = tuple(value)
    return values * length if len(values) == 1 else values
