"""Many small results as few: each value that a runtime returns has a price."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """How values are packed: those that are one tensor once, and those (K, 1) of one size on top of each other.

    Attributes:
        groups: which values each packed one holds; of several, along a new first axis.
        places: for each value the packed one, and where in it, or None for the whole.
    """

    groups: tuple[tuple[int, ...], ...]
    places: tuple[tuple[int, int | None], ...]

    @classmethod
    def of(cls, values: Sequence[Tensor]) -> "Packing":
        """That of these values."""
        first: dict[int, int] = {}
        for number, value in enumerate(values):
            first.setdefault(id(value), number)
        groups: dict[object, list[int]] = {}
        for number in first.values():
            value = values[number]
            small = value.ndim == 2 and value.shape[1] == 1
            # A symbolic size has its own name; to compare it with another would fix both.
            groups.setdefault((value.dtype, str(value.shape)) if small else number, []).append(number)
        inside: dict[int, tuple[int, int | None]] = {}
        for place, numbers in enumerate(groups.values()):
            for row, number in enumerate(numbers):
                inside[number] = place, row if len(numbers) > 1 else None
        return cls(tuple(map(tuple, groups.values())), tuple(inside[first[id(value)]] for value in values))

    def pack(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Fewer tensors, none of them twice."""
        return [
            torch.stack([values[number] for number in numbers]) if len(numbers) > 1 else values[numbers[0]]
            for numbers in self.groups
        ]

    def unpack(self, packed: Sequence[Tensor]) -> list[Tensor]:
        """What was packed."""
        rows = [
            part.unbind() if len(group) > 1 else () for part, group in zip(packed, self.groups, strict=True)
        ]
        return [packed[place] if row is None else rows[place][row] for place, row in self.places]
