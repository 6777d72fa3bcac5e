"""Which rules tell classes apart in a vision transformer: ``python benchmarks/transformers.py [--seed N] [--minutes M] [--half tune]``.

Nobody here has weights of a published one, so a small one is trained first: 48 px, patches of 8 px, four blocks, eight classes of
shapes of any colour on crops of photos (those of ImageNet beside the repository). 20 minutes of one core give .80 to .90 right.

Then, with grounds and shapes that it has not seen (``--half`` tune or test, drawn apart):

- places: pictures of two shapes in two quarters that are its two most probable classes; the share of a map's positive relevance
  in the right quarter (chance .25) and on the right shape, and whether the most relevant patch lies in the right quarter;
- SRG: pictures of one shape, patches covered with the mean colour least and most relevant first; the difference of the mean
  log-odds (symmetric relevance gain, Bluecher 2024).
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F

import clarp
from clarp import Method, Selection, composites, rules, seeds
from clarp.evaluation.attribution import attributors
from clarp.models._torchvision import torchvision
from clarp.network import Network

PHOTOS = Path(__file__).resolve().parents[1] / "../shared/images/imagenet"
KINDS = ("disc", "ring", "square", "triangle", "star", "cross", "bar", "moon")
SIDE, PATCH, FINE = 48, 8, 4
HALF = SIDE // 2
RIVALS = ("attnlrp", "reslrp", "legrad", "chefer", "chefer-lrp", "var", "idgi", "integrated-gradients")
Heatmaps = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, H, W) and targets (B, K) to maps (B, K, H, W)."""
Points = list[tuple[float, float]]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Pictures:
    """Drawn pictures.

    Attributes:
        images: (B, 3, H, W) in 0..1.
        labels: (B, K), the K shapes' kinds.
        masks: (B, K, H, W) bool.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor

    def __getitem__(self, chosen: Tensor) -> "Pictures":
        return Pictures(self.images[chosen], self.labels[chosen], self.masks[chosen])


class Drawer:
    """Draws shapes on crops of photos.

    Args:
        seed: of all that is drawn.
        training: whether the grounds are those of training; the others are of other photos.
    """

    def __init__(self, seed: int, *, training: bool) -> None:
        self.random = np.random.default_rng(seed)
        files = sorted(path for path in PHOTOS.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
        self.files = files[int(not training) :: 2]
        self.photos: dict[Path, Image.Image] = {}

    def pictures(self, count: int, shapes: int) -> Pictures:
        """So many pictures of one shape anywhere, or of two in two quarters."""
        found = [self._picture(shapes) for _ in range(count)]
        images = torch.from_numpy(np.stack([image for image, _, _ in found])).permute(0, 3, 1, 2)
        labels = torch.tensor([kinds for _, kinds, _ in found])
        return Pictures(images.float() / 255, labels, torch.from_numpy(np.stack([m for _, _, m in found])))

    def _picture(self, shapes: int) -> tuple[NDArray[np.uint8], list[int], NDArray[np.bool_]]:
        kinds = self.random.choice(len(KINDS), shapes, replace=False).tolist()
        places: list[Box] = [(0, 0, SIDE, SIDE)]
        if shapes > 1:
            quarters = self.random.choice(4, shapes, replace=False)
            places = [
                (q % 2 * HALF, q // 2 * HALF, q % 2 * HALF + HALF, q // 2 * HALF + HALF) for q in quarters
            ]
        picture, masks = self._ground(), []
        for kind, place in zip(kinds, places, strict=True):
            layer = self._shape(KINDS[kind], place)
            picture = Image.composite(
                Image.new("RGB", picture.size, self._colour(picture, layer)), picture, layer
            )
            masks.append(np.asarray(layer) > 127)
        return np.asarray(picture), kinds, np.stack(masks)

    def _ground(self) -> Image.Image:
        path = self.files[self.random.integers(len(self.files))]
        if path not in self.photos:
            with Image.open(path) as photo:
                scale = 120 / min(photo.size)
                size = tuple(max(120, round(side * scale)) for side in photo.size)
                self.photos[path] = photo.convert("RGB").resize((size[0], size[1]))
        photo = self.photos[path]
        x, y = (int(self.random.integers(side - 72 + 1)) for side in photo.size)
        return photo.crop((x, y, x + 72, y + 72)).resize((SIDE, SIDE)).filter(ImageFilter.GaussianBlur(0.7))

    def _colour(self, picture: Image.Image, layer: Image.Image) -> tuple[int, int, int]:
        """One that differs from the ground under the shape."""
        under = np.asarray(picture, np.float64)[np.asarray(layer) > 127].mean(0)
        colours = self.random.integers(0, 256, (20, 3))
        far = np.abs(colours - under).sum(1)
        red, green, blue = colours[int(np.argmax(far > 180)) if (far > 180).any() else int(far.argmax())]
        return int(red), int(green), int(blue)

    def _shape(self, kind: str, place: Box) -> Image.Image:
        """A mask of a shape of random size and turn inside of a box."""
        radius = min(self.random.uniform(6, 10), (place[2] - place[0]) / 2 - 1.5)
        x, y = (self.random.uniform(place[k] + radius + 0.5, place[k + 2] - radius - 0.5) for k in (0, 1))
        turn = self.random.uniform(0, 2 * math.pi)
        layer = Image.new("L", (SIDE * FINE, SIDE * FINE), 0)
        pen = ImageDraw.Draw(layer)

        def at(points: Points) -> Points:
            sin, cos = math.sin(turn), math.cos(turn)
            return [(FINE * (x + a * cos - b * sin), FINE * (y + a * sin + b * cos)) for a, b in points]

        def disc(middle: tuple[float, float], r: float, fill: int) -> None:
            a, b = at([middle])[0]
            pen.ellipse((a - FINE * r, b - FINE * r, a + FINE * r, b + FINE * r), fill=fill)

        if kind in ("disc", "ring", "moon"):
            disc((0, 0), radius, 255)
            if kind != "disc":
                disc(
                    (0, 0) if kind == "ring" else (0.55 * radius, 0),
                    (0.55 if kind == "ring" else 0.85) * radius,
                    0,
                )
        for points in _polygons(kind, radius):
            pen.polygon(at(points), fill=255)
        return layer.resize((SIDE, SIDE), Image.Resampling.BOX)


def _polygons(kind: str, r: float) -> list[Points]:
    def regular(corners: int, inner: float = 1.0) -> Points:
        sides = corners if inner == 1.0 else 2 * corners
        turned = [
            (1.12 * r * (inner if k % 2 and inner != 1.0 else 1), 2 * math.pi * k / sides)
            for k in range(sides)
        ]
        return [(length * math.cos(angle), length * math.sin(angle)) for length, angle in turned]

    def bar(width: float, height: float) -> Points:
        return [(-width, -height), (width, -height), (width, height), (-width, height)]

    return {
        "square": [regular(4)],
        "triangle": [regular(3)],
        "star": [regular(5, 0.42)],
        "cross": [bar(r, 0.33 * r), bar(0.33 * r, r)],
        "bar": [bar(1.2 * r, 0.35 * r)],
    }.get(kind, [])


class Net(nn.Module):
    """A small vision transformer, torchvision's, that normalises its images."""

    def __init__(self) -> None:
        super().__init__()
        self.vit = torchvision.models.VisionTransformer(SIDE, PATCH, 4, 4, 64, 128, num_classes=len(KINDS))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in 0..1."""
        logits: Tensor = self.vit((x - 0.45) / 0.25)
        return logits


def trained(seed: int, minutes: float) -> Net:
    """The network after so many minutes, without a look at the pictures of the measurement."""
    torch.manual_seed(seed)
    known, net = Drawer(10 + seed, training=True).pictures(16_000, 1), Net()
    optimiser = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
    begin, step, gone = time.monotonic(), 0, 0.0
    while gone < 1:
        for group in optimiser.param_groups:
            group["lr"] = 1.5e-3 * min(1, step / 200) * max(0.02, 1 - gone)
        batch = torch.randint(len(known.labels), (64,))
        images = known.images[batch].roll(torch.randint(-4, 5, (2,)).tolist(), (2, 3))
        images = images.rot90(int(torch.randint(4, ())), (2, 3))
        loss = F.cross_entropy(net(images), known.labels[batch, 0], label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step, gone = step + 1, (time.monotonic() - begin) / (60 * minutes)
    return net.eval()


def variants() -> dict[str, str | Method]:
    """What is compared: for two seeds the presets, then the default with one rule changed at a time."""
    found: dict[str, str | Method] = {}
    for name, seed, own in (
        ("sglrp", seeds.SoftmaxGradient(), composites.get("zplus-gamma")),
        ("clarp", seeds.Contrast(), composites.get("epsilon-plus-gamma")),
    ):
        sizes = replace(own, residual=rules.Ratio())
        selected = replace(sizes, tokens=rules.ZPlus())
        found |= {
            f"{name}, zplus-box": Method(seed, composite="zplus-box"),
            f"{name}, epsilon-plus-box": Method(seed, composite="epsilon-plus-box"),
            f"{name}, epsilon-plus": Method(seed, composite="epsilon-plus"),
            f"{name}, attnlrp": Method(seed, composite="attnlrp"),
            f"{name}, {own.name}": Method(seed, composite=own),
            "... epsilon at tokens": Method(seed, composite=replace(own, tokens=rules.Epsilon())),
            "... gamma 0.25 at tokens": Method(seed, composite=replace(own, tokens=rules.Gamma())),
            "... gamma 1 at tokens": Method(seed, composite=replace(own, tokens=rules.Gamma(1.0))),
            "... the softmax linearised": Method(seed, composite=replace(own, softmax=rules.Taylor())),
            "... z^B at the pixels": Method(seed, composite=replace(own, first=rules.ZBox())),
            "... sums by size": Method(seed, composite=sizes),
            "... sums by size, z+ at tokens": Method(seed, composite=selected),
            "... the same, selected": Method(seed, Selection("neuron", "all"), selected),
        }
        found = {(f"{name}, {key}" if key.startswith("...") else key): value for key, value in found.items()}
    return found | {f"{name} (its default)": name for name in ("lrp", "sglrp", "ssglrp", "clarp", "secant")}


def quarters(masks: Tensor) -> Tensor:
    """The quarter of each mask (..., H, W), as a mask."""
    share = F.avg_pool2d(masks.flatten(0, -3)[:, None].float(), HALF).flatten(1)
    cells = F.one_hot(share.argmax(1), 4).view(-1, 1, 2, 2).float()
    return F.interpolate(cells, scale_factor=HALF).view(masks.shape) > 0


def makers(net: Net, image: Tensor) -> Iterator[tuple[str, Heatmaps]]:
    """By name what makes the maps of clarp's variants, and of others' methods."""
    network = Network(net)
    for name, method in variants().items():
        explainer = clarp.Explainer(network, method, bounds=(0.0, 1.0))
        yield name, lambda x, t, own=explainer: own(x, target=t, batch_size=50).heatmap.float()
    for name in RIVALS:
        (rival, *_) = attributors([name], network, image=image)
        yield name, lambda x, t, own=rival: torch.stack([own(x, column, [""] * len(x)) for column in t.T], 1)


def places(heatmaps: Heatmaps, pictures: Pictures) -> list[float]:
    """Positive relevance in the right quarter and on the right shape, and hits."""
    maps = heatmaps(pictures.images, pictures.labels).float()
    positive, right = maps.clamp(min=0), quarters(pictures.masks)
    whole = positive.sum((-1, -2)).clamp(min=1e-30)
    best = F.avg_pool2d(maps, PATCH).flatten(2).argmax(2, keepdim=True)
    hit = F.avg_pool2d(right.float(), PATCH).flatten(2).gather(2, best)
    inside = [((positive * mask).sum((-1, -2)) / whole).mean().item() for mask in (right, pictures.masks)]
    return [*inside, hit.mean().item()]


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.scatter(1, labels, -torch.inf).logsumexp(1)
    return logits.gather(1, labels)[:, 0] - others


@torch.no_grad()
def relevance_gain(net: Net, maps: Tensor, pictures: Pictures) -> float:
    """Mean log-odds with the least relevant patches covered first, less that with the most relevant first."""
    strength = F.avg_pool2d(maps[:, None], PATCH).flatten(1)
    mean = pictures.images.mean((2, 3), keepdim=True)
    total = 0.0
    for sign in (-1, 1):
        order = (sign * strength).argsort(1, descending=True)
        for covered in range(0, order.shape[1], 3):
            chosen = torch.zeros_like(strength).scatter(1, order[:, :covered], 1)
            cells = chosen.view(-1, 1, SIDE // PATCH, SIDE // PATCH)
            images = torch.where(F.interpolate(cells, scale_factor=PATCH) > 0, mean, pictures.images)
            total -= sign * log_odds(net(images), pictures.labels).mean().item()
    return total / (order.shape[1] / 3)


def main() -> None:
    """Train, measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--half", choices=("tune", "test"), default="tune")
    parser.add_argument("--weights", type=Path, help="kept there, and read if they are there")
    given = parser.parse_args()
    net = Net().eval()
    if given.weights and given.weights.exists():
        net.load_state_dict(torch.load(given.weights, weights_only=True))
    else:
        net = trained(given.seed, given.minutes)
        if given.weights:
            torch.save(net.state_dict(), given.weights)
    drawer = Drawer(5000 if given.half == "tune" else 6000, training=False)
    one, two = drawer.pictures(150, 1), drawer.pictures(700, 2)
    with torch.no_grad():
        right = net(one.images).argmax(1) == one.labels[:, 0]
        both = (net(two.images).topk(2, 1).indices.sort(1).values == two.labels.sort(1).values).all(1)
    one, two = one[right], two[both]
    print(
        f"{right.float().mean():.2f} right; {len(one.labels)} pictures of one shape, {len(two.labels)} of two\n"
    )
    print("| | in the quarter | on the shape | hits | SRG |\n|---|---|---|---|---|")
    for name, heatmaps in makers(net, one.images[0]):
        cells = [f"{value:.3f}" for value in places(heatmaps, two)]
        maps = heatmaps(one.images, one.labels)[:, 0].float()
        print(f"| {name} | {' | '.join(cells)} | {relevance_gain(net, maps, one):.2f} |", flush=True)


if __name__ == "__main__":
    main()
