"""Values that hold tensors: tuples, dictionaries and frozen dataclasses, as trees of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")


def tensors(value: object, carriers: tuple[type, ...]) -> list[Tensor]:
    """The tensors in a value, in a fixed order.

    Args:
        value: a tensor, or tuples, lists, mappings and dataclasses of them.
        carriers: the dataclasses to look into; others count as constants.
    """
    found: list[Tensor] = []
    mapped(found.append, value, carriers)
    return found


def filled(value: Tree, tensors: Iterator[Tensor], carriers: tuple[type, ...]) -> Tree:
    """The same value with other tensors, in the order of :func:`tensors`."""
    return mapped(lambda _: next(tensors), value, carriers)


def distinct(values: Sequence[Tensor]) -> dict[int, Tensor]:
    """Those of several tensors that are not one and the same object, by their ``id``, in their order."""
    return {id(value): value for value in values}


def mapped(function: Callable[[Tensor], Any], value: Any, carriers: tuple[type, ...]) -> Any:
    """The same value with a function applied to each tensor."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {name: mapped(function, one, carriers) for name, one in value.items()}
    if isinstance(value, tuple | list) and not isinstance(value, torch.Size):
        return tuple(mapped(function, one, carriers) for one in value)
    if is_dataclass(value) and not isinstance(value, type) and isinstance(value, carriers):
        return replace(
            value, **{f.name: mapped(function, getattr(value, f.name), carriers) for f in fields(value)}
        )
    return value


def joined(values: Sequence[Tree], axis: int, carriers: tuple[type, ...]) -> Tree:
    """Values of the same form as one whose tensors are those of all, side by side along an axis."""
    columns = zip(*(tensors(value, carriers) for value in values), strict=True)
    return filled(values[0], iter([torch.cat(column, axis) for column in columns]), carriers)
