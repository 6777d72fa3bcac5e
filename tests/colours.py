"""Models of each task that see coloured discs: a channel for each colour, its mean, and a logit of it. Their maps lie on the discs."""

from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from clarp.models import Classifier

SIDE = 48
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220)}
SOURCE = """
import numpy as np
import torch
from torch import nn


class Seen(nn.Module):
    def __init__(self, colours, end):
        super().__init__()
        self.one = nn.Conv2d(3, 3, 3, padding=1)
        self.two = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3, len(colours))
        self.end = end
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.one.weight[..., 1, 1] = 1.8 * torch.eye(3) - 0.9
            self.two.weight[:] = torch.eye(3)[..., None, None] / 9
            for row, colour in enumerate(colours):
                if colour is not None:
                    self.head.weight[row, colour] = 110.0
                    self.head.bias[row] = -3.0

    def forward(self, images):
        seen = torch.relu(self.two(torch.relu(self.one(images))))
        return self.end(self.head(seen.mean((2, 3))))


def preprocess(image):
    pixels = np.asarray(image.resize((48, 48)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)

"""
FILES = {
    "findings": (
        SOURCE
        + "labels = ['red_disc', 'green_disc', 'blue_disc', 'anything']\n"
        + "def build():\n    return Seen([0, 1, 2, None], nn.Sigmoid()).eval()\n"
    ),
    "finding": (
        SOURCE + "labels = ['red_disc']\n" + "def build():\n    return Seen([0], nn.Flatten(0)).eval()\n"
    ),
    "kinds": (
        SOURCE
        + "labels = ['red_disc', 'green_disc', 'blue_disc']\n"
        + "def build():\n    return Seen([0, 1, 2], nn.Softmax(1)).eval()\n"
    ),
}
"""By task: multilabel, whose last class is the same whatever the picture shows; binary, of shape (B,); multiclass."""


def written(folder: Path, *names: str) -> list[str]:
    """Some of the files, and what ``--model`` calls them."""
    for name in names:
        (folder / f"{name}.py").write_text(FILES[name])
    return [f"{folder / name}.py:build" for name in names]


def discs(*colours: str) -> bytes:
    """The file of a picture: a grey ground, and a disc of each colour in a corner of its own."""
    picture = Image.new("RGB", (96, 96), (128, 128, 128))
    for colour in colours:
        corner = list(COLOURS).index(colour)
        left, top = 8 + 48 * (corner % 2), 8 + 48 * (corner // 2)
        ImageDraw.Draw(picture).ellipse((left, top, left + 32, top + 32), fill=COLOURS[colour])
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def own_answer(classifier: Classifier, data: bytes) -> Tensor:
    """What the model itself returns of a photo, without the batch axis."""
    image = classifier.preprocess(Image.open(BytesIO(data)).convert("RGB"))
    with torch.no_grad():
        found: Tensor = classifier.module(image[None])[0]
    return found


def share_in(heatmap: np.ndarray, colour: str) -> float:
    """How much of the positive relevance (H, W) lies in the corner of a colour's disc."""
    half, corner = SIDE // 2, list(COLOURS).index(colour)
    top, left = half * (corner // 2), half * (corner % 2)
    positive = heatmap.clip(min=0)
    return float(positive[top : top + half, left : left + half].sum() / positive.sum())
