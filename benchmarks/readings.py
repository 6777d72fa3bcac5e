"""Which SSGLRP? ``python benchmarks/readings.py MODEL HALF --photos N --out DIR``, then ``... table HALF --out DIR``.

The abstract of SSGLRP's paper says "introducing the activation values of the positive gradients of output neurons and modifying
the initial relevance values of non-target classes", and no more. ``READINGS`` of ``variants.py`` are what that can mean. The seed
alone is SGLRP's times the target's logit, so its map is SGLRP's where that logit is positive. MODEL is ``resnet34``, ``efficientnet-lite0`` or ``vgg16`` (20 classes), HALF is ``tune`` or
``test`` as in ``study.py`` and ``smoothing.py``; of the half's photos N are taken, evenly spread, and of its composites
``--composites``.

- photos: by how much fall the target's probability and log-odds when the best window of 9 or 25 px is covered?
- objects: which share of the positive relevance lies in the object, and does the smoothed peak, with 15 px of tolerance? Of the
  ImageNet models the half's composites of two cut-outs, with exact masks; of the VGG16 the same photos, with their boxes.

The rows of a variant go to ``DIR/MODEL-HALF-VARIANT.npz``; what is there is not computed again. ``table`` prints the means, and the
differences of the named method to each other reading: paired, with bootstrap intervals that resample whole pictures, and sign-flip
tests with Holm's correction over all comparisons of the table. The rule of choice, fixed before anything was measured: on the tune
half the named method stays unless another reading is ahead of it in more of the corrected tests than it is behind.
"""

import argparse
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from smoothing import MODELS as BOXED
from smoothing import Boxed
from study import (
    BATCH,
    GRADCAM,
    MODELS,
    TOLERANCE,
    Heatmaps,
    Material,
    Photos,
    Rows,
    cover,
    joined,
    maker,
    point,
)
from variants import READINGS

from clarp.evaluation.statistics import Sampling, bootstrap, enough_flips, holm, sign_flip_test
from clarp.models import load
from clarp.network import Network

TABLED = {*MODELS, "vgg16"}
COLUMNS = {
    "drop@9": "drop, 9 px",
    "odds@9": "log-odds, 9 px",
    "odds@25": "log-odds, 25 px",
    "energy": "energy",
    "hit": "hits",
}
SIGNIFICANT = 0.05


def spread(count: int, most: int) -> NDArray[np.int64]:
    """So many of the numbers below ``count``, evenly spread, or all."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def measure(material: Material, heatmaps: Heatmaps, photos: int, composites: int) -> Rows:
    """All rows of one variant; ``scene`` says which of them belong to one picture of several objects."""
    if isinstance(material, Boxed):
        scenes = [material.objects[k] for k in spread(len(material.objects), photos)]
        asked = Photos(torch.stack([s.image for s in scenes]), torch.cat([s.targets for s in scenes]))
        maps = torch.cat(
            [
                heatmaps(x, t[:, None])
                for x, t in zip(asked.images.split(BATCH), asked.labels.split(BATCH), strict=True)
            ]
        )
        by_batch, by_scene = iter(maps.split(BATCH)), iter(maps.split(1))
        covered = cover(material.model, asked, lambda *_: next(by_batch))
        placed = point(scenes, lambda *_: next(by_scene), TOLERANCE)
    else:
        scenes = [material.composites[k] for k in spread(len(material.composites), composites)]
        taken = spread(len(material.photos.images), photos)
        asked = Photos(material.photos.images[taken], material.photos.labels[taken])
        covered = cover(material.model, asked, heatmaps)
        placed = point(scenes, heatmaps, TOLERANCE)
    rows = {**joined(covered), **joined(placed)}
    return {**rows, "scene": np.repeat(np.arange(len(scenes)), [len(s.targets) for s in scenes])}


@dataclass(frozen=True)
class Difference:
    """The named method minus another reading in one column: mean, 95 % interval, p-value before the correction."""

    model: str
    name: str
    column: str
    mean: float
    low: float
    high: float
    p: float


def differences(model: str, found: dict[str, Rows], tests: int) -> list[Difference]:
    """Of the first variant to each other one, in every column."""
    (_, own), *others = found.items()
    compared: list[Difference] = []
    for name, rows in others:
        for column in COLUMNS:
            values = (own[column] - rows[column])[:, None]
            pictures = (
                own["scene"].astype(np.int64) if column in {"energy", "hit"} else np.arange(len(values))
            )
            sampling = Sampling(pictures)
            low, high = bootstrap(values, sampling)
            p = sign_flip_test(values, enough_flips(sampling, tests))
            compared.append(
                Difference(
                    model, name, column, float(np.nanmean(values)), float(low[0]), float(high[0]), float(p[0])
                )
            )
    return compared


def table(half: str, out: Path) -> None:
    """Print the means and the differences of everything that has been measured."""
    found = {
        model: {name: dict(np.load(out / f"{model}-{half}-{name}.npz")) for name in READINGS}
        for model in sorted(TABLED)
        if all((out / f"{model}-{half}-{name}.npz").exists() for name in READINGS)
    }
    heads = " | ".join(COLUMNS.values())
    print(f"{half} half\n\n| model | reading | {heads} |\n|---|---|" + "---|" * len(COLUMNS))
    for model, by_name in found.items():
        for name, rows in by_name.items():
            cells = " | ".join(
                f"{np.nanmean(rows[column]):.{4 if 'drop' in column else 3}f}" for column in COLUMNS
            )
            print(f"| {model} | {READINGS[name]} | {cells} |")
    tests = len(found) * (len(READINGS) - 1) * len(COLUMNS)
    compared = [one for model, by_name in found.items() for one in differences(model, by_name, tests)]
    corrected = holm([one.p for one in compared])
    print(
        f"\n`ssglrp` minus it, {tests} comparisons\n\n| model | reading | {heads} |\n|---|---|"
        + "---|" * len(COLUMNS)
    )
    score: dict[str, list[int]] = {name: [0, 0] for name in list(READINGS)[1:]}
    cells: dict[tuple[str, str], list[str]] = {}
    for one, p in zip(compared, corrected, strict=True):
        digits = 4 if "drop" in one.column else 3
        cell = f"{one.mean:+.{digits}f} [{one.low:.{digits}f}, {one.high:.{digits}f}]"
        if p < SIGNIFICANT:
            cell = f"**{cell}**"
            score[one.name][int(one.mean < 0)] += 1
        cells.setdefault((one.model, one.name), []).append(cell)
    for (model, name), line in cells.items():
        print(f"| {model} | {READINGS[name]} | " + " | ".join(line) + " |")
    for name, (ahead, behind) in score.items():
        print(f"corrected tests: `ssglrp` ahead of {READINGS[name]} in {ahead}, behind in {behind}")
    for model, by_name in found.items():
        (rows, *_) = by_name.values()
        print(f"{model}: {len(rows['drop@9'])} photos, {len(np.unique(rows['scene']))} pictures with objects")


def main() -> None:
    """Measure what is missing, or print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=sorted({*TABLED, "table"}))
    parser.add_argument("half", choices=("tune", "test"))
    parser.add_argument("--photos", type=int, default=40)
    parser.add_argument("--composites", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    if given.model == "table":
        table(given.half, given.out)
        return
    warnings.simplefilter("ignore")
    given.out.mkdir(parents=True, exist_ok=True)
    boxed = given.model == "vgg16"
    classifier = load((BOXED if boxed else MODELS)[given.model])
    assert isinstance(classifier.module, torch.nn.Module)
    network = Network(classifier.module)
    material = (Boxed if boxed else Material)(classifier, given.half)
    for name in READINGS:
        path = given.out / f"{given.model}-{given.half}-{name}.npz"
        if path.exists():
            continue
        began = time.monotonic()
        heatmaps = maker(name, classifier, network, material.photos.images[0], GRADCAM.get(given.model, ""))
        np.savez(path, **measure(material, heatmaps, given.photos, given.composites))
        print(f"{given.model}, {given.half}, {name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
