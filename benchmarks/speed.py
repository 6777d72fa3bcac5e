"""What an explanation costs, in units of the model's own inference forward, beside the peers.

python benchmarks/speed.py --out DIR                     # the cells of docs/benchmarks.md (`make bench`): an hour on 2 cores
python benchmarks/speed.py --out DIR --models resnet50 --batches 8 --only "lrp;ssglrp" --repeats 5

Every cell goes to ``DIR/cells.json``; what is there is not measured again.
Weights are random. All contenders of a cell run in one process, interleaved, each between two forwards of the model; a ratio is its time
over their mean, and the table has the medians. Peak memory comes from a process for each contender. On a GPU, if there is one.
"""

import argparse
import copy
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib.figure
import torch
from contenders import CONTENDERS, FIRST_PEER, MANY, ON_REQUEST, OURS, PLOTTED, WEIGHED, Call
from torch import Tensor, nn

from clarp.models._torchvision import torchvision

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
PLOT = PAGE.parent / "images" / "speed.svg"
BEGIN, END = "<!-- speed: generated -->\n", "<!-- speed: end -->"
MODELS = ("resnet50", "vgg16", "densenet121", "efficientnet_b0", "convnext_tiny", "vit_b_16")
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Has glibc return freed memory at once; what the first call left in its heap would hide what the second needs."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Cell = dict[str, float | str]
LARGE = 32
"""At this batch size only those in ``MANY`` are timed, and the first peer: one cell takes as long as all others of its model."""


@dataclass(frozen=True)
class Question:
    """What one cell answers.

    Attributes:
        model: its name in torchvision.
        batch: how many images.
        targets: how many classes of each are explained.
        unit: "forwards" for time, "MiB" for peak memory.
    """

    model: str
    batch: int
    targets: int = 1
    unit: Literal["forwards", "MiB"] = "forwards"

    @property
    def table(self) -> str:
        """The title of the table that the cell is in."""
        if self.unit == "MiB":
            return f"Peak memory beyond what is held before and after, batch {self.batch}, MiB"
        return f"Batch {self.batch}, {self.targets} target{'s' * (self.targets > 1)} of each image"

    def contenders(self) -> tuple[str, ...]:
        """Who can answer, in order."""
        if self.unit == "MiB":
            return WEIGHED
        if self.targets > 1:
            return MANY
        if self.batch >= LARGE:
            return (*MANY, FIRST_PEER)
        return tuple(who for who in CONTENDERS if who not in ON_REQUEST)

    def answer(self, only: Sequence[str], repeats: int) -> Cell:
        """Measure."""
        if self.unit == "MiB":
            return {who: self._peak(who) for who in only}
        return measure(self.model, self.batch, self.targets, only, repeats)

    def _peak(self, who: str) -> float | str:
        command = [sys.executable, __file__, "--peak", self.model, str(self.batch), who]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | RETURNING
        )
        return float(done.stdout.splitlines()[-1]) if done.returncode == 0 else "failed"


def made(name: str, batch: int, targets: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model with random weights, images and targets."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval().to(DEVICE)
    images = torch.randn(batch, 3, 224, 224).clamp(-3, 3).to(DEVICE)
    classes = torch.arange(batch * targets).view(batch, targets).to(DEVICE)
    return model, images, classes[:, 0] if targets == 1 else classes


def seconds(call: Call) -> float:
    """How long a call takes, what it started on a GPU included."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(name: str, batch: int, targets: int, only: Sequence[str], repeats: int) -> Cell:
    """Median ratios of one model, batch size and number of targets; a contender that fails gives its error."""
    model, images, classes = made(name, batch, targets)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    calls: dict[str, Call] = {}
    cell: Cell = {"forward, s": 0.0}
    for who in only:
        try:
            call = CONTENDERS[who](model if who in OURS else copy.deepcopy(model), images, classes)
            call()
        except Exception as error:  # noqa: BLE001  whatever a peer says to a model that it can't explain
            cell[who] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        else:
            calls[who] = call
    ratios: dict[str, list[float]] = {who: [] for who in calls}
    forwards = [seconds(forward)]
    for _ in range(repeats * max(1, 8 // batch)):  # what is short is noisy
        for who, call in calls.items():
            cost = seconds(call)
            forwards.append(seconds(forward))
            ratios[who].append(2 * cost / (forwards[-2] + forwards[-1]))
    cell |= {who: statistics.median(found) for who, found in ratios.items()}
    return cell | {"forward, s": statistics.median(forwards)}


def peak(name: str, batch: int, who: str) -> float:
    """MiB that a contender needs at its peak beyond what it holds before and after (weights, prepared weights)."""
    model, images, classes = made(name, batch, 1)
    call = CONTENDERS[who](model, images, classes)
    call()
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    held = _status("VmRSS")
    call()
    return (_status("VmHWM") - held) / 2**10


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field))


def table(title: str, cells: dict[str, Cell]) -> str:
    """Rows of contenders, columns of models."""
    rows = [who for who in ("forward, s", *CONTENDERS) if any(who in cell for cell in cells.values())]
    lines = [f"### {title}\n", f"| | {' | '.join(cells)} |", "|---|" + "---|" * len(cells)]
    for who in rows:
        found = [cell.get(who, "") for cell in cells.values()]
        texts = [
            (f"{v:.0f}" if v >= 1000 else f"{v:.3g}") if isinstance(v, float) else ("fails" if v else "")
            for v in found
        ]
        lines.append(f"| {who} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Cell]) -> None:
    """Bars for each model."""
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    who = [name for name in PLOTTED if any(isinstance(cell.get(name), float) for cell in results.values())]
    for place, name in enumerate(who):
        heights = [value if isinstance(value := cell.get(name), float) else 0.0 for cell in results.values()]
        axes.bar(
            [i + 0.8 * place / len(who) for i in range(len(results))], heights, 0.8 / len(who), label=name
        )
    axes.set_xticks([i + 0.4 for i in range(len(results))], list(results))
    axes.set_ylabel("model's own inference forwards")
    axes.legend(ncols=3, fontsize="small")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)


def questions(options: argparse.Namespace) -> list[Question]:
    """The cells that are wanted."""
    found = [Question(m, batch) for batch in options.batches for m in options.models]
    found += [Question(m, 1, targets) for targets in options.targets for m in options.more]
    return found + [Question(m, 8, unit="MiB") for m in options.more]


def main() -> None:
    """Measure what is asked for and not there; print it all, or write it to the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required="--peak" not in sys.argv)
    parser.add_argument("--models", type=_words, default=list(MODELS))
    parser.add_argument("--batches", type=_numbers, default=[8])
    parser.add_argument("--more", type=_words, default=[], help="models, for peak memory and for --targets")
    parser.add_argument("--targets", type=_numbers, default=[], help="how many of one image")
    parser.add_argument("--only", type=lambda text: text.split(";"), help="names, with semicolons")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its plot")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        print(json.dumps(peak(options.peak[0], int(options.peak[1]), options.peak[2])))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "cells.json"
    cells: dict[str, Cell] = json.loads(file.read_text()) if file.exists() else {}
    tables: dict[str, dict[str, Cell]] = {}
    for question in questions(options):
        cell = cells.setdefault(f"{question.model}: {question.table}", {})
        only = [who for who in options.only or question.contenders() if who not in cell]
        if only:
            cell |= question.answer(only, options.repeats)
            file.write_text(json.dumps(cells, indent=1))
            print(question, json.dumps(cell), flush=True)
        tables.setdefault(question.table, {})[question.model] = cell
    text = "\n".join(table(title, cells) for title, cells in tables.items())
    print(text)
    if options.write:
        plot(tables[Question("", 8).table])
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(before + BEGIN + text + END + rest.split(END)[1], encoding="utf-8")


def _words(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


if __name__ == "__main__":
    main()
