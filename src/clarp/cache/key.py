"""What a captured graph depends on, as one hash: the model's values, its code as it is in memory, and what runs it.

The code is that of the functions that the model's forward can reach: from the classes of its modules over the names that
their bytecode mentions, wherever these are defined. PyTorch, NumPy and the standard library count by their versions.
"""

import functools
import hashlib
import logging
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket

from clarp import __version__

KNOWN = frozenset(sys.stdlib_module_names) - {"__main__"} | {"clarp", "numpy", "torch"}
"""Packages whose code is told by a version (clarp's own by its files)."""
PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    type(...),
    range,
    slice,
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
)


class _Fields(NamedTuple):
    field: int


FIELD = type(vars(_Fields)["field"])
"""How named tuples reach their fields."""


class Unknowable(Exception):  # noqa: N818  a signal to the cache, never seen by a user
    """It can't be told whether this model is the same as another; the message says why."""


def graph_key(model: nn.Module, *circumstances: object) -> str:
    """A hash that is the same only for the same model in the same circumstances.

    Args:
        model: in the state in which it is captured.
        circumstances: whatever else the graph depends on: shape, type, which output.

    Raises:
        Unknowable: hooks, compiled or scripted modules, or objects that only C knows.
    """
    if nn.modules.module._has_any_global_hook():  # noqa: SLF001  there is no public name
        raise Unknowable("hooks on all modules")
    walk = _Walk()
    walk.feed([*circumstances, *_machine()])
    walk.feed(model)
    walk.follow_names()
    return walk.digest.hexdigest()


def _machine() -> list[str]:
    """What runs it. Capture and operations are clarp's own code, which may change without a new version."""
    return [
        sys.version,
        *(f"{name} {version(name)}" for name in ("torch", "numpy")),
        f"clarp {__version__}",  # which may run without being installed
        torch.__version__,
        _own_code(),
        f"{torch.get_default_dtype()} {torch.get_num_threads()} {torch.backends.cpu.get_cpu_capability()}",
    ]


@functools.cache
def _own_code() -> str:
    digest = hashlib.sha256()
    for room in ("cache", "capture", "operations"):
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Walk:
    """Feeds objects into a hash, each once, in an order that does not depend on the process."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, tuple[int, object]] = {}  # the object too, so that its id stays its own
        self._names: set[str] = set()
        self._spaces: dict[int, tuple[str, Mapping[str, object]]] = {}

    def follow_names(self) -> None:
        """Feed what the names in the code stand for, and what the names in that stand for."""
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

    def feed(self, value: Any) -> None:
        """One object, and what it is made of."""
        if isinstance(value, PLAIN):
            self._write(f"{type(value).__name__} {value!r}")
        elif id(value) in self._seen:
            self._write(f"again {self._seen[id(value)][0]}")
        else:
            self._seen[id(value)] = (len(self._seen), value)
            self._write(type(value).__qualname__)
            self._new(value)

    @functools.singledispatchmethod
    def _new(self, value: Any) -> None:
        """What a kind of object is made of; each kind that is known has its own method below."""
        if _root(type(value)) == "typing":
            self._text(value)
        elif _root(type(value)) in KNOWN or not hasattr(value, "__dict__"):
            raise Unknowable(f"a {type(value).__module__}.{type(value).__qualname__}")
        else:
            self._all([type(value), vars(value)])

    @_new.register(OpOverload | OpOverloadPacket | re.Pattern)
    def _text(self, value: object) -> None:
        self._write(str(value))

    @_new.register
    def _logger(self, logger: logging.Logger) -> None:
        self._write(logger.name)

    @_new.register
    def _enum(self, value: Enum) -> None:
        self._all([type(value), value.name])

    @_new.register(tuple | list)
    def _sequence(self, values: Sequence[object]) -> None:
        self._all([type(values), len(values), *values])

    @_new.register(dict | types.MappingProxyType)
    def _mapping(self, values: Mapping[object, object]) -> None:
        self._all([len(values), *(part for pair in values.items() for part in pair)])

    @_new.register(set | frozenset)
    def _set(self, values: AbstractSet[object]) -> None:
        if not all(isinstance(one, PLAIN) for one in values):
            raise Unknowable(f"a set of objects, {values!r}")
        self._all(sorted(map(repr, values)))

    @_new.register
    def _method(self, method: types.MethodType) -> None:
        self._all([method.__func__, method.__self__])

    @_new.register(functools.partial)
    def _partial(self, partial: functools.partial[object]) -> None:
        self._all([partial.func, partial.args, partial.keywords])

    @_new.register(staticmethod | classmethod)
    def _wrapped(self, method: Any) -> None:
        self.feed(method.__func__)

    @_new.register
    def _property(self, value: property) -> None:
        self._all([value.fget, value.fset, value.fdel])

    @_new.register(functools.cached_property)
    def _cached_property(self, value: functools.cached_property[object]) -> None:
        self.feed(value.func)

    @_new.register
    def _file(self, module: types.ModuleType) -> None:
        self._space(module.__name__, vars(module), vars(module))

    @_new.register(types.MemberDescriptorType | types.GetSetDescriptorType | FIELD)
    def _descriptor(self, descriptor: object) -> None:
        """Access to a field, told by the class that has it."""

    def _all(self, values: Iterable[object]) -> None:
        for value in values:
            self.feed(value)

    @_new.register
    def _tensor(self, tensor: Tensor) -> None:
        if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided:
            raise Unknowable(f"a tensor of the kind {type(tensor).__name__}, {tensor.layout}")
        if tensor.is_meta or tensor.is_quantized:
            raise Unknowable("a tensor without plain values")
        self._write(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.stride()} {tensor.device}")
        values = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().flatten()
        self.digest.update(values.view(torch.uint8).numpy().data)

    @_new.register
    def _module(self, module: nn.Module) -> None:
        state = dict(vars(module))
        if state.pop("_compiled_call_impl", None) is not None or isinstance(module, torch.jit.ScriptModule):
            raise Unknowable(f"a compiled module, {type(module).__name__}")
        if any(value for name, value in state.items() if name.endswith("_hooks")):
            raise Unknowable(f"hooks on a {type(module).__name__}")
        self._all([type(module), state])

    @_new.register
    def _class(self, kind: type) -> None:
        self._write(f"{kind.__module__}.{kind.__qualname__}")
        if _root(kind) in KNOWN:
            if "<locals>" in kind.__qualname__ or not _found(kind):
                raise Unknowable(f"a class made at run time, {kind.__qualname__}")
            return
        for base in kind.__mro__:
            if _root(base) not in KNOWN:
                self._space(f"{base.__module__}.{base.__qualname__}", vars(base), base)
                self._names.update(
                    name
                    for name in vars(base)
                    if name.startswith("__") and isinstance(vars(base)[name], types.FunctionType)
                )
            else:
                self.feed(base)
        self._names.add("forward")

    @_new.register
    def _function(self, function: types.FunctionType) -> None:
        self._write(f"{function.__module__}.{function.__qualname__}")
        known = _root(function) in KNOWN
        if known and "<" not in function.__qualname__:
            return
        cells = [cell.cell_contents for cell in function.__closure__ or () if _filled(cell)]
        self._all([function.__code__, function.__defaults__, function.__kwdefaults__, cells])
        if not known:
            self._space(function.__module__ or "", function.__globals__, function.__globals__)

    @_new.register
    def _code(self, code: types.CodeType) -> None:
        constants = [one for one in code.co_consts if not isinstance(one, frozenset)]
        self._names.update(code.co_names)
        self._names.update(one for one in constants if isinstance(one, str) and one.isidentifier())
        self._all([code.co_code, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars])
        self._all([code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount])
        self._all([code.co_filename, code.co_firstlineno, code.co_linetable, code.co_exceptiontable])
        self._all(code.co_consts)

    def _space(self, label: str, space: Mapping[str, object], owner: object) -> None:
        """A place where names in the code may be looked up."""
        self._write(label)
        if label.partition(".")[0] not in KNOWN:
            self._spaces.setdefault(id(owner), (label, space))

    @_new.register(types.BuiltinFunctionType | types.MethodDescriptorType | types.WrapperDescriptorType)
    def _builtin(self, value: Any) -> None:
        owner = getattr(value, "__objclass__", None) or getattr(value, "__self__", None)
        name = owner.__module__ if isinstance(owner, type) else getattr(value, "__module__", None)
        name = name or (owner.__name__ if isinstance(owner, types.ModuleType) else "")
        if (name or "").partition(".")[0] not in KNOWN:
            raise Unknowable(f"a function written in C, {value!r}")
        self._write(f"{name}.{value.__qualname__}")


def _root(value: Any) -> str:
    return str(getattr(value, "__module__", None) or "").partition(".")[0]


def _found(kind: type) -> bool:
    """Whether this is the class that its name stands for."""
    found: object = sys.modules.get(kind.__module__)
    for part in kind.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is kind or kind.__module__ == "builtins"


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
