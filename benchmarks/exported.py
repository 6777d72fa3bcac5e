"""Files of ``clarp.export`` beside the library: do they say the same, how large and how fast are they?

    python benchmarks/exported.py --models efficientnet-lite0 --methods lrp sglrp ssglrp clarp
    python benchmarks/exported.py --models efficientnet-lite0 ../shared/models/vgg16_tiny20.py:build --openvino

For each model and method it writes a .pt2 and an ONNX file and prints a row of each of two tables. The maps are those
of the most probable class of photos, at batch 2. A difference is that of the heatmap, largest (relative to the
largest value) and in sum (relative to the sum of all values); of the photos it shows the median and the worst. The
library's own difference between float32 and float64 stands beside it. Seconds are medians; the library and the files
take turns.
"""

import argparse
import csv
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

import clarp
from clarp.exporting.file import ExplainedFile
from clarp.images import open_photo
from clarp.models.classifier import Classifier

PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "images" / "imagenet"
Maps = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Logits (B, N) and heatmap (B, H, W) of images (B, C, H, W) and targets (B,)."""


@dataclass
class Row:
    """One model by one method.

    Attributes:
        model: its name.
        method: its name.
        export: processor's seconds to write the .pt2 and the ONNX file.
        sizes: their bytes, relative to the float32 weights.
        nodes: how many the ONNX file has.
        equal: whether all maps and logits of the .pt2 file are the library's to the last bit.
        apart: from the library, by what computed it, the largest and the summed difference of each photo.
        logits: likewise the largest difference of the logits, relative to the largest.
        seconds: a call, by what computed it and by batch.
    """

    model: str
    method: str
    export: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)
    nodes: int = 0
    equal: bool = True
    apart: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    logits: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, dict[int, float]] = field(default_factory=dict)


def measured(classifier: Classifier, method: str, images: Tensor, options: argparse.Namespace) -> Row:
    """Export, compare and time."""
    row = Row(classifier.name, method)
    explainer, exact = (
        clarp.Explainer(
            classifier.module, method, bounds=classifier.bounds, labels=classifier.labels,
            task=classifier.task, dtype=dtype,
        )
        for dtype in (torch.float32, torch.float64)
    )  # fmt: skip
    weights = sum(
        value.numel() * 4 for value in classifier.module.state_dict().values() if value.is_floating_point()
    )
    with tempfile.TemporaryDirectory() as folder:
        makers: dict[str, Maps] = {"library": of_library(explainer)}
        for suffix in (".pt2", ".onnx"):
            path, start = Path(folder) / f"model{suffix}", time.process_time()
            clarp.export(explainer, path, images.shape[1:], classifier=classifier)
            row.export.append(time.process_time() - start)
            row.sizes.append(path.stat().st_size / weights)
            makers[suffix] = of_file(ExplainedFile.open(path))
        row.nodes = nodes_of(path)
        if options.openvino:
            makers["OpenVINO"] = of_openvino(path)
        target = explainer(images).target
        _compare(row, makers, images, target, of_library(exact))
        _time(row, makers, images, target, options)
    return row


def of_library(explainer: clarp.Explainer) -> Maps:
    def maps(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        found = explainer(images, target)
        return found.logits, found.heatmap

    return maps


def of_file(file: ExplainedFile) -> Maps:
    return lambda images, target: file(images, target)[:2]


def of_openvino(path: Path) -> Maps:
    import openvino

    compiled = openvino.Core().compile_model(
        openvino.Core().read_model(path), "CPU",
        {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"},
    )  # fmt: skip

    def maps(images: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        found = compiled([images.numpy(), target.numpy()])
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    return maps


def nodes_of(path: Path) -> int:
    import onnx

    return len(onnx.load(path).graph.node)


def _compare(row: Row, makers: dict[str, Maps], images: Tensor, target: Tensor, exact: Maps) -> None:
    for part, classes in zip(images.split(2), target.split(2), strict=True):
        logits, heatmap = makers["library"](part, classes)
        for name, maps in {"float64": exact, **makers}.items():
            if name == "library":
                continue
            other_logits, other = maps(part, classes)
            row.apart.setdefault(name, []).extend(apart(heatmap, other))
            difference = float((other_logits - logits).abs().max() / logits.abs().max())
            row.logits[name] = max(row.logits.get(name, 0.0), difference)
            if name == ".pt2":
                row.equal &= torch.equal(logits, other_logits) and torch.equal(heatmap, other)


def apart(ours: Tensor, theirs: Tensor) -> Iterator[tuple[float, float]]:
    """The largest and the summed difference of each map, relative to the largest value and to the sum."""
    for one, other in zip(ours, theirs, strict=True):
        difference, size = (one - other).abs(), one.abs()
        yield float(difference.max() / size.max()), float(difference.sum() / size.sum())


def _time(
    row: Row, makers: dict[str, Maps], images: Tensor, target: Tensor, options: argparse.Namespace
) -> None:
    for batch in options.batches:
        part, classes = (value.repeat(batch, *(1,) * (value.ndim - 1))[:batch] for value in (images, target))
        taken: dict[str, list[float]] = {name: [] for name in makers}
        for maps in makers.values():  # what is made at the first call
            maps(part, classes)
        for _ in range(options.rounds):
            for name, maps in makers.items():
                start = time.perf_counter()
                maps(part, classes)
                taken[name].append(time.perf_counter() - start)
        for name, found in taken.items():
            row.seconds.setdefault(name, {})[batch] = median(found)


def loaded(name: str, count: int, folder: Path) -> tuple[Classifier, Tensor]:
    """A classifier, with random weights where it is one of torchvision or timm, and photos for it."""
    classifier = clarp.models.load(name, trained=name == "efficientnet-lite0" or ".py:" in name)
    with (folder / "labels.csv").open(encoding="utf-8") as listed:
        names = [row["file"] for row in csv.DictReader(listed)]
    step = max(1, len(names) // count)
    photos = [open_photo(folder / name) for name in names[::step][:count]]
    return classifier, torch.stack([classifier.preprocess(photo) for photo in photos])


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Both tables as Markdown."""
    names = [name for name in (".onnx", "OpenVINO", "float64") if name in rows[0].apart]
    said = {".onnx": "ONNX Runtime", "OpenVINO": "OpenVINO", "float64": "library in float64"}
    yield from _lines(
        ["model", "method", ".pt2 bit-equal", *(f"{said[n]}: {what}" for n in names for what in ("largest", "sum", "logits"))],
        [[r.model, r.method, "yes" if r.equal else "no", *(cell for n in names for cell in _apart(r, n))] for r in rows],
    )  # fmt: skip
    yield ""
    makers, batches = list(rows[0].seconds), list(rows[0].seconds["library"])
    yield from _lines(
        ["model", "method", "nodes", "export .pt2, .onnx, CPU s", "size .pt2, .onnx",
         *(f"{said.get(n, n)}, batch {b}, s" for b in batches for n in makers)],
        [[r.model, r.method, str(r.nodes), ", ".join(f"{s:.0f}" for s in r.export),
          ", ".join(f"{s:.2f}" for s in r.sizes), *(f"{r.seconds[n][b]:.3f}" for b in batches for n in makers)]
         for r in rows],
    )  # fmt: skip


def _apart(row: Row, name: str) -> tuple[str, str, str]:
    """Median and worst photo."""
    largest, summed = zip(*row.apart[name], strict=True)
    pairs = (f"{median(values):.0e}, {max(values):.0e}" for values in (largest, summed))
    return (*pairs, f"{row.logits[name]:.0e}")


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["efficientnet-lite0"], help="as of clarp.models.load")
    parser.add_argument("--methods", nargs="+", default=["lrp", "sglrp", "ssglrp", "clarp"])
    parser.add_argument("--photos", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=PHOTOS, help="photos, and their names in labels.csv")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--openvino", action="store_true", help="also in OpenVINO")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name in options.models:
        classifier, images = loaded(name, options.photos, options.folder)
        for method in options.methods:
            rows.append(measured(classifier, method, images, options))
            print("\n".join(table(rows[-1:])), flush=True)
    print("\n".join(("", *table(rows))))


if __name__ == "__main__":
    main()
