"""SECURITY.md and the threats of serve.md: the tests that they name are there, and the bounds are those of the code."""

import re
from pathlib import Path

import pytest

from clarp.decoding import OWN, STRANGERS
from clarp.serve.limits import Limits

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


def test_the_bounds_are_those_of_the_code():
    assert f"{OWN.seconds} s of processor time or {OWN.memory >> 30} GiB" in POLICY
    assert (
        f"{OWN.seconds} s of processor time or {OWN.memory >> 30} GiB"
        in (HERE / "docs" / "data.md").read_text()
    )
    assert STRANGERS.seconds < Limits().seconds
