"""A real pipeline of transformers, and the same photos explained."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import clarp
from clarp.framing import Framing
from clarp.interop.pipeline import ExplanationPipeline
from clarp.models.hugging_face import of_parts
from clarp.render import Look, Scale, picture

pytest.importorskip("clarp.models._torchvision")  # before transformers, which imports torchvision
transformers = pytest.importorskip("transformers")

DEMO = Path(str(files("clarp") / "assets" / "cat_and_coffee.jpg"))
NAMES = ["cat", "cup", "spoon", "table, round", "window"]


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(2)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], id2label=dict(enumerate(NAMES))
    )
    return transformers.pipeline(
        "image-classification",
        model=transformers.ResNetForImageClassification(config).eval(),
        image_processor=transformers.ViTImageProcessor(size={"height": 64, "width": 64}),
        device="cpu",
    )


@pytest.fixture(scope="module")
def explain(pipe) -> ExplanationPipeline:
    return ExplanationPipeline(pipe, method="sglrp")


def test_labels_and_scores_are_the_pipelines(pipe, explain) -> None:
    photos = [Image.open(DEMO), Image.effect_noise((90, 70), 80).convert("RGB")]
    for own, found in zip(pipe(photos, top_k=3), explain(photos, top_k=3), strict=True):
        assert [one["label"] for one in found] == [one["label"] for one in own]
        assert [one["score"] for one in found] == pytest.approx([one["score"] for one in own], rel=1e-4)


@pytest.mark.parametrize("photo", [str(DEMO), DEMO, Image.open(DEMO)], ids=["str", "path", "PIL"])
def test_a_single_photo_gives_one_list(explain, photo) -> None:
    found = explain(photo)
    assert len(found) == 5
    assert all(one["heatmap"].mode == "RGB" for one in found)


def test_candidates_and_rivals(pipe, explain) -> None:
    photo = Image.open(DEMO).convert("RGB")
    found = explain(photo, candidate_labels=["window", "table, round"], against="cup")
    assert {one["label"] for one in found} == {"window", "table, round"}
    assert found[0]["score"] > found[1]["score"]
    pixels = pipe.image_processor(images=photo, return_tensors="pt")["pixel_values"]
    classes = [NAMES.index(one["label"]) for one in found]
    e = clarp.Explainer(pipe.model, "sglrp", output="logits", bounds=(-1.0, 1.0))(pixels, [classes], 1)
    maps = e.heatmap[0].double().numpy()
    scale = Scale(np.percentile(np.abs(maps), 99.5), "", "")
    seen = Framing(of_parts(pipe.model, pipe.image_processor, "tiny")).seen(photo, pixels[0])
    for heatmap, one in zip(maps, found, strict=True):
        drawn = picture(heatmap, seen, "", Look(caption=False), scale=scale)
        np.testing.assert_allclose(np.asarray(one["heatmap"]), np.asarray(drawn), atol=1)


def test_a_turned_photo_is_upright(explain, tmp_path) -> None:
    photo = Image.open(DEMO).convert("RGB").resize((60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.png", exif=exif)
    turned = Image.open(tmp_path / "turned.png")
    expected = explain(ImageOps.exif_transpose(turned).convert("RGB"))
    for given in (turned, tmp_path / "turned.png"):
        assert [one["score"] for one in explain(given)] == [one["score"] for one in expected]


def test_another_object_is_refused() -> None:
    with pytest.raises(TypeError, match="classifier is a list, expected a pipeline of transformers"):
        ExplanationPipeline([])


def test_an_unknown_class_is_refused(explain) -> None:
    with pytest.raises(ValueError, match="cupp"):
        explain(DEMO, candidate_labels=["cupp"])
