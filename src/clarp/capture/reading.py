"""What a forward reads in Python: numbers of tensors, hooks, and what it does with them.

``torch.export`` knows no values, so it stops where a forward asks for one. Where what is asked does not
depend on the images (a buffer, a constant), the answer is a part of the model: the model is run once on real
images, what it is told is written down, and told again while it is exported. What depends on the images may
be checked (assert, an if that only raises) and shown (print), not computed with.
"""

import ast
import linecache
import os
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

from clarp.capture.masked import MaskedValue
from clarp.errors import CaptureError

TORCH = f"{Path(torch.__file__).parent}{os.sep}"
HERE = f"{Path(__file__).parents[1]}{os.sep}"

HOOKS: dict[Any, Callable[[], object]] = {
    Tensor.register_hook: lambda: RemovableHandle(OrderedDict()),
    Tensor.register_post_accumulate_grad_hook: lambda: RemovableHandle(OrderedDict()),
    Tensor.retain_grad: lambda: None,
}
"""What watches a gradient; no gradient goes through an explanation, so these do nothing there."""

SHOWN = {Tensor.__repr__, Tensor.__format__}
"""What is made for people."""
NUMBERS = {Tensor.item}
"""What gives a number that can be told from others later on."""
READS = SHOWN | {
    Tensor.item,
    Tensor.tolist,
    Tensor.numpy,
    Tensor.__bool__,
    Tensor.__int__,
    Tensor.__float__,
    Tensor.__index__,
    Tensor.__contains__,
    Tensor.is_nonzero,
    torch.is_nonzero,
    Tensor.equal,
    torch.equal,
    Tensor.allclose,
    torch.allclose,
}
"""What gives Python something of a tensor's values."""
SOME = 0.6180339887
"""Where a mask takes nothing, a value at which hardly any function has a pole."""
SPEAKING = {"print", "warn", "warning", "info", "debug", "error", "exception", "critical", "log"}


class Hookless(TorchFunctionMode):
    """Hooks on tensors do nothing: outside training they would be refused."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return HOOKS[func]() if func in HOOKS else func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Answer:
    """One thing that a forward was told.

    Attributes:
        function: what it asked.
        value: what it was told.
        from_images: whether that depends on the images.
        allowed: whether the statement only checks or shows it.
        first: of values taken by a mask, the first.
    """

    function: object
    value: object
    from_images: bool
    allowed: bool
    first: float = SOME


@dataclass
class Readings:
    """What a forward read, in its order.

    Attributes:
        answers: one for each question.
        hooks: how many hooks on tensors it set.
    """

    answers: list[Answer] = field(default_factory=list)
    hooks: int = 0

    @property
    def needed(self) -> bool:
        """Whether the model can't be exported without."""
        return bool(self.answers or self.hooks)

    @property
    def of_images(self) -> bool:
        """Whether values of the images went into Python."""
        return any(answer.from_images for answer in self.answers)


def readings(model: nn.Module, images: Tensor, rows: Sequence[Tensor] = ()) -> Readings:
    """Run a model once and write down what it reads; further inputs count as the images."""
    found = Readings()
    with torch.no_grad(), _Dependent((images, *rows)) as dependent, _Recording(found, dependent):
        model(images, *rows)
    return found


class Replayed(nn.Module):
    """A model whose forward is told again what it was told before.

    Args:
        model: is not changed.
        found: what it read.
    """

    model: nn.Module

    def __init__(self, model: nn.Module, found: Readings) -> None:
        super().__init__()
        self.model = model
        self.found = found
        self.training = model.training

    def forward(self, images: Tensor, *rows: Tensor) -> object:
        """What the model returns."""
        with _Replaying(iter(self.found.answers)):
            return self.model(images, *rows)


class _Dependent(TorchDispatchMode):
    """Knows which memory holds what was computed from the images."""

    def __init__(self, values: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.memory = {StorageWeakRef(value.untyped_storage()) for value in values}

    def __contains__(self, value: object) -> bool:
        return any(
            StorageWeakRef(tensor.untyped_storage()) in self.memory
            for tensor in pytree.tree_leaves(value)
            if isinstance(tensor, Tensor)
        )

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (args, kwargs) in self:
            written = [args[0]] if func._schema.is_mutable and args else []  # noqa: SLF001  no public name
            for tensor in pytree.tree_leaves((result, written)):
                if isinstance(tensor, Tensor):
                    self.memory.add(StorageWeakRef(tensor.untyped_storage()))
        return result


class _Recording(Hookless):
    def __init__(self, found: Readings, dependent: _Dependent) -> None:
        super().__init__()
        self.found, self.dependent = found, dependent

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.found.hooks += func in HOOKS
        if _sets_by_mask(func, args):
            self.found.answers.append(
                Answer(func, _masked(Tensor.__getitem__, args[:2]), from_images=False, allowed=True)
            )
        if func in READS or (places := _masked(func, args)) is None:
            result = super().__torch_function__(func, types, args, kwargs)
            if func in READS:
                depends = (args, kwargs) in self.dependent
                caller = sys._getframe(1)  # noqa: SLF001  the only way to it
                allowed = func in SHOWN or harmless(caller)
                # While exporting, a tensor gives its list number by number.
                told = pytree.tree_leaves(result) if func is Tensor.tolist else [result]
                func = Tensor.item if func is Tensor.tolist else func
                self.found.answers += [Answer(func, value, depends, allowed) for value in told]
            return result
        depends = (args[1],) in self.dependent
        taken = func(*args)
        first = float(taken.flatten()[0]) if taken.numel() and not taken.is_complex() else SOME
        self.found.answers.append(Answer(func, places, depends, allowed=False, first=first))
        return taken


class _Replaying(Hookless):
    def __init__(self, answers: Iterator[Answer]) -> None:
        super().__init__()
        self.answers = answers

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in READS or _has_mask(func, args):
            return self._answer(func, args)
        if _sets_by_mask(func, args):
            places = self._next(func).value
            if isinstance(args[2], MaskedValue):
                return args[2].written(args[0], places)
        if any(isinstance(one, Shown) for one in pytree.tree_leaves((args, kwargs))):
            raise _reads_image()
        return super().__torch_function__(func, types, args, kwargs)

    def _next(self, func: Any) -> Answer:
        answer = next(self.answers, None)
        if answer is None or answer.function is not func:
            raise CaptureError(
                "the model's forward asks for other values in each call, expected one that is deterministic"
            )
        return answer

    def _answer(self, func: Any, args: Sequence[Any]) -> Any:
        answer = self._next(func)
        if func is Tensor.__getitem__:
            if answer.from_images:
                parts = cast("list[Any]", _masks(func, args))
                if len(parts) != 1:
                    raise CaptureError(
                        f"the model takes values by several masks or indices at once{_at()}, one of which "
                        "is computed from the image. Multiply by the mask, or use torch.where"
                    )
                return MaskedValue.taken(args[0], parts[0], answer.value, answer.first, _at())
            index = cast("tuple[Any, ...]", answer.value)
            places = (
                torch.tensor(one, dtype=torch.long, device=args[0].device) if isinstance(one, Places) else one
                for one in index
            )
            return func(args[0], tuple(places))
        if not answer.from_images or answer.allowed:
            return answer.value
        if func in NUMBERS and isinstance(answer.value, int | float) and not isinstance(answer.value, bool):
            return Shown(answer.value)
        raise _reads_image()


class Places(list[int]):
    """Where a boolean mask is true, along one axis."""


class Shown(float):
    """A number of the image, which may be shown and checked, but neither computed with nor decided by."""

    def _refuse(self, *_: object) -> Any:
        raise _reads_image()

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _refuse
    __int__ = __trunc__ = __bool__ = _refuse

    def _compare(self, other: object, name: str) -> bool:
        if not harmless(sys._getframe(2)):  # noqa: SLF001  the only way to the caller
            raise _reads_image()
        result: bool = getattr(float, name)(self, other)
        return result

    def __lt__(self, other: object) -> bool:
        return self._compare(other, "__lt__")

    def __le__(self, other: object) -> bool:
        return self._compare(other, "__le__")

    def __gt__(self, other: object) -> bool:
        return self._compare(other, "__gt__")

    def __ge__(self, other: object) -> bool:
        return self._compare(other, "__ge__")

    def __eq__(self, other: object) -> bool:
        return self._compare(other, "__eq__")

    def __ne__(self, other: object) -> bool:
        return self._compare(other, "__ne__")

    __hash__ = float.__hash__


def _sets_by_mask(func: Any, args: Sequence[Any]) -> bool:
    """Whether several values are written by a boolean mask."""
    return (
        func is Tensor.__setitem__
        and isinstance(args[2], Tensor | MaskedValue)
        and _masks(Tensor.__getitem__, args[:2]) is not None
    )


def _masks(func: Any, args: Sequence[Any]) -> list[Any] | None:
    """The parts of an index with a boolean mask, None for any other call."""
    if func is not Tensor.__getitem__:
        return None
    index = list(args[1]) if isinstance(args[1], tuple) else [args[1]]
    return index if any(isinstance(one, Tensor) and one.dtype == torch.bool for one in index) else None


def _has_mask(func: Any, args: Sequence[Any]) -> bool:
    return _masks(func, args) is not None


def _masked(func: Any, args: Sequence[Any]) -> tuple[Any, ...] | None:
    """An index with a boolean mask as one of whole numbers, which has a size; None for any other call."""
    index = _masks(func, args)
    if index is None:
        return None
    found: list[Any] = []
    for one in index:
        if isinstance(one, Tensor) and one.dtype == torch.bool:
            found += [Places(axis.tolist()) for axis in one.nonzero(as_tuple=True)]
        else:
            found.append(one)
    return tuple(found)


def _reads_image() -> CaptureError:
    return CaptureError(
        f"the model reads a value of the image in Python{_at()} (or of a further input), and goes on with "
        "it, so that its function depends on the image. Compute with tensors there: torch.where in place "
        "of if, and no .item(), float() or int()"
    )


def _at() -> str:
    frame = _users(sys._getframe(1))  # noqa: SLF001  the only way to the caller
    return "" if frame is None else f" at {frame.f_code.co_filename}:{frame.f_lineno}"


def _users(frame: FrameType | None) -> FrameType | None:
    """The innermost frame that is neither ours nor PyTorch's."""
    while frame is not None and frame.f_code.co_filename.startswith((TORCH, HERE, "<")):
        frame = frame.f_back
    return frame


def harmless(frame: FrameType | None) -> bool:
    """Whether the user's statement only checks or shows: an assert, a print, an if that only raises."""
    user = _users(frame)
    if user is None:
        return False
    line = user.f_lineno
    statements = [one for one in _statements(user.f_code.co_filename) if _begins(one) <= line <= _ends(one)]
    if not statements:
        return False
    innermost = max(statements, key=lambda one: (_begins(one), -_ends(one)))
    if isinstance(innermost, ast.If):
        return not innermost.orelse and all(_only_speaks(one) for one in innermost.body)
    return _only_speaks(innermost)


def _only_speaks(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        called = statement.value.func
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name in SPEAKING
    return isinstance(statement, ast.Assert | ast.Raise | ast.Pass)


def _begins(statement: ast.stmt) -> int:
    return statement.lineno


def _ends(statement: ast.stmt) -> int:
    """The last line of what a statement itself does: of an if the question, not what follows."""
    head = statement.test if isinstance(statement, ast.If | ast.While) else statement
    return head.end_lineno or head.lineno


@lru_cache(maxsize=64)
def _statements(file: str) -> tuple[ast.stmt, ...]:
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    blocks = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With, ast.For, ast.Try)
    return tuple(one for one in ast.walk(tree) if isinstance(one, ast.stmt) and not isinstance(one, blocks))
