"""Clicks become maps: in Python by the trait that a click sets, and in a browser by the buttons."""

import base64
import io
import json
from importlib.resources import files

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clarp
from clarp.framing import Framing
from clarp.models import Classifier
from clarp.render import Look, picture

pytest.importorskip("anywidget")

from clarp.interop.widget import ClassWidget


def preprocess(photo):
    return torch.tensor(np.asarray(photo.resize((16, 16)), dtype=np.float32) / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 3)).eval()
    return Classifier("tiny", model, ("ant", "bee & <b>", "cat"), preprocess)


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.effect_noise((40, 30), 80).convert("RGB")


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB"))


@pytest.fixture
def widget(classifier, photo) -> ClassWidget:
    return ClassWidget(classifier, photo, "sglrp")


def test_it_begins_with_the_photo_and_its_classes(widget, classifier, photo) -> None:
    with torch.no_grad():
        shares = classifier.module(preprocess(photo)[None]).softmax(1)[0]
    assert [one["index"] for one in widget.classes] == shares.argsort(descending=True).tolist()
    assert [one["probability"] for one in widget.classes] == pytest.approx(sorted(shares.tolist())[::-1])
    np.testing.assert_array_equal(pixels(widget.picture), np.asarray(photo))


def test_clicks(widget, classifier, photo) -> None:
    plain, explainer = widget.picture, clarp.Explainer(classifier.module, "sglrp", bounds=(0.0, 1.0))
    image = preprocess(photo)
    seen = Framing(classifier).seen(photo, image)
    for chosen, against in (([2], None), ([2, 0], 0), ([0, 2], 2)):
        widget.chosen = chosen
        heatmap = explainer(image[None], chosen[0], against).heatmap[0].double().numpy()
        expected = picture(heatmap, seen, "", Look(caption=False))
        np.testing.assert_array_equal(pixels(widget.picture), np.asarray(expected))
    assert widget.caption.startswith("ant (")
    assert "against cat" in widget.caption
    widget.chosen = []
    assert widget.picture == plain


def test_at_most_two(widget) -> None:
    with pytest.raises(Exception, match="chosen"):
        widget.chosen = [0, 1, 2]


PAGE = """<!doctype html><div id=here></div><script type=module>
const source = %s, state = %s, heard = {};
const url = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
const {default: widget} = await import(url);
window.state = state;
const model = {
  get: (name) => state[name],
  set: (name, value) => { state[name] = value; for (const one of heard[name] ?? []) one(); },
  on: (what, one) => { (heard[what.slice(7)] ??= []).push(one); },
  save_changes: () => { window.saved = state.chosen; },
};
widget.render({model, el: document.getElementById("here")});
window.ready = true;
</script>"""


@pytest.mark.browser
def test_buttons_in_a_browser(widget, chromium) -> None:
    source = (files("clarp.interop") / "widget.js").read_text()
    state = {name: getattr(widget, name) for name in ("classes", "chosen", "picture", "caption")}
    page = chromium.new_page()
    escaped = [json.dumps(one).replace("</", "<\\/") for one in (source, state)]
    page.set_content(PAGE % tuple(escaped))
    page.wait_for_function("window.ready")
    by_label = {one["label"]: one["index"] for one in widget.classes}
    bee = page.get_by_role("button", name="bee & <b>")
    ant = page.get_by_role("button", name="ant")
    cat = page.get_by_role("button", name="cat")
    for button, expected in (
        (bee, ["bee & <b>"]),
        (ant, ["bee & <b>", "ant"]),
        (cat, ["bee & <b>", "cat"]),
        (bee, ["cat"]),
        (cat, []),
    ):
        button.click()
        assert page.evaluate("window.saved") == [by_label[label] for label in expected]
        pressed = page.locator("button[aria-pressed=true]").count()
        assert pressed == len(expected)
    page.close()
