"""Twenty photos by the page of examples/browser in Chromium, against the library: minutes.

``pytest -m slow -s tests/examples`` prints the table that examples/browser/README.md has.
"""

import numpy as np
import pytest

from examples.reading import (
    explained_by_library,
    explained_in_page,
    explainer,
    prepare,
    tensor_by_library,
    tensor_in_page,
)

pytestmark = pytest.mark.slow

COUNT = 20
LRP = 1e-4  # of the peak
SELECTED = 0.03  # of the peak, where rounding selects otherwise


@pytest.fixture(scope="module")
def photos(shared):
    found = sorted((shared / "images/imagenet").glob("*.jpg"))
    return [path.read_bytes() for path in found[:: len(found) // COUNT][:COUNT]]


@pytest.fixture(scope="module", params=["lrp", "ssglrp"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def site(method, builder, folder, serve, tmp_path_factory):
    if method != "ssglrp":
        folder = tmp_path_factory.mktemp(method)
        builder.main(["--out", str(folder), "--method", method])
    return serve(folder)


@pytest.fixture(scope="module")
def page(site, chromium):
    tab = chromium.new_context().new_page()
    tab.set_default_timeout(300_000)
    tab.goto(site.url)
    tab.locator("#kept:not(:empty)").wait_for()
    yield prepare(tab)
    tab.context.close()


def test_twenty_photos(page, lite, method, photos):
    single, double = explainer(lite, method), explainer(lite, method, "float64")
    rows = []
    for data in photos:
        tensor = tensor_by_library(lite.preprocess, data)
        assert (tensor_in_page(page, data) == tensor).all()
        target = int(explained_by_library(single, tensor, None).logits.argmax())
        found = explained_in_page(page, tensor, target)
        one, other = (explained_by_library(explained, tensor, target) for explained in (single, double))
        peak = np.abs(one.heatmap).max()
        rows.append(
            [
                np.abs(found.logits - one.logits).max(),
                np.abs(found.heatmap - one.heatmap).max() / peak,
                np.abs(one.heatmap - other.heatmap).max() / peak,
                np.linalg.norm(found.heatmap - one.heatmap) / np.linalg.norm(one.heatmap),
            ]
        )
    logits, maps, own, whole = np.array(rows).T
    for name, column in (("logits", logits), ("map", maps), ("float64", own), ("whole map", whole)):
        print(f"{method} {name}: median {np.median(column):.1e}, largest {column.max():.1e}")  # noqa: T201
    assert logits.max() <= 1e-4
    assert maps.max() <= (LRP if method == "lrp" else SELECTED)
    assert np.median(maps) <= (LRP if method == "lrp" else 1e-3)
    assert whole.max() <= 0.01


def test_rivals_are_offered_where_the_method_has_them(page, method):
    page.click("#sample")
    page.locator("#status:has-text('The map is ready after')").wait_for()
    has = method != "lrp"
    assert page.inner_text("#title").startswith(f"Egyptian cat {'against all others ' if has else ''}31.9")
    assert page.is_visible("#against") == has
    assert page.locator("[data-role=against]").count() == 5 * has
    page.fill("#target", "espresso")
    page.press("#target", "Enter")
    page.locator("#map[aria-label^='Map of espresso']").wait_for()
