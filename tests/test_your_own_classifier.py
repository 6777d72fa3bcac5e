"""docs/your-own-classifier.md, as a reader would follow it: its files, code and commands, in their order, and what they give."""

import json
import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs/your-own-classifier.md"
PERCENT = re.compile(r"<?(\d+(?:\.\d+)?)%")
NEAR = 5  # percent: processors round differently, and training makes more of it
CIRCLE, CROSS = (
    (slice(6, 27), slice(5, 26)),
    (slice(36, 57), slice(37, 58)),
)  # with a pixel around them, in both.png
NODULE = (slice(33, 48), slice(13, 28))  # in ill.png


def follow():
    """examples/follow_page.py."""
    spec = spec_from_file_location("follow_page", PAGE.parents[1] / "examples/follow_page.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder in which the page was followed, and what it printed beside what the page shows."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder, follow().followed(PAGE)
    for name in ("net", "shapes", "xray"):
        sys.modules.pop(name, None)


def lines(text):
    """The lines but for their figures, sorted, and the percentages by the names behind them."""
    shares = {
        line[found.end() :].strip(): float(found[1])
        for line in text.splitlines()
        if (found := PERCENT.search(line))
    }
    plain = [re.sub(r"above \d+", "above N", PERCENT.sub("%", line)).strip() for line in text.splitlines()]
    return sorted(plain), shares


def test_what_the_page_shows_is_what_is_printed(page):
    _, found = page
    assert len(found) == 9
    for printed, shown in found:
        (said, shares), (expected, wanted) = lines(printed), lines(shown)
        assert said == expected
        for name, share in wanted.items():
            undecided = (
                NEAR < share < 100 - NEAR
            )  # a photo of two shapes, for a model that has learnt to name one
            assert undecided or shares[name] == pytest.approx(share, abs=NEAR), printed


def test_every_picture_is_there_and_no_map_is_empty(page):
    folder, found = page
    for printed, _ in found:
        for picture in re.findall(r": ([\w/.-]+\.png)$", printed, re.MULTILINE):
            assert (folder / picture).is_file()
    for name in ("clarp-out", "findings"):
        entries = [
            one
            for photo in json.loads((folder / name / "manifest.json").read_text())["photos"]
            for one in photo["explanations"]
        ]
        assert entries
        assert not any(one["empty"] for one in entries)


def share(heatmap, place):
    """How much of the positive relevance lies there; a square of these is at most 11 % of the photo."""
    red = heatmap.clip(min=0)
    return red[place].sum() / red.sum()


def heatmap(page, file):
    return np.load(page[0] / file).sum(0)


def test_against_is_red_on_one_shape_and_blue_on_the_other(page):
    for file in (
        "clarp-out/both.0-circle.ssglrp.npy",
        "circle-not-cross/relevance.npy",
        "contrast/relevance.npy",
    ):
        found = np.load(page[0] / file).reshape(3, 64, 64).sum(0)
        assert share(found, CIRCLE) > 0.5
        assert share(-found, CROSS) > 0.5


def test_each_finding_is_red_on_its_own_shape_and_nowhere_blue(page):
    for file, place in (("both.0-circle", CIRCLE), ("both.2-cross", CROSS)):
        found = heatmap(page, f"findings/{file}.ssglrp.npy")
        assert share(found, place) > 0.5
        assert (found >= 0).all()


def test_the_nodule_is_red_and_without_one_all_the_red_there_is_was_worth_little(page):
    assert share(heatmap(page, "clarp-out/ill.1-nodule.ssglrp.npy"), NODULE) > 0.5
    well = heatmap(page, "clarp-out/well.1-nodule.ssglrp.npy")
    assert (well >= 0).all()
    assert well.any()


@pytest.mark.parametrize(
    ("method", "red", "blue"), [("ssglrp", True, False), ("lrp", False, True), ("clarp", True, True)]
)
def test_what_methods_show_where_the_logit_is_negative(page, method, red, blue):
    command = "$ clarp explain well.png --model xray.py:build --weights xray.pt --task binary --target 1 --out signs"
    follow().ran(f"{command} --method {method}")
    found = heatmap(page, f"signs/well.1-class-1.{method}.npy")
    assert ((found > 0).any(), (found < 0).any()) == (red, blue)
