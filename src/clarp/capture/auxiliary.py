"""What a model computes from its further inputs alone: ATen operations for each batch, held constant."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from clarp.operations.base import in_dtype

Argument = tuple[str, Any]
"""A kind and what it holds: ("value", name), ("tensor", name), ("batch", how many times its size), ("type",
"float32"), ("list", (...)), ("plain", a number, a word or None)."""
GETITEM = "getitem"


class NotAuxiliary(Exception):  # noqa: N818  a signal between two functions, never seen by a user
    """This can't be computed beside the graph; the message says why."""


@dataclass(frozen=True)
class Operator:
    """One call of an ATen operation.

    Attributes:
        name: of its result.
        target: as ATen writes it, "aten.embedding.default", or "getitem" of several results.
        arguments: by position.
        keywords: by name.
    """

    name: str
    target: str
    arguments: tuple[Argument, ...]
    keywords: tuple[tuple[str, Argument], ...]


@dataclass(frozen=True)
class AuxiliaryValue:
    """A value that the graph reads beside the image's.

    Attributes:
        name: of the value.
        axis: where its batch is.
        inner: how many others the batch's axis holds inside, as in
            :class:`~clarp.capture.lowering.call.Layout`.
    """

    name: str
    axis: int
    inner: int


@dataclass(frozen=True)
class Auxiliary:
    """From the further inputs (B, ...) to the values that the graph reads of them.

    Attributes:
        inputs: the names of the further inputs that have a row for each image.
        operators: in the order of computation.
        outputs: what the graph reads.
    """

    inputs: tuple[str, ...] = ()
    operators: tuple[Operator, ...] = ()
    outputs: tuple[AuxiliaryValue, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Of the values that the graph reads."""
        return frozenset(output.name for output in self.outputs)

    @property
    def tensors(self) -> frozenset[str]:
        """The names of the constants that it reads among the graph's tensors."""
        found: set[str] = set()
        for one in self.operators:
            for argument in (*one.arguments, *(value for _, value in one.keywords)):
                found |= _tensors(argument)
        return frozenset(found)

    def without_unread(self, read: frozenset[str]) -> "Auxiliary":
        """With those outputs alone that somebody reads."""
        return replace(self, outputs=tuple(output for output in self.outputs if output.name in read))

    def values(
        self, rows: Sequence[Tensor], tensors: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Tensor]:
        """What the graph reads, in the images' type, by name: (B, ...).

        Args:
            rows: the further inputs, (B, ...).
            tensors: the graph's constants.
            images: (B, C, H, W).
        """
        if not self.outputs:
            return {}
        known: dict[str, Any] = {
            name: in_dtype(value, images.dtype) for name, value in zip(self.inputs, rows, strict=True)
        }
        for one in self.operators:
            given = [_filled(argument, known, tensors, len(images), images) for argument in one.arguments]
            named = {
                name: _filled(value, known, tensors, len(images), images) for name, value in one.keywords
            }
            result = given[0][given[1]] if one.target == GETITEM else function(one.target)(*given, **named)
            known[one.name] = in_dtype(result, images.dtype) if isinstance(result, Tensor) else result
        return {
            output.name: _batch_first(known[output.name], output, len(images)).to(images.dtype)
            for output in self.outputs
        }


def function(target: str) -> Callable[..., Any]:
    """The ATen operation of this name.

    Raises:
        NotAuxiliary: it is none of ATen's, or writes into its arguments.
    """
    words = target.split(".")
    found = None
    if len(words) == 3 and words[0] == "aten":
        found = getattr(getattr(torch.ops.aten, words[1], None), words[2], None)
    if not isinstance(found, OpOverload) or found._schema.is_mutable:  # noqa: SLF001  no public name
        raise NotAuxiliary(f"{target} is no operation without side effects of PyTorch's own")
    return found


def operator_of(
    node: fx.Node, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any], batch: Any
) -> Operator:
    """One call of an exported graph, to be done anew for each batch.

    Args:
        node: the call.
        tensors: the constants by name.
        numbers: sizes by name, of a batch of two.
        batch: the size of the batch while exporting, a symbol or a number.

    Raises:
        NotAuxiliary: it can't be done so.
    """
    target = GETITEM if node.target is operator.getitem else str(node.target)
    if target != GETITEM:
        function(target)

    def argument(value: Any) -> Argument:
        if isinstance(value, fx.Node) and value.name in numbers and value.name not in tensors:
            return _size(value.meta["val"], batch)
        if isinstance(value, fx.Node):
            return "tensor" if value.name in tensors else "value", value.name
        if isinstance(value, list | tuple):
            return "list", tuple(argument(one) for one in value)
        return _size(value, batch) if isinstance(value, torch.SymInt) else _plain(value)

    named = tuple((name, argument(value)) for name, value in node.kwargs.items())
    return Operator(node.name, target, tuple(argument(value) for value in node.args), named)


def _plain(value: Any) -> Argument:
    if isinstance(value, torch.dtype):
        return "type", str(value).removeprefix("torch.")
    if isinstance(value, torch.device):
        return "device", ""  # that of the images
    if isinstance(value, torch.layout | torch.memory_format):
        return "plain", None  # how values lie in memory is no part of the function
    if value is None or isinstance(value, bool | int | float | str):
        return "plain", value
    raise NotAuxiliary(f"it has an argument {value!r}, which can't be written down")


def _size(value: Any, batch: Any) -> Argument:
    if not isinstance(value, torch.SymInt):
        return "plain", value
    times = value.node.expr / batch.node.expr
    if not times.is_Integer:
        raise NotAuxiliary(f"it computes with the size of the batch ({value}), expected a multiple of it")
    return "batch", int(times)


def _filled(
    argument: Argument, known: Mapping[str, Any], tensors: Mapping[str, Tensor], batch: int, images: Tensor
) -> Any:
    kind, content = argument
    if kind == "value":
        return known[content]
    if kind == "tensor":
        return tensors[content]
    if kind == "batch":
        return content * batch
    if kind == "type":
        found = getattr(torch, content)
        return images.dtype if found.is_floating_point else found
    if kind == "device":
        return images.device
    return [_filled(one, known, tensors, batch, images) for one in content] if kind == "list" else content


def _tensors(argument: Argument) -> set[str]:
    kind, content = argument
    if kind == "list":
        return set().union(*(_tensors(one) for one in content))
    return {content} if kind == "tensor" else set()


def _batch_first(value: Tensor, output: AuxiliaryValue, batch: int) -> Tensor:
    """From the exported layout to ours, (B, ...)."""
    rows = value.unflatten(output.axis, (batch, output.inner)).movedim(output.axis, 0)
    return rows if output.inner > 1 else rows.squeeze(output.axis + 1)
