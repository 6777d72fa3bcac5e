"""Does smoothing a heatmap help or harm: ``python benchmarks/smoothing.py MODEL HALF [--photos 100]``.

MODEL is ``resnet34`` (ImageNet photos, cut-outs with exact masks) or ``vgg16`` (20 classes, small photos with boxes), HALF is ``tune`` or
``test`` as in ``study.py``, whose questions these are (of the VGG every second photo). Maps are computed once, smoothed by a Gaussian whose sigma is a share of the longer
side, and asked:

- covered: by how much fall the target's log-odds when the best 9 x 9 or 25 x 25 window is covered, or 9 x 9 px around the greatest pixel?
- objects: which share of the positive relevance lies in the object (exact mask, or box), and does the peak, with 15 px of tolerance?
- mosaics: the same for the right cell of 2 x 2 photos, without tolerance.

The last line of each method tells the noise: half the width of the 95 % interval of a mean's paired difference to the raw map's.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from study import BATCH, SHARED, TOLERANCE, Material, Photos, Scene
from torch import Tensor

from clarp import Explainer
from clarp.data import boxed_photos
from clarp.data.dataset import Dataset
from clarp.evaluation import EnergyPointing, PatchMasking, PointingGame
from clarp.evaluation.inputs import Loader
from clarp.models import load
from clarp.network import Network

MODELS = {
    "resnet34": f"{SHARED}/models/imagenet_resnet34.py:build",
    "vgg16": f"{SHARED}/models/vgg16_tiny20.py:build",
}
METHODS = ("lrp", "ssglrp")
SIGMAS = (0.0, 0.005, 0.01, 0.02, 0.04)
Found = dict[str, list[float]]


class Boxed(Material):
    """The small photos with boxes; every second one belongs to the tune half, since five classes of twenty make no mosaics."""

    @cached_property
    def _dataset(self) -> Dataset:
        photos = boxed_photos(SHARED / "images" / "tiny20")
        half = {sample.id for sample in photos.samples[self.half == "test" :: 2]}
        return photos.select(lambda sample: sample.id in half)

    @cached_property
    def photos(self) -> Photos:
        """All of the half."""
        return self._all

    @cached_property
    def objects(self) -> list[Scene]:
        """The same photos with their boxes, as the model sees them."""
        loader = Loader(self.classifier, as_is=False, located=True, placed=True, all_labels=False)
        found = []
        for number, sample in enumerate(self._dataset):
            units = loader.units((number, sample))
            assert isinstance(units, list)
            for unit in units:
                assert unit.place is not None
                assert unit.truth is not None
                mask = unit.place.mask_to_model(unit.truth.mask)
                found.append(Scene(unit.image, torch.tensor(unit.label[:1]), mask[None] > 0.5))
        return found


def smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Maps (..., H, W) under a Gaussian of ``sigma`` times the longer side, mirrored at the border."""
    if sigma == 0:
        return maps
    axes = (maps.ndim - 2, maps.ndim - 1)
    return torch.from_numpy(gaussian_filter(maps.numpy(), sigma * max(maps.shape[-2:]), axes=axes))


def covered(material: Material, photos: Photos, explainer: Explainer) -> dict[float, Found]:
    """Falls of the log-odds for each sigma."""
    windows, pixels = PatchMasking((9, 25), centre="window"), PatchMasking(9)
    mean = photos.images.mean(0)
    found: dict[float, Found] = {sigma: defaultdict(list) for sigma in SIGMAS}
    for images, labels in zip(photos.images.split(BATCH), photos.labels.split(BATCH), strict=True):
        maps = explainer(images, target=labels).heatmap
        before = None
        for sigma in SIGMAS:
            shown = smoothed(maps, sigma)
            asked = {"targets": labels, "mean_image": mean, "before": before}
            of_windows = windows(material.model, images, shown, **asked)
            before = of_windows["before"]
            of_pixels = pixels(material.model, images, shown, **{**asked, "before": before})
            found[sigma]["9 px"] += of_windows["odds@9"].tolist()
            found[sigma]["25 px"] += of_windows["odds@25"].tolist()
            found[sigma]["9 px, peak"] += of_pixels["odds@9"].tolist()
    return found


def placed(what: str, scenes: Iterable[Scene], explainer: Explainer, tolerance: int) -> dict[float, Found]:
    """Energy and hits for each sigma."""
    game = PointingGame(tolerance=tolerance)
    found: dict[float, Found] = {sigma: defaultdict(list) for sigma in SIGMAS}
    for scene in scenes:
        maps = explainer(scene.image[None], target=scene.targets[None]).heatmap[0]
        for sigma in SIGMAS:
            shown = smoothed(maps, sigma)
            energy = EnergyPointing()(None, None, shown, masks=scene.masks)["energy"]
            found[sigma][f"{what}: energy"] += energy.tolist()
            found[sigma][f"{what}: hits"] += game(None, None, shown, masks=list(scene.masks))["hit"].tolist()
    return found


def rows(method: str, found: list[dict[float, Found]]) -> Iterable[str]:
    """Lines of the table, one for each sigma, and one of the noise."""
    by_sigma = {sigma: {k: v for part in found for k, v in part[sigma].items()} for sigma in SIGMAS}
    for sigma, columns in by_sigma.items():
        yield (
            f"| `{method}` | {sigma:.1%} | "
            + " | ".join(f"{np.mean(v):.3f}" for v in columns.values())
            + " |"
        )
    raw, last = by_sigma[0.0], by_sigma[0.01]
    noise = [1.96 * np.std(np.subtract(last[k], raw[k])) / len(raw[k]) ** 0.5 for k in raw]
    yield f"| `{method}` | 1.0% - raw, +- | " + " | ".join(f"{value:.3f}" for value in noise) + " |"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("half", choices=("tune", "test"))
    parser.add_argument("--photos", type=int, default=100, help="at most so many")
    options = parser.parse_args()
    classifier = load(MODELS[options.model])
    assert isinstance(classifier.module, torch.nn.Module)
    network = Network(classifier.module)
    kind = Boxed if options.model == "vgg16" else Material
    material = kind(classifier, options.half)
    every = -(-len(material.photos.images) // options.photos)
    photos = Photos(material.photos.images[::every], material.photos.labels[::every])
    objects = material.objects if isinstance(material, Boxed) else material.composites
    print(f"{len(photos.images)} photos, {len(objects)} scenes with objects, {len(material.mosaics)} mosaics")
    for number, method in enumerate(METHODS):
        explainer = Explainer(network, method, bounds=classifier.bounds)
        found = [
            covered(material, photos, explainer),
            placed("objects", objects, explainer, TOLERANCE),
            placed("mosaics", material.mosaics, explainer, 0),
        ]
        if number == 0:
            columns = [name for part in found for name in part[0.0]]
            print("| method | sigma | " + " | ".join(columns) + " |\n|---|---|" + "---|" * len(columns))
        print("\n".join(rows(method, found)), flush=True)


if __name__ == "__main__":
    main()
