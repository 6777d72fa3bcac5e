"""The state of a model, to notice changes: parameters, buffers, modules, attributes, hooks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

DEPTH = 3
"""How many objects deep (a module's attribute, what that holds, and so on) a change is looked for."""

StateKey: TypeAlias = tuple[str, str]
"""The path of a module, and the name of one of its attributes."""
State: TypeAlias = Mapping[StateKey, object]


def state_of(
    model: nn.Module | ExportedProgram, *, weights: bool = True, buffers: bool = True
) -> dict[StateKey, object]:
    """The state of a model: another weight, module, stride or flag, or a new hook changes it.

    Without ``weights`` only which parameters there are, and not their values; likewise ``buffers``.
    """
    if isinstance(model, ExportedProgram):
        return {("", name): _values(tensor) for name, tensor in model.state_dict.items()}
    state: dict[StateKey, object] = {}
    kinds = set[type]()
    for path, module in model.named_modules():
        state[path, ""] = _Same(module)
        for name, value in _own(module):
            known = isinstance(value, nn.Parameter) and not weights
            known = known or (name in module._buffers and not buffers)  # noqa: SLF001  as named_buffers
            state[path, name] = (
                _Same(value) if known else _attribute(value, 1 if name.startswith("_") else DEPTH)
            )
        kinds.update(
            kind for kind in type(module).__mro__ if not kind.__module__.startswith(("torch.", "builtins"))
        )
    for kind in kinds:
        for name, value in vars(kind).items():
            if isinstance(value, str | bool | int | float | tuple | list | dict) and not name.startswith(
                "__"
            ):
                state[f"class {kind.__qualname__}", name] = _attribute(value)
    return state


def changed(before: State, after: State) -> frozenset[StateKey]:
    """Where two states differ."""
    return frozenset(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_NO_OWN = frozenset(vars(nn.Module()))


def _own(module: nn.Module) -> Iterator[tuple[str, object]]:
    """A module's parameters, buffers, hooks and attributes by name, but for what every module has besides."""
    own = vars(module)
    yield from module.named_parameters(recurse=False, remove_duplicate=False)
    yield from module.named_buffers(recurse=False, remove_duplicate=False)
    yield from ((name, own[name]) for name in (*_HOOKS, *(own.keys() - _NO_OWN)))


def _attribute(value: object, depth: int = DEPTH) -> object:
    """An attribute for comparison: its value where it is plain, what it holds, or the object itself."""
    if isinstance(value, Tensor):
        return _values(value)
    if isinstance(value, dict):
        return [(key, _attribute(part, depth)) for key, part in value.items()]
    if isinstance(value, list | tuple):
        return [_attribute(part, depth) for part in value]
    if value is None or isinstance(value, str | bytes | bool | int | float | complex):
        return type(value), repr(value) if isinstance(value, float | complex) else value
    inside = getattr(value, "__dict__", None)
    if (
        depth > 1
        and isinstance(inside, dict)
        and not isinstance(value, nn.Module | type)
        and not callable(value)
    ):
        return _Same(value), [(name, _attribute(part, depth - 1)) for name, part in list(inside.items())]
    return type(value), _Same(value)


@dataclass(frozen=True, eq=False)
class _Same:
    """An object that equals only itself, and lives as long as it may be asked."""

    value: object

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _values(tensor: Tensor) -> tuple[Any, ...]:
    """What changes when a tensor does: its memory, the count of its in-place changes, and a sum over it.

    The count misses changes through ``.data``, and tensors made in inference mode have none; the sum sees
    those.
    """
    version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001  there is no public name
    plain = tensor.detach()
    total = _weighted_sum(plain) if plain.is_floating_point() and plain.numel() else plain.sum()
    # A NaN equals no NaN, its name does.
    return (tensor.data_ptr(), version, tensor.dtype, tensor.device, tensor.shape, repr(total.item()))


def _weighted_sum(tensor: Tensor) -> Tensor:
    """A sum with a weight for each place, so that values that change places are noticed too."""
    if tensor.ndim < 2:
        return tensor.flatten().dot(_weights(tensor.numel(), tensor.dtype, tensor.device))
    rows = tensor.reshape(len(tensor), -1)
    first, second = (_weights(n, rows.dtype, rows.device) for n in rows.shape)
    return first.dot(rows.mv(second))


@lru_cache(maxsize=256)
def _weights(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return (torch.arange(count, device=device) * 0.618 % 1 + 0.5).to(dtype)
