"""Recent methods of others beside clarp's: ``python benchmarks/rivals.py [--photos 40] [--mosaics 8] [--methods NAME,...]``.

ResNet-34 and the tune half of the photos (``study.py``). For each method, as ``clarp evaluate`` names it:

- by how much the target's log-odds fall when the best 9 x 9 and 25 x 25 px window is covered (``centre="window"``), the mean over
  photos; the target is the label.
- energy: which share of the positive relevance lies in the right quarter of mosaics of four photos, the mean over 4 maps of each mosaic.
- seconds: processor time of one map on one thread, the median over photos, and its ratio to the first method's; images one at a
  time, of a size known before. Each photo is explained by every method before the next. These are printed first.

Maps are made once and used for all scores. Those for transformers mean nothing here, and are refused.
"""

import argparse
import time
import warnings
from statistics import median

import torch
from study import GRADCAM, MODELS, Material, Photos, cover, point
from torch import Tensor

from clarp.evaluation.attribution import Attributor, attributors
from clarp.models import load
from clarp.network import Network

METHODS = (
    *("lrp", "sglrp", "ssglrp", "clarp", "gradcam", "gradcam-plusplus", "layercam", "finer-cam", "reslrp"),
    *("var", "var@ssglrp", "idgi"),
)
LAYERED = ("gradcam", "gradcam-plusplus", "layercam", "finer-cam")


def main() -> None:
    """Print a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--mosaics", type=int, default=8)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=METHODS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    classifier = load(MODELS["resnet34"])
    material = Material(classifier, "tune")
    photos = material.photos
    every = max(1, len(photos.images) // given.photos)
    photos = Photos(photos.images[::every][: given.photos], photos.labels[::every][: given.photos])
    network, made = Network(classifier.module), dict[str, Attributor]()
    layer = GRADCAM["resnet34"].partition("@")[2]
    for name in given.methods:
        named = f"{name}@{layer}" if name in LAYERED else name
        found = attributors([named], network, bounds=classifier.bounds, image=photos.images[0])
        made[name] = next(method for method in found if method.name == named)
    maps, seconds = timed(made, photos)
    ratios = {
        name: median(a / b for a, b in zip(found, seconds[given.methods[0]], strict=True))
        for name, found in seconds.items()
    }
    print(
        "seconds: "
        + ", ".join(f"{name} {median(seconds[name]):.2f} ({r:.1f})" for name, r in ratios.items()),
        flush=True,
    )
    scenes = material.mosaics[: given.mosaics]
    print(
        f"{len(photos.images)} photos, {len(scenes)} mosaics, torch {torch.__version__}, one thread",
        flush=True,
    )
    print(
        "| method | log-odds at 9 px | at 25 px | energy in mosaics | seconds | ratio |\n|---|---|---|---|---|---|"
    )
    for name, method in made.items():
        rows = list(cover(material.model, photos, in_turn(maps[name])))
        falls = [float(torch.cat([row[f"odds@{size}"] for row in rows]).mean()) for size in (9, 25)]
        inside = torch.cat([row["energy"] for row in point(scenes, each(method), 1)]).mean()
        print(
            f"| `{method.name}` | {falls[0]:.3f} | {falls[1]:.2f} | {inside:.3f} | {median(seconds[name]):.2f} | {ratios[name]:.1f} |",
            flush=True,
        )


def timed(made: dict[str, Attributor], photos: Photos) -> tuple[dict[str, Tensor], dict[str, list[float]]]:
    """The maps (B, H, W) of each method, and the seconds that each map took."""
    maps = {name: list[Tensor]() for name in made}
    seconds = {name: list[float]() for name in made}
    for method in made.values():
        method(photos.images[:1], photos.labels[:1], [""])
    for image, label in zip(photos.images.split(1), photos.labels.split(1), strict=True):
        for name, method in made.items():
            began = time.process_time()
            maps[name].append(method(image, label, [str(len(maps[name]))]))
            seconds[name].append(time.process_time() - began)
    return {name: torch.cat(found) for name, found in maps.items()}, seconds


def in_turn(maps: Tensor):  # noqa: ANN201  as study.py's Heatmaps
    """What gives maps that are there, batch after batch."""
    batches = iter(maps.split(8))
    return lambda images, _: next(batches)[: len(images), None]


def each(method: Attributor):  # noqa: ANN201
    """What makes the maps (1, K, H, W) of K targets."""
    return lambda images, targets: torch.stack(
        [method(images, targets[:, k], [str(k)]) for k in range(targets.shape[1])], 1
    )


if __name__ == "__main__":
    main()
