"""Every classifier of torchvision, and one of each family of timm, as an ONNX file in ONNX Runtime.

python benchmarks/exported_classifiers.py "torchvision/*"           # those that are missing, and the table
python benchmarks/exported_classifiers.py --again "timm/*vit*"      # measured anew

Weights are random, none of them zero, and images as small as a model takes, as in benchmarks/classifiers.py. A file
explains class 1 of two random images by ``ssglrp``; its maps and logits stand beside those of the library, whose own
maps in float64 stand beside them. Each model runs in a process of its own with a limit on its processor's time. Its row is appended
to --rows, and the table in docs/exported-classifiers.md is written from there: an interrupted run goes on.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from math import isnan
from pathlib import Path

import torch
from classifiers import make, timm_names, torchvision_names
from exported import apart
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

import clarp
from clarp.exporting.file import ExplainedFile

PAGE = Path(__file__).resolve().parents[1] / "docs" / "exported-classifiers.md"
ROWS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clarp" / "exported.jsonl"
BEGIN, END = "<!-- families: generated -->\n", "<!-- families: end -->"
METHOD = "ssglrp"
TIMEOUT = 900
LOGITS = 1e-4
"""The largest difference of a logit, relative to the largest logit."""
SUM = 1e-2
"""The summed difference of a map, relative to its sum; twice the library's own between float32 and float64, if that is
more. Where a gradient is zero but for rounding, the selection goes one way here and the other way there."""
HALVED = 300_000_000
"""Parameters from which float64 is left out, for it would need much memory."""


@dataclass
class Row:
    """What was found of one model.

    Attributes:
        name: of the model, with its library in front.
        size: of the images.
        half: whether the weights are stored in float16, for they are too large for a file in float32.
        reason: why there is no file, or "".
        largest, summed: differences of the maps of the file from the library's, the worse of two images.
        own_largest, own_summed: likewise of the library in float64; NaN where it was left out.
        logits: the largest difference of a logit, relative to the largest.
        megabytes: of the file.
        seconds: processor's, for the first explanation and the file.
        broken: whether its process failed outside the measurement.
    """

    name: str
    size: int = 0
    half: bool = False
    reason: str = ""
    largest: float = float("nan")
    summed: float = float("nan")
    own_largest: float = float("nan")
    own_summed: float = float("nan")
    logits: float = float("nan")
    megabytes: float = 0.0
    seconds: float = 0.0
    broken: bool = False

    @property
    def equal(self) -> bool:
        """Whether the file says what the library says, within the bounds."""
        bound = SUM if isnan(self.own_summed) else max(SUM, 2 * self.own_summed)
        return not self.reason and self.logits <= LOGITS and self.summed <= bound

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        size = f"{self.size}{', float16' if self.half else ''}" if self.size else ""
        if self.reason:
            return (self.name, size, f"no file: {self.reason}", *[""] * 7)
        figures = (self.largest, self.summed, self.own_largest, self.own_summed, self.logits)
        return (
            self.name, size, "yes" if self.equal else "no",
            *("" if isnan(value) else f"{value:.0e}" for value in figures),
            f"{self.megabytes:.0f}", f"{self.seconds:.0f}",
        )  # fmt: skip


COLUMNS = (
    "model", "image", "within the bounds", "largest", "sum", "float64: largest", "float64: sum", "logits", "MB",
    "CPU s to explain and export",
)  # fmt: skip


def measure(name: str) -> Row:
    """Export one model and run the file."""
    row = Row(name)
    try:
        model, row.size = make(name)
    except (RuntimeError, ValueError) as error:
        row.reason = _first_line(error)
        return row
    images = torch.rand(2, 3, row.size, row.size, generator=torch.Generator().manual_seed(1))
    try:
        _compare(row, model, images)
    except (
        ValueError,
        RuntimeError,
        NotImplementedError,
        clarp.CaptureError,
        clarp.UnsupportedOperation,
    ) as error:
        row.reason = _first_line(error)
    return row


def _compare(row: Row, model: nn.Module, images: Tensor) -> None:
    parameters = sum(value.numel() for value in model.state_dict().values())
    row.half = parameters * 4 >= 2**31 - 2**25
    if row.half:  # the same weights for the library and the file, which has batch norms folded into them
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            model = fuse(model)
        model.half().float()
    start = time.process_time()
    explainer = clarp.Explainer(model, METHOD)
    ours = explainer(images, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        clarp.export(explainer, path, images.shape[1:], half=row.half)
        row.seconds = time.process_time() - start
        row.megabytes = path.stat().st_size / 1e6
        del explainer
        logits, heatmap, _ = ExplainedFile.open(path)(images, torch.ones(len(images), dtype=torch.int64))
    row.logits = float((logits - ours.logits).abs().max() / ours.logits.abs().max())
    row.largest, row.summed = _worst(ours.heatmap, heatmap)
    if parameters < HALVED:
        exact = clarp.Explainer(model, METHOD, dtype=torch.float64)(images, 1)
        row.own_largest, row.own_summed = _worst(ours.heatmap, exact.heatmap)


def _worst(ours: Tensor, theirs: Tensor) -> tuple[float, float]:
    largest, summed = zip(*apart(ours, theirs), strict=True)
    return max(largest), max(summed)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].replace("|", "/")


def in_a_process(name: str, timeout: int) -> Row:
    """Measure one model where its memory is freed afterwards."""
    command = [sys.executable, __file__, "--one", name, "--timeout", str(timeout)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        return Row(name, reason=f"took more than {timeout} s", broken=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Row(name, reason=last[:200].replace("|", "/"), broken=True)
    return Row(**json.loads(lines[-1]))


def kept(rows: Path) -> dict[str, Row]:
    """What was measured so far; the last row of a model counts."""
    if not rows.is_file():
        return {}
    found = (Row(**json.loads(line)) for line in rows.read_text(encoding="utf-8").splitlines())
    return {row.name: row for row in found}


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The lines between the markers of the page."""
    for library in dict.fromkeys(row.name.partition("/")[0] for row in rows):
        part = [row for row in rows if row.name.startswith(f"{library}/")]
        yield f"### {library}: {sum(row.equal for row in part)} of {len(part)} within the bounds\n"
        yield f"| {' | '.join(COLUMNS)} |"
        yield "|" + "---|" * len(COLUMNS)
        for row in part:
            yield f"| {' | '.join(row.cells()).removeprefix(f'{library}/')} |"
        yield ""


def updated(text: str, rows: Iterable[Row]) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n".join(table(list(rows))) + END + after


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help='names with wildcards, as "timm/*vit*"')
    parser.add_argument("--again", action="store_true", help="measure anew what is in --rows")
    parser.add_argument("--timeout", type=int, default=TIMEOUT, help="processor's seconds for a model")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the file that rows are appended to")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one:
        resource.setrlimit(resource.RLIMIT_CPU, (options.timeout, resource.RLIM_INFINITY))
        print(json.dumps(asdict(measure(options.one))))
        return
    options.rows.parent.mkdir(parents=True, exist_ok=True)
    every = [*torchvision_names(), *timm_names()]
    asked = dict.fromkeys(n for pattern in options.patterns for n in every if fnmatch(n, pattern))
    for name in asked:
        if not options.again and name in kept(options.rows):
            continue
        row = in_a_process(name, options.timeout)
        print(" | ".join(row.cells()), flush=True)
        if row.broken:  # nothing that the model can help: the next run tries again
            continue
        with options.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")
    found = kept(options.rows)
    page = updated(PAGE.read_text(encoding="utf-8"), [found[name] for name in every if name in found])
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
