"""What a forward takes from a tensor by a mask that is computed from the image, while it is exported.

How many values these are depends on the image, so they stay where they are: every place has a value, and only
those of the mask count. They may be computed with, each by itself, and be written back by the same mask:
``y[m] = f(x[m])`` is ``where(m, f(x), y)``.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from clarp.errors import CaptureError

ALONE = frozenset(
    """
    abs add clamp clamp_max clamp_min clip div divide double exp float log log1p maximum minimum mul
    multiply neg negative pow reciprocal relu rsub sigmoid sign sqrt square sub subtract tanh true_divide
    where
    """.split()  # noqa: SIM905  one line each would be thirty
)
"""Functions that treat every element by itself."""


class MaskedValue:
    """Values at the places of a mask.

    Args:
        dense: a value for every place.
        mask: which count, of the same shape.
        places: where the mask was true when the model was looked at.
        at: the line of the model's forward, for messages.
    """

    def __init__(self, dense: Tensor, mask: Tensor, places: object, at: str) -> None:
        self.dense, self.mask, self.places, self.at = dense, mask, places, at

    @classmethod
    def taken(cls, x: Tensor, mask: Tensor, places: object, first: float, at: str) -> "MaskedValue":
        """``x[mask]``; elsewhere is ``first``, a value that was taken: functions of it are defined there."""
        if mask.shape != x.shape[: mask.ndim]:
            raise _refused(at)
        whole = mask.view(*mask.shape, *(1,) * (x.ndim - mask.ndim)).expand_as(x)
        return cls(torch.where(whole, x, torch.full((), first, dtype=x.dtype)), whole, places, at)

    def written(self, y: Tensor, places: object) -> None:
        """``y[mask] = self``, where the mask is the one that the values were taken by."""
        if places != self.places or self.dense.shape != y.shape:
            raise _refused(self.at)
        y.copy_(torch.where(self.mask, self.dense.to(y.dtype), y))

    def of(self, function: Callable[..., Any], *args: object, **kwargs: object) -> "MaskedValue":
        """A function of each value by itself."""

        def dense(value: object) -> object:
            if isinstance(value, MaskedValue):
                if value.places != self.places or value.dense.shape != self.dense.shape:
                    raise _refused(self.at)
                return value.dense
            if isinstance(value, Tensor) and value.numel() != 1:
                raise _refused(self.at)
            return value

        args, kwargs = pytree.tree_map(dense, (args, kwargs))
        return MaskedValue(function(*args, **kwargs), self.mask, self.places, self.at)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = next(one for one in pytree.tree_leaves((args, kwargs)) if isinstance(one, MaskedValue))
        name = (
            func.__name__.strip("_").removeprefix("r")
            if func.__name__.startswith("__r")
            else func.__name__.strip("_")
        )
        if name not in ALONE:
            raise _refused(given.at)
        return given.of(func, *args, **(kwargs or {}))

    def __getattr__(self, name: str) -> Any:
        if name not in ALONE:
            raise _refused(self.at)
        return lambda *args, **kwargs: self.of(getattr(torch.Tensor, name), self, *args, **kwargs)


def _binary(
    function: Callable[[Any, Any], Any], *, mirrored: bool
) -> Callable[[MaskedValue, object], MaskedValue]:
    def method(self: MaskedValue, other: object) -> MaskedValue:
        return self.of(function, other, self) if mirrored else self.of(function, self, other)

    return method


for _name, _function in {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "pow": operator.pow,
}.items():
    setattr(MaskedValue, f"__{_name}__", _binary(_function, mirrored=False))
    setattr(MaskedValue, f"__r{_name}__", _binary(_function, mirrored=True))
setattr(MaskedValue, "__neg__", lambda self: self.of(operator.neg, self))  # noqa: B010  beside the others


def _refused(at: str) -> CaptureError:
    return CaptureError(
        f"the model takes values by a mask that is computed from the image{at}, so that their number "
        "depends on the image, and does not just compute with each of them and write them back by the same "
        "mask. Multiply by the mask, or use torch.where"
    )
