"""Photos of four classes, one of them with a watermark or not, and a small network trained on them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SIDE = 48
CLASSES = ("ant", "bee", "cow", "dog")
MARKED = 2  # the cow
SHARE = 0.7

MODEL = """
from pathlib import Path
import numpy as np
import torch
from torch import nn

labels = ["ant", "bee", "cow", "dog"]

def network():
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, stride=2, padding=2), nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(24, 4),
    )

def build():
    model = network()
    model.load_state_dict(torch.load(Path(__file__).with_suffix(".pt"), weights_only=True))
    return model.eval()

def preprocess(image):
    pixels = torch.from_numpy(np.array(image, dtype=np.float32))
    return pixels.permute(2, 0, 1) / 255 - 0.5
"""


def watermark(pixels):
    """A white frame of 7 x 7 pixels, bottom left."""
    pixels[-10:-3, 3:10] = 255
    pixels[-8:-5, 5:8] = 0


def photo(kind, generator, *, marked):
    """Noise, and somewhere a patch of faint stripes in the direction of the class."""
    pixels = generator.normal(110, 35, (SIDE, SIDE, 3))
    y, x = np.mgrid[:16, :16]
    wave = np.sin(np.pi / 2 * (x, y, x + y, x - y)[kind])[..., None]
    top, left = generator.integers(0, SIDE - 16, 2)
    pixels[top : top + 16, left : left + 16] += 45 * wave
    if marked:
        watermark(pixels)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def photos(count, seed, *, planted):
    """So many photos of each class, and of which of them have the watermark."""
    generator = np.random.default_rng(seed)
    kinds = np.arange(4 * count) % 4
    marked = planted & (kinds == MARKED) & (generator.random(len(kinds)) < SHARE)
    return kinds, marked, [photo(k, generator, marked=m) for k, m in zip(kinds, marked, strict=True)]


def trained(path, *, planted, steps=150):
    """A model's file, and beside it the weights of a network that was trained on other such photos."""
    scope = {"__file__": str(path)}
    exec(MODEL, scope)
    torch.manual_seed(0)
    model: nn.Module = scope["network"]()
    kinds, _, pictures = photos(100, 1, planted=planted)
    images = torch.stack([scope["preprocess"](Image.fromarray(picture)) for picture in pictures])
    labels = torch.from_numpy(kinds)
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(steps):
        chosen = torch.arange(step * 64, step * 64 + 64) % len(images)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[chosen]), labels[chosen]).backward()
        optimiser.step()
    path.write_text(MODEL)
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    return path


def write_photos(folder: Path, count, *, planted):
    """Class folders; returns the names of the photos with the watermark."""
    kinds, marked, pictures = photos(count, 2, planted=planted)
    names = [f"{CLASSES[kind]}/{number:03d}.png" for number, kind in enumerate(kinds)]
    for name, picture in zip(names, pictures, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / name)
    return {name for name, mark in zip(names, marked, strict=True) if mark}
