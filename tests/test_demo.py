"""What `make demo` shows: the embedded model on the embedded photo, each object against the other."""

from pathlib import Path

import pytest
import torch

import clarp
from clarp.images import open_photo
from clarp.models import load

PHOTO = Path(clarp.__file__).parent / "assets" / "cat_and_coffee.jpg"


@pytest.fixture(scope="module")
def heatmaps() -> torch.Tensor:
    """The maps of the cat and of the coffee, (2, H, W); the cat is the upper half of the photo."""
    classifier = load("efficientnet-lite0")
    explainer = clarp.Explainer(classifier.module, "ssglrp", bounds=classifier.bounds)
    classes = [classifier.class_index("Egyptian cat"), classifier.class_index("espresso")]
    return explainer(
        classifier.preprocess(open_photo(PHOTO))[None], target=[classes], against=classes
    ).heatmap[0]


def test_each_map_lies_mostly_on_its_own_object(heatmaps: torch.Tensor) -> None:
    positive = heatmaps.clamp(min=0)
    upper = positive[:, : positive.shape[1] // 2].sum((1, 2)) / positive.sum((1, 2))
    assert upper[0] > 0.9
    assert upper[1] < 0.1


def test_the_maps_are_visibly_different(heatmaps: torch.Tensor) -> None:
    assert torch.corrcoef(heatmaps.flatten(1))[0, 1] < 0
