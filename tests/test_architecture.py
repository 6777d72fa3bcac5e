"""What docs/architecture.md says of the modules: who imports what, how long they are, and that class names are unique."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "clarp"
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MODULES = {path.relative_to(SOURCE): ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
LONGEST = 420
"""Lines of a file."""
ENGINE = {"capture", "operations", "propagation"}
TOOLS = {"data", "evaluation", "models", "serve", "commands", "cli"}


def imports(tree: ast.Module) -> Iterator[list[str]]:
    """What a module imports of clarp, as paths: module and name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "clarp":
            yield from ([*(node.module or "").split(".")[1:], alias.name] for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1:] for a in node.names if a.name.startswith("clarp."))


def test_no_two_classes_have_one_name():
    places = defaultdict(list)
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name.lstrip("_")].append(str(path))
    assert len(places) > 200
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_files_are_short():
    lines = {str(path): len((SOURCE / path).read_text().splitlines()) for path in MODULES}
    assert len(lines) > 200
    assert {path: count for path, count in lines.items() if count > LONGEST} == {}


def test_tools_import_nothing_of_the_engine():
    found = [
        (path, name) for path, tree in MODULES.items() if path.parts[0] in TOOLS for name in imports(tree)
    ]
    assert len(found) > 200
    assert [(str(path), name) for path, name in found if name[0] in ENGINE] == []


def test_nothing_uses_the_adapters():
    inside = {path for path in MODULES if path.parts[0] == "interop"}
    users = {path for path, tree in MODULES.items() for name in imports(tree) if name[0] == "interop"}
    assert len(inside) > 10
    assert users <= inside


def test_private_names_stay_in_their_package():
    for path, tree in MODULES.items():
        for name in imports(tree):
            private = [part for part in name if part.startswith("_") and not part.startswith("__")]
            assert not private or name[0] == path.parts[0], (path, name)


def test_the_page_lists_every_module_and_no_other():
    listed = re.findall(r"^      ([a-z_]+(?:\.py|/))  ", PAGE, re.MULTILINE)
    there = {path.name for path in SOURCE.glob("*.py")} | {
        f"{path.name}/" for path in SOURCE.iterdir() if path.is_dir()
    }
    unlisted = {name for name in there if name.startswith("_")}
    assert len(listed) == len(set(listed)) > 50
    assert set(listed) == there - unlisted


def test_files_that_the_page_names_are_there():
    code = " ".join(re.findall(r"`([^`\n]+)`", PAGE))
    named = set(re.findall(r"[\w./-]+\.(?:py|yml|toml)\b|\b[\w-]+(?:/[\w-]+)*/(?!\S)", code))
    folders = ("src", "tests", "docs", "benchmarks", "examples")
    there = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*"))]
    ends = [
        f"/{path.relative_to(ROOT).as_posix()}{'/' * path.is_dir()}"
        for path in (*there, *map(ROOT.joinpath, folders))
    ]
    assert len(named) > 40
    assert {name for name in named if not any(end.endswith(f"/{name}") for end in ends)} == set()
