"""The key of a captured graph: a hash of the model's values, its code as it is in memory, and the machine.

The code is that of the functions that the model's forward can reach: from the classes of its modules over the
names in their bytecode, wherever these are defined. PyTorch, NumPy and the standard library count by version.

A key of source files and package versions would be shorter, and wrong: it misses a method that was replaced
at run time (common for attention), a file edited after its import, and an edited package of the same version.
The check of the logits does not see all of these: ``relu`` and ``relu6`` agree on small values.
"""

import functools
import hashlib
import inspect
import logging
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from clarp import __version__

KNOWN = frozenset(sys.stdlib_module_names) - {"__main__"} | {"clarp", "numpy", "torch"}
"""Packages whose code counts by its version (clarp's own by its files)."""
PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(...), range, slice),
    *(torch.dtype, torch.device, torch.layout, torch.memory_format),
)
"""Types whose ``repr`` is their value."""


PARTS: tuple[tuple[Any, Callable[[Any], Iterable[object]]], ...] = (
    (Enum, lambda value: (type(value), value.name)),
    ((tuple, list), lambda values: (type(values), len(values), *values)),
    ((dict, types.MappingProxyType), lambda value: (len(value), *chain.from_iterable(value.items()))),
    ((set, frozenset), lambda values: sorted(_plain_repr(one) for one in values)),
    (types.MethodType, lambda method: (method.__func__, method.__self__)),
    (functools.partial, lambda partial: (partial.func, partial.args, partial.keywords)),
    ((staticmethod, classmethod), lambda method: (method.__func__,)),
    (property, lambda value: (value.fget, value.fset, value.fdel)),
    (functools.cached_property, lambda value: (value.func,)),
    ((OpOverload, OpOverloadPacket, re.Pattern), lambda value: (str(value),)),
    (logging.Logger, lambda logger: (logger.name,)),
    # Access to a field (the last is a named tuple's): the class that has the field is fed elsewhere.
    ((types.MemberDescriptorType, types.GetSetDescriptorType, type(inspect.ArgInfo.args)), lambda _: ()),
    (
        (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
        lambda value: (_builtin_name(value),),
    ),
)
"""The parts that identify an object of a type; the first type that fits counts."""


def graph_key(model: nn.Module, *circumstances: object) -> str:
    """A hash that is the same only for the same model in the same circumstances.

    Args:
        model: in the state in which it is captured.
        circumstances: whatever else the graph depends on: shape, type, which output.

    Raises:
        TypeError: hooks, compiled or scripted modules, or objects that only C knows.
    """
    if nn.modules.module._has_any_global_hook():  # noqa: SLF001  there is no public name
        raise TypeError("hooks on all modules")
    walk = _Walk()
    walk.feed([*circumstances, *_machine()])
    walk.feed(model)
    walk.follow_names()
    return walk.digest.hexdigest()


def _machine() -> list[str]:
    return [
        sys.version,
        *(f"{name} {version(name)}" for name in ("torch", "numpy")),
        f"clarp {__version__}",  # which may run without being installed
        torch.__version__,
        _own_code(),
        f"{torch.get_default_dtype()} {torch.get_num_threads()} {torch.backends.cpu.get_cpu_capability()}",
    ]


def _own_code() -> str:
    return code_of("cache", "capture", "operations")


@functools.cache
def code_of(*folders: str) -> str:
    """A hash of clarp's files in these folders, which may change without a new version."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted((Path(__file__).parents[1] / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Walk:
    """Feeds objects into a hash, each once, in an order that does not depend on the process."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, tuple[int, object]] = {}  # the object too, so that its id stays its own
        self._names: set[str] = set()
        self._spaces: dict[int, tuple[str, Mapping[str, object]]] = {}

    def feed(self, value: Any) -> None:
        """Hash one object and what it is made of."""
        if isinstance(value, PLAIN):
            self._write(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self._write(f"again {self._seen[id(value)][0]}")
        else:
            self._seen[id(value)] = (len(self._seen), value)
            self._write(type(value).__qualname__)
            for part in self._parts(value):
                self.feed(part)

    def follow_names(self) -> None:
        """Hash what the names in the code stand for, and what the names in that stand for."""
        done: set[tuple[int, str]] = set()
        while True:
            found = [
                (label, name, key)
                for key, (label, space) in self._spaces.items()
                for name in self._names
                if name in space and (key, name) not in done
            ]
            if not found:
                return
            for label, name, key in sorted(found, key=lambda one: one[:2]):
                done.add((key, name))
                self._write(f"{label}.{name}")
                self.feed(self._spaces[key][1][name])

    def _write(self, text: str) -> None:
        self.digest.update(f"{len(text)}:{text}".encode("utf-8", "surrogatepass"))

    @functools.singledispatchmethod
    def _parts(self, value: Any) -> Iterable[object]:
        for kinds, parts in PARTS:
            if isinstance(value, kinds):
                return parts(value)
        if _root(type(value)) == "typing":
            return (str(value),)
        if _root(type(value)) in KNOWN or not hasattr(value, "__dict__"):
            raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__}")
        return type(value), vars(value)

    @_parts.register
    def _tensor(self, tensor: Tensor) -> Iterable[object]:
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided:
            raise TypeError(f"a tensor of the kind {type(tensor).__name__}, {tensor.layout}")
        if tensor.is_meta or tensor.is_quantized:
            raise TypeError("a tensor without plain values")
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        self.digest.update(values.view(torch.uint8).numpy().data)
        return tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.device

    @_parts.register
    def _module(self, module: nn.Module) -> Iterable[object]:
        state = dict(vars(module))
        if state.pop("_compiled_call_impl", None) is not None or isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"a compiled module, {type(module).__name__}")
        if any(value for name, value in state.items() if name.endswith("_hooks")):
            raise TypeError(f"hooks on a {type(module).__name__}")
        return type(module), state

    @_parts.register
    def _python_file(self, module: types.ModuleType) -> Iterable[object]:
        self._look_in(module.__name__, vars(module), vars(module))
        return (module.__name__,)

    @_parts.register
    def _class(self, kind: type) -> Iterable[object]:
        name = f"{kind.__module__}.{kind.__qualname__}"
        if _root(kind) in KNOWN:
            if "<locals>" in kind.__qualname__ or not _importable(kind):
                raise TypeError(f"a class made at run time, {kind.__qualname__}")
            return (name,)
        parts: list[object] = [name]
        for base in kind.__mro__:
            if _root(base) in KNOWN:
                parts.append(base)
                continue
            parts.append(f"{base.__module__}.{base.__qualname__}")
            self._look_in(f"{base.__module__}.{base.__qualname__}", vars(base), base)
            # Python calls these methods without their names in any bytecode.
            self._names.update(
                own
                for own, value in vars(base).items()
                if own.startswith("__") and isinstance(value, types.FunctionType)
            )
        self._names.add("forward")
        return parts

    @_parts.register
    def _function(self, function: types.FunctionType) -> Iterable[object]:
        name = f"{function.__module__}.{function.__qualname__}"
        known = _root(function) in KNOWN
        if known and "<" not in function.__qualname__:
            return (name,)
        if not known:
            self._look_in(function.__module__ or "", function.__globals__, function.__globals__)
        closed_over = [_contents(cell) for cell in function.__closure__ or ()]
        return name, function.__code__, function.__defaults__, function.__kwdefaults__, closed_over

    @_parts.register
    def _code(self, code: types.CodeType) -> Iterable[object]:
        self._names.update(code.co_names)
        self._names.update(one for one in code.co_consts if isinstance(one, str) and one.isidentifier())
        return (
            *(code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            *(code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
            *(code.co_filename, code.co_firstlineno, code.co_linetable, code.co_exceptiontable),
            code.co_consts,
        )

    def _look_in(self, label: str, space: Mapping[str, object], owner: object) -> None:
        """Names in the code may be those of this namespace."""
        if label.partition(".")[0] not in KNOWN:
            self._spaces.setdefault(id(owner), (label, space))


def _root(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


def _importable(kind: type) -> bool:
    """Whether the class's name leads to this class."""
    found: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind or kind.__module__ == "builtins"


def _plain_repr(value: object) -> str:
    if not isinstance(value, PLAIN):
        raise TypeError(f"a set with {value!r}")
    return repr(value)


def _builtin_name(value: Any) -> str:
    owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
    module = owner.__module__ if isinstance(owner, type) else getattr(value, "__module__", None)
    module = module or (owner.__name__ if isinstance(owner, types.ModuleType) else "")
    if module.partition(".")[0] not in KNOWN:
        raise TypeError(f"a function written in C, {value!r}")
    return f"{module}.{value.__qualname__}"


def _contents(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return ...
