"""Models of one channel in files, without a preprocess: from a picture of 16 bits to the map."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import clarp
from clarp import models
from clarp.images import open_photo
from clarp.serve.engine import Engine, Question
from clarp.serve.limits import Limits
from clarp.workers.fingerprint import of_classifier

SOURCE = """
import torch
from torch import nn

class Repeats(nn.Module):  # greys become colours inside
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    def forward(self, x):
        return self.net(x.repeat(1, 3, 1, 1))

class Weighs(Repeats):  # colours become greys inside
    def __init__(self):
        super().__init__()
        self.net[0] = nn.Conv2d(1, 4, 3)
    def forward(self, x):
        assert x.shape[1] == 3
        return self.net(x.mean(1, keepdim=True))

def net(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()

def grey(): return net(1)
def colour(): return net(3)
def five(): return net(5)
def two(): return net(2)
def repeats(): return Repeats().eval()
def weighs(): return Weighs().eval()
def patches(): return nn.Sequential(nn.Unfold(16, stride=16), nn.Flatten(), nn.Linear(256 * 196, 2)).eval()
def small(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 26 * 26, 10)).eval()
"""
NOTE = (
    "preprocessing: one for greys, because the model takes 1 channel, was assumed "
    "(shorter side to 256, middle 224 x 224, 0 for black to 1 for white, no mean or deviation)"
)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("function", "channels"),
    [("grey", 1), ("colour", 3), ("repeats", 1), ("weighs", 3), ("patches", 1)],
)
def test_the_model_tells_its_channels(file, function, channels):
    loaded = models.load(f"{file}:{function}")
    assert loaded.preprocess(Image.new("RGB", (300, 400))).shape == (channels, 224, 224)
    assert loaded.notes[0].startswith(NOTE) == (channels == 1)


@pytest.mark.parametrize(("function", "channels"), [("five", 5), ("two", 2)])
def test_other_numbers_of_channels_need_a_preprocess(file, function, channels):
    with pytest.raises(
        ValueError, match=rf"takes images of {channels} channels.*write preprocess\(photo\).*mine\.py"
    ):
        models.load(f"{file}:{function}")
    file.write_text(SOURCE + f"\ndef preprocess(photo):\n    return torch.zeros({channels}, 32, 32)\n")
    assert models.load(f"{file}:{function}").notes[0].startswith("labels: ")


def test_a_model_of_another_size_needs_one_too(file):
    with pytest.raises(
        ValueError,
        match=r"failed on an image \(1, 224, 224\) with RuntimeError.*another size, write preprocess",
    ):
        models.load(f"{file}:small")


def test_the_greys_of_the_file_reach_the_model(file, tmp_path):
    values = (
        np.arange(4096, dtype=np.uint16).reshape(64, 64).repeat(4, 0).repeat(4, 1)
    )  # shorter side 256: not resized
    Image.fromarray(values).save(tmp_path / "a.png")
    image = models.load(f"{file}:grey").preprocess(open_photo(tmp_path / "a.png"))
    np.testing.assert_allclose(image[0].numpy(), values[16:-16, 16:-16] / 4095, atol=1e-6)
    assert len(image.unique()) > 2000


def test_the_middle_of_a_resized_photo(file):
    photo = Image.effect_noise((512, 768), 60).convert("RGB")
    image = models.load(f"{file}:grey").preprocess(photo)
    expected = (
        np.asarray(photo.convert("L").resize((256, 384), Image.Resampling.BILINEAR), dtype=float)[
            80:304, 16:240
        ]
        / 255
    )
    np.testing.assert_allclose(image[0].numpy(), expected, atol=1.01 / 255)  # Pillow rounds after each axis


def test_back_to_pixels_and_bounds(file, tmp_path):
    loaded = models.load(f"{file}:grey")
    photo = Image.effect_noise((256, 256), 60).convert("RGB")
    seen = loaded.photo(loaded.preprocess(photo))
    assert (seen == np.asarray(photo)[16:-16, 16:-16]).all()
    assert [bound.tolist() for bound in loaded.bounds] == [[0.0], [1.0]]
    assert of_classifier(loaded) == of_classifier(models.load(f"{file}:grey"))


def test_it_is_explained_and_served(file, tmp_path):
    loaded = models.load(f"{file}:grey")
    values = np.random.default_rng(0).integers(0, 4000, (300, 280)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = loaded.preprocess(open_photo(tmp_path / "a.png"))[None]
    explanation = clarp.Explainer(loaded.module, bounds=loaded.bounds)(image, target=[0])
    assert explanation.relevance.shape == (1, 1, 224, 224)
    engine = Engine("mine", "mine.py:grey", loaded, Limits())
    data = (tmp_path / "a.png").read_bytes()
    answer = engine.explain(data, Question(("0",), (), ("ssglrp",)), lambda: False)
    assert "12 bits were taken for used" in answer.photo.notes[0]
    assert answer.maps[0].ledger["pixels"] == pytest.approx(explanation.ledger.pixels.item(), rel=1e-4)


class Small(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(channels, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().mean((2, 3)))


class TestPrograms:
    def exported(self, path, channels):
        program = torch.export.export(Small(channels).eval(), (torch.rand(2, channels, 40, 64),))
        torch.export.save(program, path)
        return str(path)

    def test_one_channel(self, tmp_path):
        loaded = models.load(self.exported(tmp_path / "m.pt2", 1))
        assert loaded.preprocess(Image.new("RGB", (300, 400))).shape == (1, 40, 64)
        assert "1 channel, was assumed (shorter side to 73, middle 40 x 64, 0 for black" in loaded.notes[0]

    def test_four_channels(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"takes images of 4 channels.*clarp\.Explainer\(torch\.export\.load"
        ):
            models.load(self.exported(tmp_path / "m.pt2", 4))
