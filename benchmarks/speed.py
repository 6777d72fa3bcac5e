"""What an explanation costs, in units of the model's own inference forward, beside the peers.

python benchmarks/speed.py                               # the cells of docs/benchmarks.md (`make bench`): an hour on 2 cores
python benchmarks/speed.py --models resnet50 --batches 8 --only lrp,ssglrp --repeats 5

Weights are random. All contenders of a cell run in one process, interleaved, each between two forwards of the model; a ratio is its time
over their mean, and the table has the medians. Peak memory comes from a process for each contender. On a GPU, if there is one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import matplotlib.figure
import torch
from contenders import CONTENDERS, MANY, WEIGHED, Call
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


def measure(name: str, batch: int, targets: int, only: list[str], repeats: int) -> Cell:
    """Median ratios of one model, batch size and number of targets; a contender that fails gives its error."""
    model, images, classes = made(name, batch, targets)

    def forward() -> None:
        with torch.inference_mode():
            model(images)

    calls: dict[str, Call] = {}
    cell: Cell = {"forward, s": 0.0}
    for who in only:
        try:
            call = CONTENDERS[who](model, images, classes)
            call()
        except Exception as error:  # noqa: BLE001  whatever a peer says to a model that it can't explain
            cell[who] = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        else:
            calls[who] = call
    ratios: dict[str, list[float]] = {who: [] for who in calls}
    forwards = [seconds(forward)]
    for _ in range(repeats):
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


def table(results: dict[str, Cell], title: str, head: str) -> str:
    """Rows of contenders, columns of cells."""
    rows = list(dict.fromkeys(who for cell in results.values() for who in cell))
    lines = [f"### {title}\n", f"| {head} | {' | '.join(results)} |", "|---|" + "---|" * len(results)]
    for who in rows:
        found = [cell.get(who, "") for cell in results.values()]
        texts = [f"{v:.3g}" if isinstance(v, float) else ("fails" if v else "") for v in found]
        lines.append(f"| {who} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"


def plot(results: dict[str, Cell]) -> None:
    """Bars for each model."""
    figure = matplotlib.figure.Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    who = [name for name in CONTENDERS if any(isinstance(cell.get(name), float) for cell in results.values())]
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


def main() -> None:
    """Measure what is asked for; with no choice, everything, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(MODELS))
    parser.add_argument("--batches", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8])
    parser.add_argument("--targets", type=lambda text: [int(n) for n in text.split(",")], default=[1])
    parser.add_argument(
        "--only", type=lambda text: text.split(";"), default=list(CONTENDERS), help="names, with semicolons"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--memory", type=lambda text: text.split(","), default=[], help="models, for peak memory"
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and its plot")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peak:
        print(json.dumps(peak(options.peak[0], int(options.peak[1]), options.peak[2])))
        return
    parts = []
    for targets in options.targets:
        only = [who for who in options.only if targets == 1 or who in MANY]
        for batch in options.batches if targets == 1 else [min(options.batches)]:
            results = {}
            for name in options.models:
                results[name] = measure(name, batch, targets, only, options.repeats)
                print(name, batch, targets, json.dumps(results[name]), flush=True)
            parts.append(
                table(
                    results, f"Batch {batch}, {targets} target{'s' * (targets > 1)} of each image", "forwards"
                )
            )
            if targets == 1 and options.write and batch == max(options.batches):
                plot(results)
    if options.memory:
        parts.append(table(_peaks(options), f"Peak memory, batch {max(options.batches)}, MiB", "MiB"))
    print("\n".join(parts))
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n".join(parts) + END + rest.split(END)[1], encoding="utf-8")


def _peaks(options: argparse.Namespace) -> dict[str, Cell]:
    found: dict[str, Cell] = {}
    for name in options.memory:
        found[name] = {}
        for who in (who for who in options.only if who in WEIGHED):
            command = [sys.executable, __file__, "--peak", name, str(max(options.batches)), who]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, env=os.environ | RETURNING
            )
            found[name][who] = float(done.stdout.splitlines()[-1]) if done.returncode == 0 else "failed"
        print(name, "MiB", json.dumps(found[name]), flush=True)
    return found


if __name__ == "__main__":
    main()
