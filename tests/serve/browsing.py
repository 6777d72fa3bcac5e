"""What the tests in a browser share: screens, and how the page is read. Screenshots go to ./screenshots/."""

from pathlib import Path

SCREENSHOTS = Path(__file__).resolve().parents[2] / "screenshots"
DESK = {"viewport": {"width": 1360, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def wait_for_maps(page, count):
    page.locator(f"#status:text-is('{count} maps are ready.')").wait_for()
    assert page.locator(".layer").count() == count


def screenshot(page, name, **options):
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", timeout=90_000, **options)


def rows(page):
    return {
        row.locator(".label").inner_text(): row.locator(".probability").inner_text()
        for row in page.locator("#classes li").all()
    }
