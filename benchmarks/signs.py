"""Are red and blue true? ``python benchmarks/signs.py MODEL HALF [--photos 40] [--methods NAME ...]``.

MODEL is ``resnet34``, ``efficientnet-lite0`` or ``vgg16`` (20 classes), HALF is ``tune`` or ``test`` as in ``study.py`` (of the
VGG every second photo). Each method explains the class that the model names. Cells of a grid are covered one at a time, and a
map's cells are compared with what that does to the log-odds (``SignedEffect``): correlation / strongest cell red / most opposing
cell blue, the mean over photos, for each grid and fill. Effects are computed once for all methods.

``secant`` itself covers cells of a 7 x 7 grid by the photo's mean colour. The columns with another grid or fill are those in
which it has no such advantage.

The last column is the median of each method's seconds for one photo, relative to the first method's, one at a time.
"""

import argparse
import time
import warnings
from statistics import median

import torch
from smoothing import Boxed
from study import MODELS, SHARED, Material
from torch import Tensor

from clarp import Explainer
from clarp.evaluation import SignedEffect
from clarp.evaluation.metrics.perturbation import Cover
from clarp.models import load
from clarp.network import Network

METHODS = ("lrp", "sglrp", "ssglrp", "clarp", "secant")
QUESTIONS: tuple[tuple[int, Cover], ...] = (
    (7, "colour"),
    (7, "blur"),
    (7, "inpaint"),
    (4, "colour"),
    (10, "blur"),
)
"""Cells along a side, and what covers them."""


def main() -> None:
    """Print a table with a row for each method."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=(*MODELS, "vgg16"))
    parser.add_argument("half", choices=("tune", "test"))
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    vgg = given.model == "vgg16"
    classifier = load(f"{SHARED}/models/vgg16_tiny20.py:build" if vgg else MODELS[given.model])
    photos = (Boxed if vgg else Material)(classifier, given.half).photos.images
    photos = photos[:: max(1, len(photos) // given.photos)][: given.photos]
    with torch.no_grad():
        targets = torch.cat([classifier.module(part).argmax(1) for part in photos.split(8)])
    network = Network(classifier.module)
    maps, seconds = {}, {}
    for name in given.methods:
        explainer = Explainer(network, name, bounds=classifier.bounds, task=classifier.task)
        explainer(photos[:1], targets[:1])
        found: list[Tensor] = []
        taken = []
        for k in range(len(photos)):
            began = time.perf_counter()
            found.append(explainer(photos[k : k + 1], targets[k : k + 1]).heatmap)
            taken.append(time.perf_counter() - began)
        maps[name], seconds[name] = torch.cat(found), median(taken)
    print(f"{given.model}, {given.half}, {len(photos)} photos: correlation / red / blue")
    print("| method |" + "".join(f" {g} x {g}, {fill} |" for g, fill in QUESTIONS) + " time |")
    cells: dict[str, list[str]] = {name: [] for name in maps}
    for grid, fill in QUESTIONS:
        metric = SignedEffect(grid, fill)
        effects = metric.effects(classifier.module, photos, targets)
        for name, heatmaps in maps.items():
            rows = metric(classifier.module, photos, heatmaps, targets=targets, effects=effects)
            means = [rows[f"{what}@{grid}"].nanmean() for what in ("correlation", "red", "blue")]
            cells[name].append(" / ".join(f"{mean:.2f}" for mean in means))
    first = seconds[given.methods[0]]
    for name in maps:
        print(f"| `{name}` | " + " | ".join(cells[name]) + f" | {seconds[name] / first:.1f} |")


if __name__ == "__main__":
    main()
