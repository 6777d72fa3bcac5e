"""What the page of examples/browser computes in Chromium, against the library, from the same photos and numbers."""

import base64

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.exporting.file import ExplainedFile
from clarp.framing import Framing
from clarp.images import open_photo
from clarp.models.imagenet import MEAN, STD, Evaluation
from clarp.render import Look
from clarp.render.styles import View
from examples.reading import (
    KEPT,
    SAMPLE,
    explained_by_library,
    explained_in_page,
    explainer,
    file,
    floats,
    prepare,
    tensor_by_library,
    tensor_in_page,
    turned,
)

pytestmark = pytest.mark.browser

CAT, ESPRESSO, CUP = 285, 967, 968


@pytest.fixture(scope="module")
def ssglrp(lite):
    return explainer(lite, "ssglrp")


@pytest.fixture(scope="module")
def program(folder):
    """The same file in ONNX Runtime outside the browser, which the library's own Explainer has no ``lost`` for."""
    return ExplainedFile.open(folder / "model.onnx")


@pytest.fixture(scope="module")
def tab(site, chromium):
    """The page, whose own modules are asked."""
    context = chromium.new_context()
    tab = context.new_page()
    tab.set_default_timeout(120_000)
    tab.goto(site.url)
    tab.locator(KEPT).wait_for()
    yield prepare(tab)
    context.close()


def transparent():
    image = open_photo(SAMPLE).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return file(image, "PNG")


PHOTOS = {
    "sample": SAMPLE.read_bytes,
    "large": lambda: file(open_photo(SAMPLE).resize((2101, 1403), Image.Resampling.BICUBIC), "PNG"),
    "small": lambda: file(open_photo(SAMPLE).resize((90, 131)), "PNG"),
    "narrow": lambda: file(open_photo(SAMPLE).resize((1201, 40)), "PNG"),
    "grey": lambda: file(open_photo(SAMPLE).convert("L").resize((401, 301)), "PNG"),
    "turned": turned,
}


@pytest.mark.parametrize("name", PHOTOS)
def test_the_model_gets_the_same_to_the_bit(tab, lite, name):
    data = PHOTOS[name]()
    assert (tensor_in_page(tab, data) == tensor_by_library(lite.preprocess, data)).all()


@pytest.mark.parametrize(
    "preprocess",
    [Evaluation(200, (224, 231), MEAN, STD, "bilinear"), Evaluation(91, (64, 48), MEAN, STD, "bicubic")],
    ids=["larger than the photo", "small"],
)
def test_so_it_is_with_another_preprocessing(tab, preprocess):
    data = PHOTOS["grey"]()
    assert (tensor_in_page(tab, data, preprocess) == tensor_by_library(preprocess, data)).all()


def test_what_is_transparent_lies_on_white(tab, lite):
    """Browsers round once more: by at most one of 255 levels."""
    data = transparent()
    apart = np.abs(tensor_in_page(tab, data) - tensor_by_library(lite.preprocess, data))
    assert apart.max() * lite.preprocess.std[0] * 255 <= 1.01
    assert apart.mean() * lite.preprocess.std[0] * 255 <= 0.1


@pytest.mark.parametrize(
    "question",
    [("sample", CAT, None), ("large", CAT, [ESPRESSO]), ("turned", ESPRESSO, [CAT, CUP])],
    ids=lambda question: question[0],
)
def test_the_same_map_of_the_same_numbers(tab, lite, ssglrp, program, question):
    name, target, rivals = question
    tensor = tensor_by_library(lite.preprocess, PHOTOS[name]())
    found = explained_in_page(tab, tensor, target, rivals)
    expected = explained_by_library(ssglrp, tensor, target, rivals)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-4, rtol=0)
    apart = np.abs(found.heatmap - expected.heatmap) / np.abs(expected.heatmap).max()
    assert apart.max() <= 0.03  # where rounding selects otherwise
    assert np.quantile(apart, 0.99) <= 1e-3
    among = torch.ones(1, 1000, dtype=torch.bool)
    if rivals is not None:
        among = torch.zeros_like(among).index_fill(1, torch.tensor(rivals), value=True)
    lost = program(torch.from_numpy(tensor)[None], torch.tensor([target]), among)[2].item()
    assert 0 < lost < 1
    assert found.lost == pytest.approx(lost, abs=1e-3)


def test_a_class_that_is_unknown_is_explained_by_nothing(tab, lite):
    """So the page learns what the model sees."""
    found = explained_in_page(tab, tensor_by_library(lite.preprocess, SAMPLE.read_bytes()), -1)
    assert found.logits.argmax() == CAT
    assert np.isnan(found.heatmap).all()


@pytest.mark.parametrize("size", [(448, 448), (612, 460), (300, 448)])
def test_the_same_picture_of_the_same_map(tab, lite, size):
    """The colours and stripes of the overlay, the greys of the photo, the frame."""
    photo = open_photo(SAMPLE).resize(size)
    data = file(photo, "PNG")
    heatmap = np.random.default_rng(0).normal(size=(28, 28)).repeat(8, 0).repeat(8, 1).astype(np.float32)
    text = tab.evaluate(
        """async ([data, values]) => {
          const { decoded, windowOf } = await own("photo.js");
          const { drawable, drawMap } = await own("picture.js");
          const [about, { colours }] = await Promise.all([json("about.json"), json("page.json")]);
          const bitmap = await decoded(new File([bytes(data)], "photo.png"));
          const map = drawable(new Float32Array(bytes(values).buffer), 224, 224);
          const canvas = document.createElement("canvas");
          drawMap(canvas, bitmap, windowOf(bitmap, about.preprocessing), map, colours);
          const { width, height } = canvas;
          return text(Float32Array.from(canvas.getContext("2d").getImageData(0, 0, width, height).data));
        }""",
        [base64.b64encode(data).decode(), base64.b64encode(heatmap.tobytes()).decode()],
    )
    found = floats(text).reshape(size[1], size[0], 4)[..., :3] / 255
    seen = Framing(lite).seen(photo, lite.preprocess(photo))
    expected = View.of(heatmap, seen, Look()).panels[0].pixels
    apart = np.abs(found - expected).max(-1)
    assert np.quantile(apart, 0.99) <= 2 / 255
    assert np.ptp(found) > 0.5
