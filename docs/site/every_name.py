"""The page of all names, from the code: what a method or composite is made of, what rules, seeds and metrics say."""

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass

import clarp
from clarp import composites, rules, seeds
from clarp.evaluation import METRICS
from clarp.method import Method
from clarp.rules import Rule

ROLE = re.compile(r":\w+:`~?([\w.]+)`")
PLACE = "<!-- every name -->"
COMPOSITES = (
    "An operation without a row gets the rule of its kind, the same in every composite ([operations](../operations.md)). "
    "In networks with depthwise convolutions the named methods take `zplus-scaled-box` for `zplus-box`, and "
    "`epsilon-plus-scaled-box` for `epsilon-plus-box` ([why](../rules.md#depthwise-convolutions))."
)


def said(thing: type) -> str:
    """The first paragraph of a docstring, as Markdown for a cell of a table, which bars outside of code would end."""
    first = (inspect.getdoc(thing) or "").partition("\n\n")[0].replace("\n", " ")
    parts = ROLE.sub(r"``\1``", first).split("``")
    return "`".join(part if place % 2 else part.replace("|", "&#124;") for place, part in enumerate(parts))


def options(thing: type) -> str:
    """The fields of a dataclass with their defaults."""
    shown = (one.name if one.default is MISSING else f"{one.name}={one.default!r}" for one in fields(thing))
    return f"`{', '.join(shown)}`" if fields(thing) else ""


def link(name: str, page: str, path: str) -> str:
    return f"[`{name}`]({page}.md#{path}.{name})"


def method(name: str) -> Iterator[str]:
    made = Method.named(name)
    yield f"### {name}\n\n{made.when}\n"
    yield "| | |\n|---|---|"
    if made.covering:
        yield f"| references | `{made.covering}` |"
    else:
        yield f"| seed | {link(type(made.seed).__name__, 'seeds', 'clarp.seeds')}: {said(type(made.seed))} |"
        yield f"| selection | {', '.join(f'`{one}`' for one in made.selections) or 'none'} |"
        yield f"| composite | [`{made.rules.name}`](#{made.rules.name}) |"
        yield f"| passes | `{made.passes}` |"
        yield f"| rivals | {'yes: `against=`' if made.has_rivals else 'none'} |"
    yield ""


def composite(name: str) -> Iterator[str]:
    made = composites.get(name)
    users = [f"[`{one}`](#{one})" for one in clarp.methods() if Method.named(one).rules.name == name]
    yield f"### {name}\n"
    yield f"Used by {', '.join(users)}.\n" if users else "No method has it unless you say so, but for what stands above.\n"
    yield "| operation | rule |\n|---|---|"
    for field in fields(made):
        value = getattr(made, field.name)
        if isinstance(value, Rule):
            yield f"| {field.name} | `{value}` |"
    yield ""


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def kinds(module: object, base: type) -> Iterator[type]:
    """The dataclasses of a module that are of a kind, by name."""
    for name in sorted(vars(module)):
        thing = vars(module)[name]
        if isinstance(thing, type) and issubclass(thing, base) and is_dataclass(thing):
            yield thing


def text() -> str:
    lines = ["## Methods\n", "[Which method when](../which-method.md) says which to take, [methods](../methods.md) why.\n"]
    for name in clarp.methods():
        lines += method(name)
    lines.append(f"## Composites\n\n{COMPOSITES}\n")
    for name in composites.names():
        lines += composite(name)
    lines.append("## Rules\n")
    lines += table(
        ("rule", "formula", "options"),
        (
            (link(one.__name__, "rules", "clarp.rules"), said(one), options(one))
            for one in kinds(rules, Rule)
            if one.__name__ in rules.__all__
        ),
    )
    lines.append("## Seeds\n")
    lines += table(
        ("seed", "formula", "options"),
        (
            (link(one.__name__, "seeds", "clarp.seeds"), said(one), options(one))
            for one in kinds(seeds, seeds.Seed)
            if not inspect.isabstract(one)
        ),
    )
    lines.append("## Metrics\n")
    lines += table(
        ("`--metrics`", "class", "what it asks", "needs"),
        (
            (f"`{name}`", link(one.__name__, "evaluation", "clarp.evaluation"), said(one), ", ".join(one.truth))
            for name, one in METRICS.items()
        ),
    )
    return "\n".join(lines)
