"""A real classifier on real photos of two objects: each class's map must peak on its own object."""

import json
import sys
from importlib import util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image
from torch import Tensor

import clarp

SHARED = Path(__file__).resolve().parents[1] / "../shared"
PAIRS = SHARED / "images" / "pairs"
MODEL = SHARED / "models" / "imagenet_resnet34.py"

pytestmark = pytest.mark.skipif(
    not MODEL.is_file(), reason="the shared ResNet-34 and photos are not on this machine"
)


@pytest.fixture(scope="module")
def resnet34() -> ModuleType:
    spec = util.spec_from_file_location("imagenet_resnet34", MODEL)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network(resnet34: ModuleType) -> clarp.Explainer:
    black, white = (
        resnet34.preprocess(Image.new("RGB", (256, 256), c)).flatten(1)[:, 0] for c in ("black", "white")
    )
    return clarp.Explainer(resnet34.build(), "lrp", bounds=(black, white))


def enlarged(resnet34: ModuleType, photo: Image.Image, side: int = 288) -> tuple[Tensor, float]:
    """The whole photo, uncropped, with this shorter side: (1, 3, H, W), and the factor of enlargement."""
    factor = side / min(photo.size)
    size = (round(photo.width * factor), round(photo.height * factor))
    pixels = torch.frombuffer(bytearray(photo.resize(size, Image.BICUBIC).tobytes()), dtype=torch.uint8)
    values = pixels.view(size[1], size[0], 3).permute(2, 0, 1).float()
    return ((values - torch.tensor(resnet34.MEAN)[:, None, None]) / resnet34.SCALE)[None], factor


@pytest.mark.parametrize("name", ["dog_cat_a.jpg", "zebra_elephant_a.jpg", "zebra_elephant_b.jpg"])
def test_the_peak_lies_in_the_right_box(resnet34: ModuleType, network: clarp.Explainer, name: str) -> None:
    objects = json.loads((PAIRS / "boxes.json").read_text())[name]["objects"]
    images, factor = enlarged(resnet34, Image.open(PAIRS / name).convert("RGB"))
    with torch.no_grad():
        logits = network.network.model(images)[0]
    classes = [max(found["classes"], key=lambda c: logits[c].item()) for found in objects]
    for method in ("sglrp", "ssglrp"):
        explanation = clarp.Explainer(network.network, method, bounds=network.bounds)(
            images, target=[classes]
        )
        for heatmap, found in zip(explanation.heatmap[0], objects, strict=True):
            y, x = divmod(int(heatmap.argmax()), heatmap.shape[1])
            left, top, right, bottom = (edge * factor for edge in found["box"])
            assert top <= y < bottom, (method, found["label"], x, y)
            assert left <= x < right, (method, found["label"], x, y)
