"""The page of examples/browser in Chromium, as a person uses it: ``make test-browser``."""

import base64
import shutil

import pytest
from PIL import Image

from examples.reading import KEPT, SAMPLE, turned
from serve.browsing import DESK, PHONE, screenshot

pytestmark = pytest.mark.browser

CAT, ESPRESSO, CUP = 285, 967, 968
DONE = "#status:has-text('The map is ready after')"
LARGEST = 60e6  # bytes of model and page together


@pytest.fixture
def open_page(chromium):
    """Open a page; in the end, nothing may have gone wrong in it, and nothing may have been asked of another host."""
    contexts, wrong, urls = [], [], []

    def opened(address, **options):
        context = chromium.new_context(**{**DESK, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
    assert [url for url in urls if not url.startswith("http://127.0.0.1:")] == []


@pytest.fixture
def page(open_page, site):
    page = open_page(site.url)
    page.locator(KEPT).wait_for()
    return page


def upload(page, photo=SAMPLE):
    page.set_input_files("#file", photo)
    page.locator(DONE).wait_for()
    return page


class TestAsAPersonDoes:
    def test_the_sample_photo(self, page):
        page.click("#sample")
        page.locator(DONE).wait_for()
        rows = page.locator("#classes li")
        assert rows.count() == 5
        assert rows.first.locator(".label").inner_text() == "Egyptian cat"
        assert rows.first.locator(".probability").inner_text() == "31.9\xa0%"
        assert page.inner_text("#title").startswith("Egyptian cat against all others")
        assert page.inner_text("#lost").endswith("% of the relevance was lost on its way to the pixels.")
        assert "full from" in page.inner_text("#legend")
        screenshot(page, "in-browser", full_page=True)

    def test_a_dropped_one(self, page):
        transfer = page.evaluate_handle(
            """async (text) => {
              const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
              const transfer = new DataTransfer();
              transfer.items.add(new File([bytes], "dropped <b>here</b>.jpg", { type: "image/jpeg" }));
              return transfer;
            }""",
            base64.b64encode(turned()).decode(),
        )
        page.dispatch_event("body", "dragenter", {"dataTransfer": transfer})
        assert page.locator("body.dropping").count() == 1
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        page.locator(DONE).wait_for()
        assert page.inner_text("#drop-name") == "dropped <b>here</b>.jpg"
        assert page.inner_text("#seen").startswith("300 × 500 pixels")
        assert page.locator("body.dropping").count() == 0

    def test_class_and_rival_by_keyboard(self, page):
        upload(page)
        shown = page.evaluate("document.getElementById('map').toDataURL()")
        page.fill("#target", "ESPRESSO")
        page.press("#target", "Enter")
        page.locator("#title:has-text('espresso against all others 18.8')").wait_for()
        page.locator(DONE).wait_for()
        page.fill("#against", "egyptian_cat")
        page.press("#against", "Enter")
        page.locator("#title:has-text('espresso against Egyptian cat')").wait_for()
        page.locator(DONE).wait_for()
        assert page.get_attribute(f"#target-{ESPRESSO}", "aria-pressed") == "true"
        assert page.get_attribute(f"#against-{CAT}", "aria-pressed") == "true"
        assert "espresso against Egyptian cat" in page.get_attribute("#map", "aria-label")
        assert page.evaluate("document.getElementById('map').toDataURL()") != shown
        page.focus(f"#target-{CAT}")
        page.keyboard.press("Enter")
        page.locator("#title:has-text('Egyptian cat against all others')").wait_for()
        assert page.evaluate("document.activeElement.id") == f"target-{CAT}"

    def test_of_quick_choices_the_last_counts(self, page):
        upload(page)
        page.click(f"#target-{CUP}")
        page.click(f"#against-{ESPRESSO}")
        page.locator("#map[aria-label^='Map of cup against espresso,']").wait_for()
        assert page.inner_text("#title").startswith("cup against espresso")

    def test_of_quick_photos_the_last_counts(self, page, tmp_path):
        (tmp_path / "turned.jpg").write_bytes(turned())
        page.set_input_files("#file", SAMPLE)
        upload(page, tmp_path / "turned.jpg")
        assert page.inner_text("#seen").startswith("300 × 500 pixels")
        assert page.evaluate("document.getElementById('map').height > document.getElementById('map').width")

    def test_names_that_are_none(self, page):
        upload(page)
        for field, typed, told in (
            (
                "target",
                "retriever",
                "“retriever” is not the name of a class. Is it one of these: flat-coated",
            ),
            ("target", "xyzzy", "“xyzzy” is not the name of a class. Choose one from the list."),
            ("target", " ", "Type the name of a class."),
            ("target", "1000", "“1000” is not the name of a class."),
            ("against", "xyzzy", "“xyzzy” is not the name of a class."),
            ("against", "Egyptian cat", "A class can't be its own rival: choose another one."),
        ):
            page.fill("#target", "Egyptian cat")
            page.fill(f"#{field}", typed)
            page.press(f"#{field}", "Enter")
            assert page.inner_text(f"#{field}-problem").startswith(told)
            assert page.get_attribute(f"#{field}", "aria-invalid") == "true"
            assert page.inner_text("#title").startswith("Egyptian cat against all others")

    def test_a_file_that_is_no_picture(self, page, tmp_path):
        (tmp_path / "letter.pdf").write_bytes(b"%PDF-1.4 nothing")
        page.set_input_files("#file", tmp_path / "letter.pdf")
        page.locator("#problem:has-text('letter.pdf is not a picture that this browser can read')").wait_for()
        upload(page)
        assert page.is_hidden("#problem")

    def test_a_photo_that_is_a_line(self, page, tmp_path):
        """Its shorter side becomes 256 pixels, and the longer one four million, of which the model sees 224."""
        Image.new("RGB", (1, 16000), "red").save(tmp_path / "line.png")
        upload(page, tmp_path / "line.png")
        assert page.inner_text("#seen").startswith("1 × 16000 pixels")

    def test_something_dropped_that_is_no_file(self, page):
        transfer = page.evaluate_handle("new DataTransfer()")
        page.dispatch_event("body", "drop", {"dataTransfer": transfer})
        page.locator("#problem:has-text('That is not a file')").wait_for()

    def test_the_page_answers_while_the_model_works(self, page):
        """No pause of the page is as long as an explanation."""
        page.evaluate("""() => {
          globalThis.longest = 0;
          let last = performance.now();
          setInterval(() => {
            longest = Math.max(longest, performance.now() - last);
            last = performance.now();
          }, 10);
        }""")
        upload(page)
        told = page.inner_text("#status")
        assert page.evaluate("longest") / 1000 < 0.5 * float(told.split()[-2])


class TestWithoutANetwork:
    def test_after_the_first_load(self, open_page, folder, serve):
        site = serve(folder)
        page = open_page(site.url)
        page.locator(KEPT).wait_for()
        assert {path: site.sent.count(path) for path in ("/model.onnx", "/runtime/ort.wasm")} == {
            "/model.onnx": 1,
            "/runtime/ort.wasm": 1,
        }
        page.context.set_offline(True)
        site.shutdown()
        site.server_close()
        page.reload()
        page.locator(KEPT).wait_for()
        page.click("#sample")
        page.locator(DONE).wait_for()
        assert page.inner_text("#title").startswith("Egyptian cat")
        assert page.evaluate("crossOriginIsolated")  # so that threads may share memory

    def test_a_later_version_is_kept_before_it_is_shown(self, open_page, builder, folder, serve, tmp_path):
        shutil.copytree(folder, tmp_path / "page")
        site = serve(tmp_path / "page")
        page = open_page(site.url)
        page.locator(KEPT).wait_for()
        index = tmp_path / "page/index.html"
        index.write_text(index.read_text().replace("<h1>clarp</h1>", "<h1>later</h1>"))
        builder.write_keeper(tmp_path / "page")
        page.reload()
        assert page.inner_text("h1") == "clarp"
        page.evaluate("""async () => {
          const kept = await navigator.serviceWorker.getRegistration();
          while (!kept.waiting) await new Promise((done) => setTimeout(done, 100));
        }""")
        site.shutdown()
        site.server_close()
        page.goto("about:blank")
        page.wait_for_timeout(2000)  # until the browser has noticed that no page is left
        page.goto(site.url)
        page.locator(KEPT).wait_for()
        assert page.inner_text("h1") == "later"
        assert page.evaluate("async () => (await caches.keys()).length") == 1

    def test_a_model_that_does_not_come(self, open_page, folder, serve):
        site = serve(folder)
        site.lost.add("/model.onnx")
        page = open_page(site.url)
        page.locator("#problem:has-text('The model can\\'t be loaded')").wait_for()
        assert "reload the page to try again." in page.inner_text("#problem")
        page.set_input_files("#file", SAMPLE)
        page.locator("#drop-name:text-is('cat_and_coffee.jpg')").wait_for()
        page.locator("#problem:has-text('The model can\\'t be loaded')").wait_for()
        assert page.locator(KEPT).count() == 0


def test_model_and_page_are_small(folder):
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < LARGEST


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "options"), [("desk", DESK), ("phone", PHONE)])
def test_no_barriers_and_no_sideways_scrolling(open_page, site, device, options, scheme):
    """Axe finds no violations: at the start, and with a map."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    # axe is a script of its own, which the page's policy would refuse.
    page = open_page(site.url, color_scheme=scheme, bypass_csp=True, **options)

    def check(state):
        found = axe.run(page).response["violations"]
        told = [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found]
        assert told == [], state
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), state

    check("start")
    upload(page)
    page.fill("#target", "retriever")
    page.press("#target", "Enter")
    check("map")
    screenshot(page, f"in-browser-{device}-{scheme}", full_page=True)
