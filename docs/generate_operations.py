#!/usr/bin/env python3
"""Write the tables of docs/operations.md from the code: `python docs/generate_operations.py`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clarp import operations
from clarp.capture.inplace import FUNCTIONAL
from clarp.capture.lowering import LOWERINGS
from clarp.operations import Add, Average, Convolution, Dense, Elementwise, MaxPool, Operation, Routing

PAGE = Path(__file__).with_name("operations.md")

# What the code of a lowering does not show at a glance, by the name of its function.
CONDITIONS = {
    "_convolution": "constant weights; its input has a batch axis",
    "_convolution_padded_by_name": 'padding "same" or "valid"',
    "_dense": "constant weights",
    "_addmm": "beta = alpha = 1; the matrix and the summand are constants",
    "_batch_norm": "in eval mode; folded into a neighbour where that is exact",
    "_relu": "",
    "_hardtanh": "",
    "_relu6": "",
    "_clamp": "bounds are numbers; `clamp(min=0)` is a ReLU",
    "_max_pool": "without `return_indices`",
    "_average_pool": "",
    "_adaptive_average": "dropped where the size stays the same",
    "_mean": "over any axes but the batch",
    "_add": "two values of the same shape, both computed from the image, alpha = 1",
    "_reshape": "each sample on its own; dropped where the shape stays the same",
    "_permute": "the batch stays first",
    "_slice": "any axis but the batch; dropped where it takes everything",
    "_pad": "with a constant, not the batch; dropped where it adds nothing, zeros before a convolution are folded",
    "_concatenate": "values computed from the image, any axis but the batch",
    "_nothing": "dropped; in eval mode, and the type stays the same",
    "_item": "dropped; the first result only",
}

RULES: tuple[tuple[type[Operation], str], ...] = (
    (Convolution, "the composite's `convolution`; `first` where it reads the pixels"),
    (Dense, "the composite's `dense`; `first` where it reads the pixels"),
    (Average, "the composite's `average`"),
    (Add, "the composite's `residual`"),
    (Elementwise, "`Pass()`"),
    (Routing, "`Transport()`"),
    (MaxPool, "`Transport()`"),
)


def _kinds() -> dict[str, type[Operation]]:
    """The operations that a graph can contain, by name."""
    found = {name: getattr(operations, name) for name in operations.__all__}
    return {
        name: kind
        for name, kind in found.items()
        if issubclass(kind, Operation) and not kind.__abstractmethods__
    }


def _name(target: Any) -> str:
    """An ATen operation as the exported program prints it."""
    return str(target) if hasattr(target, "_schema") else "operator.getitem"


def _lowered() -> Iterator[str]:
    yield "| ATen | becomes | where |"
    yield "|---|---|---|"
    functions = dict.fromkeys(LOWERINGS.values())
    unknown = {f.__name__ for f in functions} ^ CONDITIONS.keys()
    if unknown:
        raise SystemExit(f"CONDITIONS and LOWERINGS differ in {sorted(unknown)}: write or drop these lines.")
    kinds = _kinds()
    for function in functions:
        targets = ", ".join(f"`{_name(t)}`" for t, lowering in LOWERINGS.items() if lowering is function)
        # The classes that a lowering names in its code are those that it can return.
        made = " or ".join(f"`{name}`" for name in function.__code__.co_names if name in kinds)
        yield f"| {targets} | {made or 'nothing'} | {CONDITIONS[function.__name__]} |"


def _rules() -> Iterator[str]:
    yield "| operation | computes | its rule |"
    yield "|---|---|---|"
    for name, kind in _kinds().items():
        first = (kind.__doc__ or "").splitlines()[0].replace("``", "`")
        rule = next(rule for base, rule in RULES if issubclass(kind, base))
        yield f"| `{name}` | {first} | {rule} |"


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
