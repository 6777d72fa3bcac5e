"""Which form of SSGLRP is best, and what beats it: ``python benchmarks/study.py MODEL HALF --out DIR [--only NAME,...]``.

MODEL is ``resnet34`` or ``efficientnet-lite0``, HALF is ``tune`` (photos of classes whose index is divisible by 4, on which
everything was chosen) or ``test`` (the others, looked at once). Photos, cut-outs and the ResNet lie beside the repository.

Four questions, the first with one class per picture and the others with several:

- photos: what does covering the best k x k window cost the target (maximal patch masking)?
- mosaics: which share of the positive relevance lies in the right cell of 2 x 2 photos, and does the peak?
- composites: the same for two cut-outs on grey, with exact masks; the pointing game with 15 px of tolerance.
- pairs: the same for six objects with boxes by hand, whole photos of 288 px (too few to have halves).

Two more that ask the same with less noise, when asked for with ``--questions``; nothing is chosen by them:

- crops: the mean over five crops of each photo (corners and centre; a row is still a photo).
- draws: 320 composites of the same cut-outs, none of which is among the 32.

And one that asks as SGLRP's code does: pixels, where the patch's middle is the map's greatest pixel.

Every variant's rows go to ``DIR/MODEL-HALF-QUESTION-VARIANT.npz``; what is there is not computed again.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import bootstrap
from torch import Tensor
from torch.nn import functional as F
from variants import VARIANTS

from clarp import Explainer
from clarp.data import boxed_photos, composites, image_table, mosaics
from clarp.data.dataset import Dataset
from clarp.data.sample import Sample
from clarp.evaluation import EnergyPointing, PatchMasking, PointingGame
from clarp.evaluation.attribution import attributors
from clarp.evaluation.inputs import Loader
from clarp.models import Classifier, load
from clarp.models._torchvision import torchvision
from clarp.network import Network

SHARED = Path(__file__).resolve().parents[1] / "../shared"
MODELS = {
    "resnet34": f"{SHARED}/models/imagenet_resnet34.py:build",
    "efficientnet-lite0": "efficientnet-lite0",
}
GRADCAM = {"resnet34": "gradcam@layer4", "efficientnet-lite0": "gradcam"}
SIZES = (9, 25)
TOLERANCE = 15
SMOOTHING = 0.02
QUESTIONS = ("photos", "mosaics", "composites", "pairs")
BATCH = 8

Rows = dict[str, NDArray[np.float64]]
Heatmaps = Callable[[Tensor, Tensor], Tensor]
"""Images (B, C, H, W) and targets (B, K) to maps (B, K, H, W)."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture of several objects.

    Attributes:
        image: (C, H, W).
        targets: (K,).
        masks: (K, H, W) bool, where each target is.
    """

    image: Tensor
    targets: Tensor
    masks: Tensor


@dataclass(frozen=True, eq=False)
class Photos:
    """Pictures of one object each.

    Attributes:
        images: (B, C, H, W).
        labels: (B,).
    """

    images: Tensor
    labels: Tensor


class Material:
    """What one model is asked in one half, made when first asked."""

    def __init__(self, classifier: Classifier, half: str) -> None:
        assert isinstance(classifier.module, torch.nn.Module)
        self.model = classifier.module
        self.classifier = classifier
        self.half = half

    def _inside(self, sample: Sample) -> bool:
        return (sample.labels[0][0] % 4 == 0) == (self.half == "tune")

    @cached_property
    def _dataset(self) -> Dataset:
        return image_table(SHARED / "images" / "imagenet", classes=self.classifier.labels).select(
            self._inside
        )

    @cached_property
    def _all(self) -> Photos:
        loader = Loader(self.classifier, as_is=False, located=False, placed=False)
        images = torch.stack([loader.tensor(sample) for sample in self._dataset])
        return Photos(images, torch.tensor([sample.labels[0][0] for sample in self._dataset]))

    @cached_property
    def photos(self) -> Photos:
        """All of the test half, every second one of the tune half."""
        every = 2 if self.half == "tune" else 1
        return Photos(self._all.images[::every], self._all.labels[::every])

    @cached_property
    def crops(self) -> list[Photos]:
        """Corners and centre of the same photos, their shorter side 256 px."""
        size = self.photos.images.shape[-1]
        whole = [_pixels(self.classifier, sample.image(), 256) for sample in self._dataset]
        crops = zip(
            *(torchvision.transforms.functional.five_crop(image, [size, size]) for image in whole),
            strict=True,
        )
        return [Photos(torch.stack(images), self._all.labels) for images in crops]

    @cached_property
    def mosaics(self) -> list[Scene]:
        """Of photos that the model gives its label at least .9."""
        found = _probabilities(self.model, self._all.images, self._all.labels)
        sure = {sample.id for sample, p in zip(self._dataset, found, strict=True) if p >= 0.9}
        return list(_scenes(self.classifier, mosaics(self._dataset.select(lambda s: s.id in sure), count=8)))

    @cached_property
    def _cutouts(self) -> Dataset:
        folder = SHARED / "images" / "cutouts"
        return image_table(folder, classes=self.classifier.labels, class_column="classes").select(
            self._inside
        )

    @cached_property
    def composites(self) -> list[Scene]:
        """Of the half's cut-outs."""
        return list(_scenes(self.classifier, composites(self._cutouts, 32)))

    @cached_property
    def draws(self) -> list[Scene]:
        """Of the half's cut-outs, by another seed."""
        return list(_scenes(self.classifier, composites(self._cutouts, 320, seed=1)))

    @cached_property
    def pairs(self) -> list[Scene]:
        """The same in both halves."""
        return list(_pairs(self.classifier))


def _probabilities(model: torch.nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        shares = torch.cat([model(batch).softmax(1) for batch in images.split(BATCH)])
    return shares.gather(1, labels[:, None])[:, 0]


def _best(model: torch.nn.Module, image: Tensor, labels: list[tuple[int, ...]]) -> Tensor:
    """Of the classes that name each object equally well, the one that the model finds most probable."""
    with torch.no_grad():
        logits = model(image[None])[0]
    return torch.tensor([max(label, key=lambda index: float(logits[index])) for label in labels])


def _scenes(classifier: Classifier, dataset: Dataset) -> Iterator[Scene]:
    loader = Loader(classifier, as_is=True, located=False, placed=False)
    assert isinstance(classifier.module, torch.nn.Module)
    for sample in dataset:
        image = loader.tensor(sample)
        targets = _best(classifier.module, image, [thing.label for thing in sample.objects])
        yield Scene(image, targets, torch.stack([thing.mask(sample.size) for thing in sample.objects]))


def _pixels(classifier: Classifier, photo: Image.Image, side: int) -> Tensor:
    """(C, H, W): the whole photo, ``side`` px at its shorter side, in the model's scale."""
    scale = classifier.pixel_scale
    assert scale is not None
    factor = side / min(photo.size)
    photo = photo.resize(
        (round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC
    )
    pixels = torch.from_numpy(np.array(photo, dtype=np.float64) / 255)
    return (torch.einsum("kc,hwc->khw", scale.colours, pixels) + scale.black[:, None, None]).float()


def _pairs(classifier: Classifier) -> Iterator[Scene]:
    assert isinstance(classifier.module, torch.nn.Module)
    for sample in boxed_photos(SHARED / "images" / "pairs"):
        image = _pixels(classifier, sample.image(), 288)
        masks = torch.stack([thing.mask(sample.size) for thing in sample.objects]).float()
        masks = F.interpolate(masks[None], size=image.shape[1:])[0] > 0.5
        targets = _best(classifier.module, image, [thing.label for thing in sample.objects])
        yield Scene(image, targets, masks)


def cover(
    model: torch.nn.Module, photos: Photos, heatmaps: Heatmaps, centre: Literal["window", "pixel"] = "window"
) -> Iterator[dict[str, Tensor]]:
    """Patch masking: by how much probability and log-odds of the target fall, batch by batch."""
    metric, mean = PatchMasking(SIZES, centre=centre), photos.images.mean(0)
    for images, labels in zip(photos.images.split(BATCH), photos.labels.split(BATCH), strict=True):
        maps = heatmaps(images, labels[:, None])[:, 0]
        found = metric(model, images, maps, targets=labels, mean_image=mean)
        yield {f"{what}@{size}": found[f"{what}@{size}"] for what in ("drop", "odds") for size in SIZES}


def point(scenes: list[Scene], heatmaps: Heatmaps, tolerance: int) -> Iterator[dict[str, Tensor]]:
    """Share of the positive relevance in the right place, and whether the peak is there, scene by scene."""
    game = PointingGame(tolerance=tolerance, smoothing=SMOOTHING if tolerance else 0.0)
    for scene in scenes:
        maps = heatmaps(scene.image[None], scene.targets[None])[0]
        inside = EnergyPointing()(None, None, maps, masks=scene.masks)["energy"]
        yield {"energy": inside, "hit": game(None, None, maps, masks=list(scene.masks))["hit"]}


def measure(question: str, material: Material, heatmaps: Heatmaps) -> Rows:
    """All rows of one variant."""
    if question == "photos":
        return joined(cover(material.model, material.photos, heatmaps))
    if question == "pixels":
        return joined(cover(material.model, material.photos, heatmaps, "pixel"))
    if question == "crops":
        found = [joined(cover(material.model, photos, heatmaps)) for photos in material.crops]
        return {name: np.mean([rows[name] for rows in found], axis=0) for name in found[0]}
    tolerance = 1 if question == "mosaics" else TOLERANCE
    return joined(point(getattr(material, question), heatmaps, tolerance))


def joined(batches: Iterable[dict[str, Tensor]]) -> Rows:
    """The rows of several batches as one."""
    found = list(batches)
    return {name: torch.cat([rows[name] for rows in found]).double().numpy() for name in found[0]}


def maker(name: str, classifier: Classifier, network: Network, image: Tensor, gradcam: str) -> Heatmaps:
    """What makes the maps of a variant."""
    if name == "Grad-CAM":
        (baseline, *_) = attributors([gradcam], network, image=image)
        return lambda x, t: torch.stack([baseline(x, t[:, k], [""] * len(x)) for k in range(t.shape[1])], 1)
    explainer = Explainer(network, VARIANTS[name], bounds=classifier.bounds)
    return lambda x, t: explainer(x, target=t).heatmap


def line(name: str, rows: Rows, reference: Rows) -> str:
    """Means; for drops, the paired difference to the reference with its bootstrap 95 % interval."""
    cells = []
    for column, values in rows.items():
        cell = f"{values.mean():.4f}" if "drop" in column else f"{values.mean():.3f}"
        if "@" in column and column in reference and rows is not reference:
            difference = values - reference[column]
            resampled = bootstrap((difference,), np.mean, method="percentile", rng=np.random.default_rng(0))
            low, high = resampled.confidence_interval
            cell += f" ({difference.mean():+.4f} [{low:.4f}, {high:.4f}])"
        cells.append(cell)
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure what is missing, print everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("half", choices=("tune", "test"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*VARIANTS, "Grad-CAM"])
    parser.add_argument("--reference", default="ssglrp", help="one of those asked for, before the others")
    parser.add_argument("--questions", type=lambda text: text.split(","), default=list(QUESTIONS))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    classifier = load(MODELS[options.model])
    assert isinstance(classifier.module, torch.nn.Module)
    network, material = Network(classifier.module), Material(classifier, options.half)
    found: dict[str, Rows] = {}
    for name in options.only:
        rows: Rows = {}
        for question in options.questions:
            path = options.out / f"{options.model}-{options.half}-{question}-{name}.npz"
            if not path.exists():
                began = time.monotonic()
                heatmaps = maker(name, classifier, network, material.photos.images[0], GRADCAM[options.model])
                np.savez(path, **measure(question, material, heatmaps))
                print(f"{name}, {question}: {time.monotonic() - began:.0f} s", flush=True)
            rows |= {f"{question} {column}": values for column, values in np.load(path).items()}
        found[name] = rows
        print(line(name, rows, found.get(options.reference, {})), flush=True)
    columns = next(iter(found.values()))
    print("| method | " + " | ".join(columns) + " |\n|---|" + "---|" * len(columns))
    for name, rows in found.items():
        print(line(name, rows, found.get(options.reference, {})))


if __name__ == "__main__":
    main()
