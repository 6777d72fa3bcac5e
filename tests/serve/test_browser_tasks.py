"""The page with a model of each task in a real browser: ``make test-browser``. Screenshots go to ./screenshots/."""

import httpx
import pytest

from clarp.explanation import EMPTY
from clarp.serve.app import application
from colours import discs, own_answer, written
from serve.browsing import DESK, PHONE, rows, screenshot, wait_for_maps
from serve.servers import served, serving

pytestmark = pytest.mark.browser

FINDINGS, FINDING, KINDS = (f"{name}.py:build" for name in ("findings", "finding", "kinds"))
PHOTO = discs("red", "green")


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    found = served(written(tmp_path_factory.mktemp("colours"), "findings", "finding", "kinds"))
    return {engine.name: engine for engine in found}


@pytest.fixture(scope="module")
def url(engines):
    with serving(application(list(engines.values()))) as found:
        yield found


@pytest.fixture
def opened(open_page, url):
    """Open the page for a model, with the photo."""

    def with_model(name, **options):
        page = open_page(url, **options)
        page.select_option("#model", name)
        page.set_input_files("#file", {"name": "discs.png", "mimeType": "image/png", "buffer": PHOTO})
        wait_for_maps(page, 2)
        return page

    return with_model


def shares(page):
    return {label: float(text.removesuffix(" %")) for label, text in rows(page).items()}


def pressed(page, role):
    return page.locator(f"#classes .{role}[aria-pressed=true]").count()


def heads(page):
    return page.locator(".target h3").all_inner_texts()


def stacks(page):
    return [one.get_attribute("aria-label").partition(".")[0] for one in page.locator("#maps .stack").all()]


def seen_text(page):
    return page.locator("main").inner_text()


class TestManyFindings:
    def test_no_rivals_and_each_finding_has_its_own_probability(self, opened, engines):
        page = opened(FINDINGS)
        own = own_answer(engines[FINDINGS].classifier, PHOTO).tolist()
        labels = ("red disc", "green disc", "blue disc", "anything")
        assert shares(page) == pytest.approx(
            {label: 100 * share for label, share in zip(labels, own, strict=True)}, abs=0.0501
        )
        assert sum(shares(page).values()) > 200
        assert (pressed(page, "for"), pressed(page, "against")) == (1, 0)
        assert page.inner_text("#classes-hint").startswith("Each class is a question of its own")
        assert heads(page) == [f"red disc {100 * own[0]:.1f} % by itself"]
        assert stacks(page) == [f"Heatmap of red disc by {method} by itself" for method in ("lrp", "ssglrp")]
        assert page.locator("#maps h4").all_inner_texts() == ["LRP", "SSGLRP"]
        assert "against all" not in seen_text(page)

    def test_a_finding_is_contrasted_with_those_that_are_chosen(self, opened):
        page = opened(FINDINGS)
        page.click("#target-1")
        wait_for_maps(page, 4)
        with page.expect_request("**/api/explain*against=1*") as asked:
            page.click("#against-1")
        assert httpx.URL(asked.value.url).params.get_list("target") == ["0"]
        page.locator(".target small:has-text('against green disc')").wait_for()
        wait_for_maps(page, 4)
        assert [head.rpartition(" % ")[2] for head in heads(page)] == ["against green disc", "by itself"]
        assert page.locator("#maps h4").all_inner_texts() == [
            "LRP contrasts with nothing",
            "SSGLRP",
            "LRP",
            "SSGLRP",
        ]
        assert stacks(page)[:2] == [
            "Heatmap of red disc by lrp by itself",
            "Heatmap of red disc by ssglrp against green disc",
        ]
        screenshot(page, "tasks-multilabel-against", full_page=True)
        page.click("#against-1")
        page.locator(".target:first-child small:has-text('by itself')").wait_for()
        assert all(head.endswith("by itself") for head in heads(page))

    def test_an_empty_map_says_so(self, opened):
        page = opened(FINDINGS)
        page.click("#target-0")
        page.click("#target-3")
        page.locator(".target h3:has-text('anything')").wait_for()
        wait_for_maps(page, 2)
        for card in page.locator("#maps .card").all():
            assert card.locator(".note").first.inner_text() == f"{EMPTY.capitalize()}."
        assert page.locator("#maps .scale").count() == 0
        screenshot(page, "tasks-empty", full_page=True)

    def test_hiding_one_finding_leaves_the_others(self, opened):
        page = opened(FINDINGS)
        page.get_by_label("Brush", exact=True).fill("40")
        stack = page.locator("#photo-card .stack")
        with page.expect_response("**/api/mask*"):
            stack.click(
                position={"x": stack.bounding_box()["width"] / 4, "y": stack.bounding_box()["height"] / 4}
            )
        page.locator("#changes table").wait_for()
        changes = {
            row.locator("th").inner_text(): float(row.locator(".change").inner_text().replace("−", "-"))
            for row in page.locator("#changes tbody tr").all()
        }
        assert changes["red disc"] < -80
        assert abs(changes["green disc"]) < 5


class TestItIsSoOrNot:
    def test_two_answers_and_no_choice_of_rivals(self, opened, engines):
        page = opened(FINDING)
        so = 100 * float(own_answer(engines[FINDING].classifier, PHOTO).sigmoid())
        assert shares(page) == pytest.approx({"red disc": so, "not red disc": 100 - so}, abs=0.0501)
        assert page.locator("#classes .for").count() == 2
        assert page.locator("#classes .against").count() == 0
        assert page.is_hidden("#adding")
        assert page.inner_text("#classes-hint").startswith("One question with two answers")
        assert page.inner_text("#notes") == "task: binary (assumed: it has one logit)"
        assert heads(page) == [f"red disc {so:.1f} % against not red disc"]
        assert page.locator("#maps h4").all_inner_texts() == ["LRP", "SSGLRP"]

    def test_the_one_is_the_negative_of_the_other(self, opened):
        page = opened(FINDING)
        page.click("#target-0")
        wait_for_maps(page, 4)
        assert [head.rpartition(" % ")[2] for head in heads(page)] == [
            "against not red disc",
            "against red disc",
        ]
        page.locator("#maps .stack").first.click(position={"x": 40, "y": 40})
        so, not_so = (page.locator("#maps .readout").nth(k).inner_text() for k in (0, 2))
        assert so.startswith("+")
        assert not_so == so.replace("+", "−", 1)
        page.click("#clear")
        screenshot(page, "tasks-binary-both", full_page=True)


def test_names_that_come_late_are_not_taken(open_page, url):
    """Of a model that was chosen for a moment only."""
    page, held = open_page(url), []
    page.route("**/api/classes?model=kinds*", lambda route: held.append(route))  # noqa: PLW0108  a builtin can not be asked for its arguments
    page.select_option("#model", KINDS)
    page.select_option("#model", FINDING)
    page.set_input_files("#file", {"name": "discs.png", "mimeType": "image/png", "buffer": PHOTO})
    wait_for_maps(page, 2)
    with page.expect_response("**/api/classes?model=kinds*"):
        held[0].continue_()
    page.click("#target-0")
    wait_for_maps(page, 4)
    assert [head.rpartition(" % ")[2] for head in heads(page)] == ["against not red disc", "against red disc"]


class TestOneOfMany:
    def test_against_all_others_as_ever(self, opened):
        page = opened(KINDS)
        assert sum(shares(page).values()) == pytest.approx(100, abs=0.16)
        assert page.inner_text("#classes-hint").startswith("What the model sees.")
        assert [head.rpartition(" % ")[2] for head in heads(page)] == ["against all other classes"]
        assert page.locator("#maps h4").all_inner_texts() == ["LRP contrasts with nothing", "SSGLRP"]
        assert page.is_visible("#adding")
        assert page.is_hidden("#notes")


def test_another_model_asks_its_own_question(opened):
    page = opened(KINDS)
    page.click("#against-1")
    page.locator(".target small:has-text('against green disc')").wait_for()
    page.select_option("#model", FINDINGS)
    page.locator(".target small:has-text('by itself')").wait_for()
    assert pressed(page, "against") == 0
    page.select_option("#model", FINDING)
    page.locator(".target small:has-text('against not red disc')").wait_for()
    assert page.is_hidden("#adding")
    page.select_option("#model", KINDS)
    page.locator(".target small:has-text('against all other classes')").wait_for()
    assert page.locator("#classes .against").count() == 3


@pytest.mark.parametrize(("device", "options"), [("desk", DESK), ("phone", PHONE)])
@pytest.mark.parametrize("model", [FINDINGS, FINDING])
def test_no_barriers_and_no_sideways_scrolling(opened, model, device, options):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page = opened(model, **options)
    page.click("#target-0" if model == FINDING else "#target-1")
    wait_for_maps(page, 4)
    found = axe.run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    screenshot(page, f"tasks-{model.partition('.')[0]}-{device}", full_page=True)
