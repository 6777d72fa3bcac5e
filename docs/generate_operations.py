#!/usr/bin/env python3
"""Write the tables of docs/operations.md from the code: `python docs/generate_operations.py`."""

import re
from collections.abc import Callable, Iterator
from inspect import getdoc, isfunction
from pathlib import Path
from types import CodeType
from typing import Any

from clarp import operations
from clarp.capture.inplace import FUNCTIONAL
from clarp.operations import Operation
from clarp.operations.call import BECOMES, LOWERINGS, Call
from clarp.rules.composites import SAME_IN_ALL

HERE = "clarp.operations."
PAGE = Path(__file__).with_name("operations.md")

RULES = {
    "factors": "`Gate()` where one factor is a gate, else `Half()`",
    "affine": "the composite's `convolution` where that counts the bias, else `Pass()`",
}
"""Of operations whose rule depends on more than their class."""
AT_PIXELS = {
    None: "",
    "first": "; `first` where it reads the pixels",
    "Pass": "; `Pass()` at the pixels",
}


def _kinds() -> dict[str, type[Operation]]:
    """The operations that a graph can contain, by name."""
    found: dict[str, Any] = {name: getattr(operations, name) for name in operations.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if isinstance(kind, type) and issubclass(kind, Operation) and not kind.__abstractmethods__
    }


def _name(target: Any) -> str:
    """An ATen operation as the exported program prints it."""
    return str(target) if hasattr(target, "_schema") else "operator.getitem"


def _condition(lowering: Callable[..., object]) -> str:
    """What a lowering says of itself: when it holds, and what is special."""
    return " ".join((getdoc(lowering) or "").split()).rstrip(".")


def _named(function: Callable[..., object], seen: frozenset[object] = frozenset()) -> dict[str, None]:
    """The operations that a function names in its code, and so do the functions and classes that it calls."""
    found: dict[str, None] = {}
    if function in seen:
        return found
    seen |= {function}
    inner = [one for one in function.__code__.co_consts if isinstance(one, CodeType)]
    names = [name for code in (function.__code__, *inner) for name in code.co_names]
    for name in names:
        called = function.__globals__.get(name)
        if isinstance(called, type) and issubclass(called, Operation):
            found[name] = None
        elif isinstance(called, type) and called.__module__.startswith(HERE) and called is not Call:
            for method in filter(isfunction, vars(called).values()):
                found.update(_named(method, seen))
        elif isfunction(called) and called.__module__.startswith(HERE):
            found.update(_named(called, seen))
    return found


def _lowered() -> Iterator[str]:
    yield "| ATen | becomes | where |"
    yield "|---|---|---|"
    functions = dict.fromkeys(LOWERINGS.values())
    kinds = _kinds()
    for function in functions:
        targets = ", ".join(f"`{_name(t)}`" for t, lowering in LOWERINGS.items() if lowering is function)
        # The classes that a lowering, or a function that it calls, names in its code are those that it can
        # return.
        names = [BECOMES[function].__name__] if function in BECOMES else _named(function)
        made = ", ".join(f"`{name}`" for name in names if name in kinds)
        yield f"| {targets} | {made or 'nothing'} | {_condition(function)} |"


def _rules() -> Iterator[str]:
    yield "| operation | computes | its rule |"
    yield "|---|---|---|"
    for name, kind in _kinds().items():
        first = (kind.__doc__ or "").splitlines()[0].replace("``", "`")
        fixed = (
            f"`{SAME_IN_ALL[kind.rule]!r}`" if kind.rule in SAME_IN_ALL else f"the composite's `{kind.rule}`"
        )
        yield f"| `{name}` | {first} | {RULES.get(kind.rule, fixed)}{AT_PIXELS[kind.rule_at_pixels]} |"


def _in_place() -> Iterator[str]:
    yield ", ".join(f"`{target}`" for target in FUNCTIONAL) + "."


def updated(text: str) -> str:
    """The page with its tables made anew."""
    for section, lines in (("lowered", _lowered()), ("rules", _rules()), ("in-place", _in_place())):
        begin, end = f"<!-- {section}: generated -->\n", f"<!-- {section}: end -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(
                f"{PAGE.name} has no place for the table {section!r}, expected {begin.strip()!r}."
            )
        body = "\n".join(lines) + "\n"
        text = re.sub(
            f"({re.escape(begin)}).*?({re.escape(end)})",
            lambda found, body=body: found[1] + body + found[2],  # type: ignore[misc]
            text,
            flags=re.DOTALL,
        )
    return text


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
