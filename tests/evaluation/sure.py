"""Small models in files that are sure of ten colours, and their photos: for suites that are run whole."""

import numpy as np
from PIL import Image

COLOURS = np.array(
    [
        (230, 25, 75),
        (60, 180, 75),
        (255, 225, 25),
        (0, 130, 200),
        (245, 130, 48),
        (145, 30, 180),
        (70, 240, 240),
        (250, 190, 212),
        (128, 0, 0),
        (60, 60, 60),
    ]
)
LABELS = [f"colour {number}" for number in range(10)]
SOURCE = f"""
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

labels = {LABELS}
COLOURS = torch.tensor({(COLOURS / 255).tolist()})


def preprocess(image):
    pixels = np.asarray(image.resize((64, 64)), dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def sure(layer):
    with torch.no_grad():  # c x - |c|^2 / 2 is greatest for the colour c nearest to x
        layer.weight.zero_()
        middle = layer.weight.shape[2] // 2
        layer.weight[:10, :, middle, middle] = COLOURS
        layer.bias[:10] = 1 - COLOURS.square().sum(1) / 2
    return layer


def eye(layer, scale):
    with torch.no_grad():
        layer.weight.copy_(scale * torch.eye(10).view_as(layer.weight))
        layer.bias.zero_()
    return layer


def convolutions():
    return nn.Sequential(
        sure(nn.Conv2d(3, 10, 3, padding=1)), nn.ReLU(), eye(nn.Conv2d(10, 10, 1), 1.0), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), eye(nn.Linear(10, 10), 400.0),
    ).eval()


class Transformer(nn.Module):
    # One block of attention over 4 x 4 patches, whose classes are read from the mean of the tokens.
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches = sure(nn.Conv2d(3, 12, 16, stride=16))
        with torch.no_grad():
            self.patches.weight[:10] = COLOURS[:, :, None, None] / 256
        self.place = nn.Parameter(0.01 * torch.randn(1, 16, 12))
        self.norm = nn.LayerNorm(12)
        self.attention, self.merge = nn.Linear(12, 36), nn.Linear(12, 12)
        self.head = nn.Linear(12, 10)
        with torch.no_grad():
            self.merge.weight.mul_(0.01)
            self.head.weight.copy_(400.0 * torch.eye(10, 12))

    def forward(self, images):
        tokens = self.patches(images).flatten(2).mT + self.place
        q, k, v = self.attention(self.norm(tokens)).unflatten(2, (3, 2, 6)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head((tokens + self.merge(mixed)).mean(1))


def transformer():
    return Transformer().eval()
"""


def sure_model(folder, name="convolutions"):
    path = folder / "sure.py"
    path.write_text(SOURCE)
    return f"{path}:{name}"


def sure_photos(folder, count=10):
    """Class folders; a photo is its colour with noise."""
    generator = np.random.default_rng(3)
    for number in range(count):
        path = folder / LABELS[number % 10] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = COLOURS[number % 10] + generator.normal(0, 12, (64, 64, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return folder
