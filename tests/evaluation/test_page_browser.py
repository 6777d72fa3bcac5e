"""The report's page in Chromium, from disk, with the network off. Screenshots go to ./screenshots/."""

import json
from pathlib import Path

import numpy as np
import pytest

from clarp.evaluation.findings import Findings
from clarp.evaluation.page import build, write_page
from clarp.evaluation.tables import Report
from clarp.render.palette import paint
from evaluation.test_page import BOXES, COUNT, EVIL, METHODS, heatmap, rows, store

__all__ = ["store"]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
pytestmark = pytest.mark.browser


@pytest.fixture(params=["inside", "beside"])
def page(store, tmp_path, chromium, request, monkeypatch):
    """The page, its data inside it or in files beside it; whatever the console says is an error."""
    if request.param == "beside":
        monkeypatch.setattr(build, "INLINE", 1000)
    path = write_page(
        Report.of(store, "ssglrp", resamples=200), store, tmp_path / "a folder" / "report", Findings.of(store)
    )
    assert (path.parent / "data").is_dir() == (request.param == "beside")
    context = chromium.new_context(offline=True, viewport={"width": 1200, "height": 900})
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on(
        "request", lambda made: said.append(made.url) if not made.url.startswith(("file:", "data:")) else None
    )
    tab.goto(path.as_uri())
    tab.wait_for_selector("#grid .card", state="attached")
    yield tab
    context.close()
    assert said == []


def ids(tab):
    return [int(text.partition("<")[0]) for text in tab.locator("#grid h3").all_inner_texts()]


def drawn(tab, unit):
    """The card of a unit, its maps drawn."""
    card = tab.locator("#grid li").nth(unit)
    card.scroll_into_view_if_needed()
    card.locator("canvas").nth(1).wait_for()
    return card


def test_every_unit_is_there_and_names_are_text(page):
    assert ids(page) == list(range(COUNT))
    assert page.locator("#grid h3").first.inner_text() == f"0{EVIL}.jpg"
    assert (
        page.locator("#status").inner_text()
        == f"{COUNT} of {COUNT} pictures and labels; the numbers are pointing/hit"
    )
    assert page.locator("#page").inner_text() == "page 1 of 1"


def test_filters(page):
    page.select_option("#class", "1")
    page.wait_for_timeout(50)
    assert ids(page) == list(range(1, COUNT, 3))
    page.select_option("#class", "")
    page.select_option("#prediction", "right")
    page.wait_for_timeout(50)
    assert ids(page) == list(range(0, COUNT, 3))
    page.select_option("#prediction", "wrong")
    page.select_option("#of", label="ssglrp")
    page.select_option("#hit", "0 pointing/hit")
    page.wait_for_timeout(50)
    assert ids(page) == [n for n in range(COUNT) if n % 3 and n % 2]
    page.select_option("#of", label="lrp")  # which was never asked
    page.wait_for_timeout(50)
    assert ids(page) == []
    assert page.locator("#status").inner_text().startswith(f"0 of {COUNT}")
    page.select_option("#hit", "")
    page.select_option("#prediction", "")
    page.fill("#find", "9<")
    page.wait_for_timeout(300)
    assert ids(page) == [9, 19]


def test_of_many_findings_each_is_there_or_not(page):
    """Each by its own probability, whichever is the most probable."""
    page.evaluate(
        "index.task = 'multilabel'; index.probability = index.probability.map((_, k) => k % 2 ? .25 : "
        ".75); filter()"
    )
    told = page.locator("#grid .card > p.small").all_inner_texts()
    assert [text.rpartition("; ")[2] for text in told] == [
        "the model says that it is there",
        "the model says that it is not there",
    ] * (COUNT // 2)
    page.select_option("#prediction", "right")
    page.wait_for_timeout(50)
    # Number 7 was asked of a class that is not in the picture, and the model says so.
    assert ids(page) == [n for n in range(COUNT) if n % 2 == 0 or n == 7]


def test_a_map_of_zeros_says_so(page):
    assert "no relevance" not in " ".join(drawn(page, 0).locator("figcaption").all_inner_texts())
    page.evaluate(
        "decoded = ((own) => (map) => ({ ...own(map), values: new Float64Array(map[0] * map[1]) }))(decoded);"
        "filter()"
    )
    captions = drawn(page, 0).locator("figcaption").all_inner_texts()
    assert [caption.endswith(" (no relevance)") for caption in captions] == [False, True, True]


def test_orders(page):
    page.select_option("#order", "best masking/drop@9")
    page.wait_for_timeout(50)
    assert ids(page) == list(range(COUNT))
    page.select_option("#order", "worst masking/drop@9")
    page.wait_for_timeout(50)
    assert ids(page) == list(reversed(range(COUNT)))


def test_pages(page):
    page.evaluate(
        "starts = []; index.id.push(...Array(100).fill('0<')); for (const k of ['label', 'predicted', "
        "'target', 'probability']) index[k].push(...Array(100).fill(index[k][0])); filter()"
    )
    assert page.locator("#page").inner_text() == "page 1 of 5"
    assert page.locator("#before").is_disabled()
    page.click("#last")
    assert page.locator("#grid li").count() == 120 - 4 * 24
    assert page.locator("#after").is_disabled()
    page.click("#before")
    assert page.locator("#page").inner_text() == "page 4 of 5"


def test_best_and_worst(page):
    page.select_option("#column", label="masking/drop@5 (higher is better)")
    held = page.locator("#ends .end")
    assert held.locator("h3").all_inner_texts() == ["lrp", "ssglrp"]
    best, worst = (
        held.nth(1).locator(".maps").nth(place).locator("figcaption").all_inner_texts() for place in (0, 1)
    )
    values = [row["masking/drop@5"] for row in rows() if row["method"] == "ssglrp"]
    numbers = [[float(text.partition(",")[0]) for text in texts] for texts in (best, worst)]
    assert numbers[0] == pytest.approx(sorted(values)[::-1][:5], abs=1e-4)
    assert numbers[1] == pytest.approx(sorted(values)[:5], abs=1e-4)


def test_pointing_at_a_map_says_its_value(page):
    unit = 17  # in the second part
    canvas = drawn(page, unit).locator("canvas").nth(1)
    box = canvas.bounding_box()
    row, column = np.argwhere(heatmap(unit, 1).numpy())[0]
    page.mouse.move(box["x"] + (column + 0.5) / 6 * box["width"], box["y"] + (row + 0.5) / 8 * box["height"])
    assert page.locator("#hover").inner_text() == f"+18.0 at row {row + 1} of 8, column {column + 1} of 6"
    page.mouse.move(box["x"] + 2, box["y"] + box["height"] - 2)
    assert page.locator("#hover").inner_text().startswith("0.00 at row 8 of 8")
    page.mouse.move(0, 0)
    assert page.locator("#hover").is_hidden()


def test_maps_have_clarps_colours(page):
    """Full red where the only relevance is, the faded photo elsewhere; and the photo where the map is off."""
    unit = 3
    canvas = drawn(page, unit).locator("canvas").first
    read = "c => Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
    pixels = np.array(canvas.evaluate(read)).reshape(8, 6, 4)[..., :3]
    row, column = np.argwhere(heatmap(unit, 0).numpy())[0]
    np.testing.assert_allclose(pixels[row, column], 255 * paint(np.ones(1))[0], atol=1)
    grey = 255 * 0.3 + 0.7 * 9 * unit
    np.testing.assert_allclose(np.delete(pixels.reshape(48, 3), row * 6 + column, axis=0), grey, atol=3)
    page.locator("#opacity").evaluate(
        "e => { e.value = 0; e.dispatchEvent(new Event('input', {bubbles: true})) }"
    )
    pixels = np.array(canvas.evaluate(read)).reshape(8, 6, 4)[..., :3]
    np.testing.assert_allclose(pixels, 9 * unit, atol=3)


def test_a_photo_kept_once_stands_at_both_its_labels(page):
    sources = [drawn(page, unit).locator("img").get_attribute("src") for unit in (0, 1, 2)]
    assert sources[0] == sources[1] != sources[2]


def test_boxes_stand_where_the_label_is(page):
    assert drawn(page, 0).locator(".box").count() == 0
    card = drawn(page, 1)
    assert card.locator("figcaption").first.inner_text() == "photo, with the label's boxes"
    for picture in ("img", "canvas"):
        frame = card.locator(f".framed:has({picture})").first
        whole = frame.locator(picture).bounding_box()
        for box, (left, top, right, bottom) in zip(frame.locator(".box").all(), BOXES, strict=True):
            place = box.bounding_box()
            assert place["x"] - whole["x"] == pytest.approx(left * whole["width"], abs=1)
            assert place["y"] - whole["y"] == pytest.approx(top * whole["height"], abs=1)
            assert place["width"] == pytest.approx((right - left) * whole["width"], abs=1)
            assert place["height"] == pytest.approx((bottom - top) * whole["height"], abs=1)


def test_which_maps_are_shown(page):
    page.uncheck("input[name=method][value='0']")
    page.wait_for_timeout(50)
    card = page.locator("#grid li").first
    card.scroll_into_view_if_needed()
    card.locator("figcaption", has_text="ssglrp").wait_for()  # after the photo
    assert card.locator("figcaption").all_inner_texts() == ["photo", "ssglrp: 1"]


def test_the_keyboard_opens_a_picture_and_reads_its_values(page):
    button = page.locator("#grid h3 button").nth(5)
    button.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#large")
    dialog.locator("canvas[tabindex='0']").nth(1).wait_for()
    assert dialog.locator("h2").inner_text() == f"5{EVIL}.jpg"
    table = [row.split("\t") for row in dialog.locator("#large-numbers tr").all_inner_texts()]
    assert [row[0] for row in table] == ["method", *METHODS]
    assert [row[1] for row in table[1:]] == ["not asked", "0", "not asked"]
    dialog.locator("canvas").first.focus()
    for key in ("ArrowDown", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
        page.keyboard.press(key)
    expected = heatmap(5, 0)[5, 0].item()
    assert dialog.locator("#large-value").inner_text() == f"lrp: +{expected:.2f} at row 6 of 8, column 1 of 6"
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert button.evaluate("e => e === document.activeElement")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_axe_finds_nothing(store, tmp_path, chromium, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    path = write_page(
        Report.of(store, "ssglrp", resamples=200), store, tmp_path / "report", Findings.of(store)
    )
    # axe is a script of its own, which the page's policy would refuse.
    context = chromium.new_context(
        offline=True, bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900}
    )
    tab = context.new_page()
    tab.goto(path.as_uri())
    for summary in tab.locator("summary").all():
        summary.click()
    drawn(tab, 0)
    SCREENSHOTS.mkdir(exist_ok=True)
    tab.screenshot(path=SCREENSHOTS / f"report-{scheme}-{width}.png", full_page=True)
    found = axe.Axe().run(tab).response["violations"]
    tab.locator("#grid h3 button").first.click()
    tab.locator("#large canvas[tabindex='0']").first.wait_for()
    tab.screenshot(path=SCREENSHOTS / f"report-{scheme}-{width}-large.png")
    found += axe.Axe().run(tab).response["violations"]
    sideways = tab.evaluate("document.documentElement.scrollWidth > innerWidth")
    context.close()
    assert not found, json.dumps(found, indent=1)
    assert not sideways
