"""skills/explain-a-classifier/SKILL.md: an agent that does what it says gets through."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKILL = ROOT / "skills/explain-a-classifier/SKILL.md"
TEXT = SKILL.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder in which all blocks ran, one after the other."""
    pytest.importorskip("clarp.models._torchvision")  # clarp_net.py imports torchvision
    spec = importlib.util.spec_from_file_location("follow_page", ROOT / "examples/follow_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("skill")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        module.followed(SKILL)
    sys.modules.pop("clarp_net", None)
    return folder


def test_its_commands_give_what_it_says(folder) -> None:
    manifest = json.loads((folder / "maps/manifest.json").read_text())
    (entry,) = manifest["photos"][0]["explanations"]
    assert entry["target"]["label"] == "cat"
    assert [rival["label"] for rival in entry["against"]] == ["coffee"]
    assert list((folder / "maps").glob("*.png"))
    assert not list((folder / "check").glob("*.png"))
    assert (folder / "sheet.png").is_file()


def test_its_head_is_what_agents_read() -> None:
    head = re.match(r"---\nname: ([a-z-]+)\ndescription: (.+)\n---\n", TEXT)
    assert head[1] == SKILL.parent.name
    assert len(head[2]) <= 1024


def test_options_that_it_names_exist() -> None:
    told = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", TEXT))
    assert len(options) > 10
    assert {one for one in options if f"`{one}`" not in told and one != "--no-pictures"} == set()
