"""What the engine onnxruntime gains: ``python benchmarks/engines.py [--models NAME ...] [--methods NAME ...]``.

Each model explains ImageNet photos by each method: one photo with 1 and with 5 targets, and a batch of 8. PyTorch and
ONNX Runtime take turns in one process with the same number of threads, so that both see the same load. A row has both
medians in milliseconds, the ratio of the two, and the quartiles of the ratios of the rounds. Beside it stands how far the
maps are apart: the largest difference, relative to the largest value, and the sum of the differences, relative to the sum
of all values; the worst of the cell's maps. ``first`` is what the first explanation took longer than PyTorch's, which
records both passes; with --cache it is found in a folder where an earlier run has left it.

Run it on a quiet machine, with OMP_WAIT_POLICY=PASSIVE as on the command line.
"""

import argparse
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import torch
from exported import PHOTOS, apart, loaded
from torch import Tensor

import clarp
from clarp.allocation import keep_freed_memory
from clarp.models.classifier import Classifier
from clarp.network import Network

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = ("efficientnet-lite0", f"{SHARED}/models/imagenet_resnet34.py:build")
METHODS = ("lrp", "ssglrp", "clarp")
ENGINES = ("torch", "onnxruntime")
CELLS = ((1, 1), (1, 5), (8, 1))
"""Photos of a batch, and targets of each."""


def seconds(explainer: clarp.Explainer, images: Tensor, target: Tensor) -> float:
    """Of one call."""
    began = time.perf_counter()
    explainer(images, target)
    return time.perf_counter() - began


def rows(
    classifier: Classifier, method: str, images: Tensor, rounds: int, cache: Path | None
) -> Sequence[str]:
    """Lines of the table, one for each cell."""
    network = Network(classifier.module, cache=cache)
    explainers = [
        clarp.Explainer(network, method, bounds=classifier.bounds, task=classifier.task, engine=engine)
        for engine in ENGINES
    ]
    top = network_top(explainers[0], images)
    first = [seconds(explainer, images[:1], top[:1, :1]) for explainer in explainers]
    lines = []
    for batch, targets in CELLS:
        part, target = images[:batch], top[:batch, :targets]
        maps = [explainer(part, target).heatmap.flatten(0, 1) for explainer in explainers]
        taken = [[seconds(explainer, part, target) for explainer in explainers] for _ in range(rounds)]
        torch_seconds, other_seconds = (median(column) for column in zip(*taken, strict=True))
        low, _, high = quantiles([other / own for own, other in taken], n=4)
        largest, summed = (max(column) for column in zip(*apart(*maps), strict=True))
        cells = (
            Path(classifier.name).name, f"`{method}`", batch, targets, f"{torch_seconds * 1e3:.1f}",
            f"{other_seconds * 1e3:.1f}", f"{other_seconds / torch_seconds:.2f} [{low:.2f}, {high:.2f}]",
            f"{largest:.0e}", f"{summed:.0e}", f"{first[1] - first[0]:.0f} s",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def network_top(explainer: clarp.Explainer, images: Tensor) -> Tensor:
    """The five most probable classes of each image, (B, 5)."""
    return explainer.probabilities(images).topk(max(targets for _, targets in CELLS)).indices


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, help="as of clarp.models.load")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--folder", type=Path, default=PHOTOS, help="photos, and their names in labels.csv")
    parser.add_argument("--cache", type=Path, help="folder for what is recorded; none if left out")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    keep_freed_memory()
    print(f"{torch.get_num_threads()} threads, {options.rounds} rounds\n")
    print(
        "| model | method | photos | targets | torch, ms | onnxruntime, ms | ratio | largest | sum | first |"
    )
    print("|" + "---|" * 10)
    for name in options.models:
        classifier, images = loaded(name, max(batch for batch, _ in CELLS), options.folder)
        for method in options.methods:
            print(*rows(classifier, method, images, options.rounds, options.cache), sep="\n", flush=True)


if __name__ == "__main__":
    main()
