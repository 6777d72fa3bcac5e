"""With which code each table of docs/study.md was measured, and the line above it that says how.

docs/measured.json has an entry for each mark ``<!-- measured: NAME -->`` of the page: command, model, photos,
seed and dates, the methods and the source files that decide the figures, and a digest of each. A test fails
where a digest is no longer that of the code. Comments and docstrings don't count. Rules and propagation are
not listed, because tests/test_golden.py keeps their maps.

python docs/generate_measured.py               # the lines on the page, after an entry was edited
python docs/generate_measured.py NAME ...      # also the digests of these tables, from today's code

Do the second after the tables were measured again, or after a change that can't change a figure; the commit
says which.
"""

import ast
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE, ENTRIES = HERE / "study.md", HERE / "measured.json"
MARK = re.compile(r"^<!-- measured: (\S+) -->\n(.*)\n", re.MULTILINE)
FIGURE = re.compile(r"\.\d")
SHOWN = ("command", "model", "photos", "seed", "date")

Entry = dict[str, Any]


def spelt(node: object) -> str:
    """A syntax tree as text, without docstrings, and the same in every version of Python."""
    if isinstance(node, list):
        return f"[{','.join(spelt(one) for one in node if not is_text(one))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    said = (f"{name}={spelt(value)}" for name, value in ast.iter_fields(node) if value not in (None, []))
    return f"{type(node).__name__}({','.join(said)})"


def is_text(node: object) -> bool:
    """Whether a statement is a string alone: what describes a definition, above or below it."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def of_code(source: str, text: str) -> str:
    """Of a file's code, or of one definition in it.

    Args:
        source: ``path`` or ``path:name``.
        text: what the file holds.

    Raises:
        ValueError: no such definition.
    """
    tree, (_, _, name) = ast.parse(text), source.partition(":")
    if not name:
        return digest(spelt(tree))
    named = [one for one in tree.body if getattr(one, "name", None) == name]
    if not named:
        raise ValueError(f"{source}: no definition of that name at the top of the file; correct the entry.")
    return digest(spelt(named))


@cache
def variants() -> dict[str, Any]:
    """Those of benchmarks/variants.py."""
    spec = importlib.util.spec_from_file_location("variants", ROOT / "benchmarks" / "variants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.VARIANTS
    return found


def of_source(source: str) -> str:
    """Of a file, a definition, ``method NAME`` of the package, or ``variant NAME`` of the study.

    Raises:
        ValueError: there is none.
        OSError: no such file.
    """
    kind, _, name = source.partition(" ")
    if kind == "variant":
        return digest(repr(variants()[name]))
    if kind == "method":
        from clarp.method import Method

        return digest(repr(Method.named(name)))
    return of_code(source, (ROOT / source.partition(":")[0]).read_text(encoding="utf-8"))


def entries() -> dict[str, Entry]:
    found: dict[str, Entry] = json.loads(ENTRIES.read_text(encoding="utf-8"))
    return found


def changed(entry: Entry) -> list[str]:
    """The sources whose code is no longer that of the table."""
    return [source for source, was in entry["sources"].items() if of_source(source) != was]


def line(entry: Entry) -> str:
    """How a table was measured, for people."""
    command, *others = (str(entry[field]) for field in SHOWN)
    return f"*`{command}`: {'; '.join(others)}*"


def updated(text: str, found: dict[str, Entry]) -> str:
    """The page with the line below each mark made anew.

    Raises:
        ValueError: marks without an entry, or entries without a mark.
    """
    marked = [name for name, _ in MARK.findall(text)]
    if apart := set(marked) ^ set(found):
        raise ValueError(
            f"{', '.join(sorted(apart))}: expected a mark in {PAGE.name} and an entry in {ENTRIES.name} "
            "for each."
        )
    return MARK.sub(lambda mark: f"<!-- measured: {mark[1]} -->\n{line(found[mark[1]])}\n", text)


def without_a_mark(text: str) -> Iterator[str]:
    """The heads of the tables with figures that don't say how they were measured."""
    paragraphs = text.split("\n\n")
    for before, table in pairwise(paragraphs):
        if table.startswith("|") and FIGURE.search(table) and not before.startswith("<!-- measured: "):
            yield table.partition("\n")[0]


def main(names: list[str]) -> None:
    found = entries()
    for name in names:
        found[name]["sources"] = {source: of_source(source) for source in found[name]["sources"]}
    ENTRIES.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
