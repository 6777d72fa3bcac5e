"""SECURITY.md and the threats of serve.md: the tests that they name are there, and the bounds are those of the code."""

import re
from pathlib import Path

import pytest

from clarp.decoding import OWN, STRANGERS
from clarp.serve.limits import Limits
from test_fire import COUNTS

HERE = Path(__file__).parents[1]
SERVE = (HERE / "docs" / "serve.md").read_text()
POLICY = (HERE / "SECURITY.md").read_text()
THREATS = [
    line
    for line in SERVE.partition("### Threats")[2].partition("##")[0].splitlines()
    if line.startswith("| ")
][1:]


@pytest.mark.parametrize("line", [line for line in THREATS if "---" not in line])
def test_each_threat_names_tests_that_are_there(line):
    named = re.findall(r"`([^`]+)`", line.rsplit("|", 2)[1])
    assert named, line
    file = ""
    for name in named:
        file, _, test = name.rpartition("::") if "::" in name else (file, "", name)
        path, test = (HERE / name, "") if name.endswith(".py") else (HERE / file, test)
        assert path.is_file(), name
        assert not test or re.search(rf"^(class|def|    def) {test}\b", path.read_text(), re.MULTILINE), name


def test_the_policy_names_what_is_there():
    """Its tests, its commands, the options it speaks of, and how many inputs `make test` tries."""
    tests = re.findall(r"`(tests/[\w/]+\.py)`", POLICY)
    assert tests
    assert all((HERE / name).is_file() for name in tests)
    makefile = (HERE / "Makefile").read_text()
    assert all(f"\n{name}:" in makefile for name in re.findall(r"`make ([\w-]+)`", POLICY))
    options = (HERE / "docs" / "command-line.md").read_text()
    assert all(f"| `{name}` |" in options for name in re.findall(r"`(--\w+)`", POLICY))
    assert f"`make test` tries {sum(COUNTS.values())} and `make test-slow` 14,000" in POLICY


def test_the_bounds_are_those_of_the_code():
    assert f"{OWN.seconds} s of processor time or {OWN.memory >> 30} GiB" in POLICY
    assert (
        f"{OWN.seconds} s of processor time or {OWN.memory >> 30} GiB"
        in (HERE / "docs" / "data.md").read_text()
    )
    assert STRANGERS.seconds < Limits().seconds
