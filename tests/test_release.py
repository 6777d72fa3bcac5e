"""What a release needs: one version, forms that parse, and a CI of the public forge that runs what .ci/run runs."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import clarp
import release_check

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_version_is_in_one_place():
    assert PROJECT["project"]["dynamic"] == ["version"]
    files = [*(ROOT / "src").rglob("*.py"), ROOT / "Makefile", ROOT / ".ci/run"]
    number = re.compile(rf"(?<![\d.]){re.escape(clarp.__version__)}(?![\d.])")
    stated = [path for path in files if number.search(path.read_text())]
    assert stated == [ROOT / "src/clarp/__init__.py"]


def test_ci_of_the_forge_runs_what_ci_runs():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert "bash .ci/run" in steps
    targets = re.findall(r"^make ([\w-]+)", "\n".join(steps), re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    assert targets
    assert all(f"\n{target}:" in makefile for target in targets)
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert jobs["ci"]["steps"][1]["with"]["python-version"] == lowest


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.stem
)
def test_forms_have_what_the_forge_asks_for(form):
    content = yaml.safe_load(form.read_text())
    if form.stem == "config":
        assert set(content) <= {"blank_issues_enabled", "contact_links"}
        return
    assert {"name", "description", "body"} <= set(content)
    fields = [one for one in content["body"] if one["type"] != "markdown"]
    assert len({one["id"] for one in fields}) == len(fields)
    assert all(one["attributes"]["label"] for one in fields)


def test_the_release_check_takes_the_lowest_versions_that_are_declared():
    torch, torchvision = release_check.lowest()
    assert (
        torch
        == f"torch=={next(d for d in PROJECT['project']['dependencies'] if d.startswith('torch>')).partition('>=')[2]}"
    )
    assert torchvision.startswith("torchvision==0.")


def test_the_sdist_has_what_its_own_texts_link():
    include = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    links = set(re.findall(r"\]\(([\w./-]+)\)", (ROOT / "README.md").read_text()))
    assert {link.split("/")[0] for link in links} <= set(include)
