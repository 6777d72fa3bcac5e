"""The findings on the report's page: what is in it, and in Chromium how it is used."""

import json
from pathlib import Path

import numpy as np
import pytest

from clarp.evaluation.findings import Findings
from clarp.evaluation.page import write_page
from clarp.evaluation.tables import Report
from evaluation.findings.made_up import anywhere, blob, run_of
from evaluation.test_page import data_of

html5lib = pytest.importorskip("html5lib")
pytest.importorskip("jinja2")
pytest.importorskip("sklearn")

EVIL = "<script>alert(1)</script>"
FOUR = np.arange(80) % 4
MARKED = (FOUR == 2) & (np.arange(80) > 30)
SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"


@pytest.fixture
def findings_and_path(tmp_path):
    """A cow with a mark at the bottom left, and dogs that are taken for ants."""
    generator = np.random.default_rng(0)
    maps = [blob(generator, [(0.87, 0.13) if marked else anywhere(generator)]) for marked in MARKED]
    predicted = np.where((FOUR == 3) & (np.arange(80) > 60), 0, FOUR)
    boxes = [[(0.3, 0.1, 0.9, 0.7)] for _ in FOUR]
    names = ["ant", "bee", f"cow {EVIL}", "dog", "eel"]
    store = run_of(tmp_path / "run", {"lrp": maps}, FOUR, predicted=predicted, boxes=boxes, names=names)
    findings = Findings.of(store)
    return findings, write_page(Report.of(store, "lrp", resamples=200), store, tmp_path / "report", findings)


def test_sentences_are_text_and_units_are_data(findings_and_path):
    findings, path = findings_and_path
    text = path.read_text()
    html5lib.HTMLParser(strict=True).parse(text)
    assert EVIL not in text
    data = data_of(path)["index"]["findings"]
    mark, pair = data["photos"][0], data["photos"][-1]
    assert mark == {
        "units": list(findings.places[0].units),
        "method": 0,
        "words": f"cow {EVIL}, lrp, bottom left",
        "place": list(findings.places[0].box),
    }
    assert pair["units"] == list(findings.pairs[0].units)
    assert [one["name"] for one in data["clusters"]] == ["ant", "bee", f"cow {EVIL}", "dog"]
    for shown, one in zip(data["clusters"], findings.clusters, strict=True):
        assert [c["units"] for c in shown["clusters"]] == [c.units.tolist() for c in one.clusters]
        for cluster, found in zip(shown["clusters"], one.clusters, strict=True):
            expected = found.mean / found.mean.max() * 255
            np.testing.assert_allclose(np.reshape(cluster["mean"], (14, 14)), expected, atol=0.51)


@pytest.fixture
def page(findings_and_path, chromium):
    findings, path = findings_and_path
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.goto(path.as_uri())
    tab.wait_for_selector("#grid .card", state="attached")
    yield tab, findings
    context.close()
    assert said == []


@pytest.mark.browser
def test_the_photos_of_a_mark_are_shown_and_browsed(page):
    tab, findings = page
    units = findings.places[0].units
    finding = tab.locator("[data-finding='0']")
    finding.locator("canvas").nth(5).wait_for()
    assert finding.locator("figure").count() == 6
    left, top, *_ = findings.places[0].box
    frame = finding.locator(".framed").first
    whole, place = frame.locator("canvas").bounding_box(), frame.locator(".place").bounding_box()
    assert place["x"] - whole["x"] == pytest.approx(left * whole["width"], abs=1)
    assert place["y"] - whole["y"] == pytest.approx(top * whole["height"], abs=1)
    finding.get_by_role("button", name=f"Browse all {len(units)} photos").click()
    assert tab.locator("#grid .card").count() == min(24, len(units))
    assert tab.locator("#status").inner_text().startswith(f"{len(units)} of 80 ")
    assert tab.locator("#only-text").inner_text() == f"cow {EVIL}, lrp, bottom left"
    assert tab.locator("#only-off").evaluate("e => e === document.activeElement")
    tab.keyboard.press("Enter")
    assert tab.locator("#status").inner_text().startswith("80 of 80 ")
    assert tab.locator("#only").is_hidden()


@pytest.mark.browser
def test_clusters_of_a_class_are_browsed(page):
    tab, findings = page
    tab.select_option("#clustered", "2")
    held = tab.locator("#clusters > li")
    clusters = findings.clusters[2].clusters
    assert len(clusters) == 2
    for k, cluster in enumerate(clusters):
        own = held.nth(k)
        assert own.locator("h4").inner_text() == (
            f"Cluster {k + 1}: {len(cluster.units)} of 20 maps, most evidence {cluster.place}"
        )
        assert own.locator("figcaption").nth(1).inner_text() == "prototype"
        mean = own.locator("canvas.mean")
        pixels = mean.evaluate("c => Array.from(c.getContext('2d').getImageData(0, 0, 14, 14).data)")
        strength = 255 - np.reshape(pixels, (14, 14, 4))[..., 2]  # the less blue, the more red
        assert strength.argmax() == cluster.mean.argmax()
    held.first.get_by_role("button", name="Browse all").click()
    shown = tab.locator("#grid h3").all_inner_texts()
    assert [int(text.partition(".")[0]) for text in shown] == sorted(clusters[0].units)
    thumbnail = held.nth(1).locator("figure button").first
    thumbnail.scroll_into_view_if_needed()
    thumbnail.click()
    assert tab.locator("#large-title").inner_text() == f"{clusters[1].prototype:04d}.png"


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing(findings_and_path, chromium, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = chromium.new_context(
        offline=True, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    tab = context.new_page()
    tab.goto(findings_and_path[1].as_uri())
    tab.locator("[data-finding='0'] canvas").first.wait_for()
    tab.select_option("#clustered", "2")
    tab.locator("#clusters").scroll_into_view_if_needed()
    tab.locator("#clusters figure button canvas").first.wait_for()
    tab.locator("[data-finding='0'] button", has_text="Browse").click()
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"findings-{scheme}-{width}.png", full_page=True)
    found = axe.Axe().run(tab).response["violations"]
    sideways = tab.evaluate("document.documentElement.scrollWidth > innerWidth")
    context.close()
    assert not found, json.dumps(found, indent=1)
    assert not sideways
