"""Which classifiers can be explained: every one of torchvision, the smallest of each family of timm, some of transformers.

python benchmarks/classifiers.py                    # the whole table, to docs/classifiers.md; takes hours on a small machine
python benchmarks/classifiers.py "torchvision/res*" # these only; the others stay as they were
python benchmarks/classifiers.py --again "timm/*"   # measured anew, not taken from the cache

Weights are random, none of them zero, and batch-norm statistics too. Each model runs in a process of its own, on images as
small as it takes. What was measured is kept in ~/.cache/clarp/classifiers, a file for each model: an interrupted run goes on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import clarp

PAGE = Path(__file__).resolve().parents[1] / "docs" / "classifiers.md"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "clarp" / "classifiers"
BEGIN, END = "<!-- classifiers: generated -->\n", "<!-- classifiers: end -->"
SIZES = (64, 96, 128, 160, 192, 224, 240, 256, 288, 320, 384, 448, 512)
"""Images to try, the smallest first."""
TIMEOUT = 900
TOLERANCE = 1e-3
"""In float32, of the largest value."""


@dataclass
class Row:
    """What was found of one model; errors are relative to the largest value.

    Attributes:
        name: of the model, with its library in front.
        size: of the images.
        operations: how many nodes the captured graph has.
        reason: why it is not explained, or "".
        logits: error of the captured graph's logits.
        ledger: what is missing in seed = pixels + selection + bias + epsilon, of the largest sum on the way.
        batch: difference between the maps of two images and that of the first alone; in float64 where ``doubled``.
        doubled: whether rounding in float32 was too large to tell.
        reached: which part of the seed reached the pixels.
        capture: seconds.
        explain: seconds for the first two images by sglrp, the weights' parts made on the way.
        broken: whether its process failed outside the measurement.
    """

    name: str
    size: int = 0
    operations: int = 0
    reason: str = ""
    logits: float = 0.0
    ledger: float = 0.0
    batch: float = 0.0
    doubled: bool = False
    reached: float = 0.0
    capture: float = 0.0
    explain: float = 0.0
    broken: bool = False

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""
        if self.reason:
            return (self.name, str(self.size or ""), "", f"no: {self.reason}", "", "", "", "", "", "")
        errors = [f"{value:.0e}" for value in (self.logits, self.ledger, self.batch)]
        errors[2] += " (float64)" if self.doubled else ""
        seconds = (f"{value:.1f}" if value >= 1 else f"{value:.2f}" for value in (self.capture, self.explain))
        return (
            self.name,
            str(self.size),
            str(self.operations),
            "yes",
            *errors,
            f"{100 * self.reached:.0f} %",
            *seconds,
        )


COLUMNS = (
    "model", "image", "operations", "explained", "logits", "ledger", "batch = samples", "reached the pixels",
    "capture, s", "explain, s",
)  # fmt: skip


def _library(name: str) -> Any:
    """One of those that import torchvision, whose operations must be declared first."""
    import_module("clarp.models._torchvision")
    return import_module(name)


def names() -> list[str]:
    """All models of the table."""
    return [*torchvision_names(), *timm_names(), *(f"transformers/{name}" for name in TRANSFORMERS)]


def torchvision_names() -> list[str]:
    """Every classifier of torchvision."""
    from clarp.models._torchvision import torchvision

    return [f"torchvision/{name}" for name in torchvision.models.list_models(module=torchvision.models)]


def timm_names() -> list[str]:
    """The model with the fewest parameters of each of timm's families, a module each."""
    kept, timm = CACHE / "timm.json", _library("timm")
    if kept.is_file() and (found := json.loads(kept.read_text()))["version"] == timm.__version__:
        return list(found["names"])
    smallest = [
        f"timm/{name}"
        for family in timm.list_modules()
        if (name := _smallest(timm.list_models(module=family)))
    ]
    CACHE.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps({"version": timm.__version__, "names": smallest}))
    return smallest


def _smallest(family: list[str]) -> str | None:
    timm = _library("timm")
    counts: dict[str, int] = {}
    for name in family:
        with torch.device("meta"):
            try:
                counts[name] = sum(p.numel() for p in timm.create_model(name).parameters())
            except (
                RuntimeError,
                ValueError,
                NotImplementedError,
            ):  # it can't be made without memory, or at all
                continue
    return min(counts, key=counts.__getitem__, default=None)


def _transformers(kind: str, **options: Any) -> nn.Module:
    import_module(
        "clarp.models._torchvision"
    )  # transformers would import torchvision without declaring its operations
    transformers = import_module("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=10, **options)
    model: nn.Module = getattr(transformers, f"{kind}ForImageClassification")(config)
    return model


SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 64}
TRANSFORMERS: dict[str, Callable[[], nn.Module]] = {
    "ResNet": lambda: _transformers(
        "ResNet", embedding_size=16, hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 1, 1]
    ),
    "ViT": lambda: _transformers("ViT", intermediate_size=96, patch_size=8, **SMALL),
    "DeiT": lambda: _transformers("DeiT", intermediate_size=96, patch_size=8, **SMALL),
    "BEiT": lambda: _transformers("Beit", intermediate_size=96, patch_size=8, **SMALL),
    "ConvNeXt": lambda: _transformers("ConvNext", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]),
    "ConvNeXt v2": lambda: _transformers("ConvNextV2", hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1]),
    "Swin": lambda: _transformers(
        "Swin", embed_dim=24, depths=[2, 2], num_heads=[2, 4], image_size=64, window_size=4
    ),
    "Swin v2": lambda: _transformers(
        "Swinv2", embed_dim=24, depths=[2, 2], num_heads=[2, 4], image_size=64, window_size=4
    ),
    "DINOv2": lambda: _transformers("Dinov2", patch_size=8, **SMALL),
    "MobileNet v2": lambda: _transformers("MobileNetV2", image_size=64),
    "EfficientNet": lambda: _transformers("EfficientNet", image_size=64),
}


def make(name: str) -> tuple[nn.Module, int]:
    """A model in eval mode with random weights, and the smallest images that it takes.

    Raises:
        RuntimeError: it takes none.
    """
    library, _, own = name.partition("/")
    problem: Exception = RuntimeError("no size of image")
    for size in SIZES:
        try:
            model = _made(library, own, size)
            torch.manual_seed(0)
            shaken(model.eval())
            with torch.inference_mode():
                model(torch.zeros(2, 3, size, size))
        except Exception as error:  # noqa: BLE001  whatever a model says to images of a wrong size
            problem = error
        else:
            return model, size
    raise RuntimeError(f"{name} takes no images: {problem}") from problem


def _made(library: str, name: str, size: int) -> nn.Module:
    if library == "transformers":
        return TRANSFORMERS[name]()
    if library == "torchvision":
        from clarp.models._torchvision import torchvision

        sized = {"image_size": size} if name.startswith("vit") else {}
        model: nn.Module = torchvision.models.get_model(name, weights=None, **sized)
        return model
    return _timm(name, size)


def _timm(name: str, size: int) -> nn.Module:
    timm = _library("timm")
    try:
        model: nn.Module = timm.create_model(name, img_size=size)
    except TypeError:  # it has no such argument
        model = _cached_timm(name)
    return model


@cache
def _cached_timm(name: str) -> nn.Module:
    timm = _library("timm")
    model: nn.Module = timm.create_model(name)
    return model


@torch.no_grad()
def shaken(model: nn.Module) -> None:
    """Random batch-norm statistics, and no parameter that is constant: a zero would hide what is behind it."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    for parameter in model.parameters():
        low, high = parameter.aminmax()
        if low != high:
            continue
        if low > 0.5:
            parameter.uniform_(0.7, 1.3)
        elif low > 0:  # the scale of a layer
            parameter.uniform_(0.1, 0.5)
        else:
            parameter.normal_(0, 0.05)


def measure(name: str) -> Row:
    """Capture and explain one model."""
    row = Row(name)
    try:
        model, row.size = make(name)
    except (RuntimeError, ValueError) as error:
        row.reason = _first_line(error)
        return row
    images = torch.rand(2, 3, row.size, row.size, generator=torch.Generator().manual_seed(1))
    network = clarp.network.Network(model)
    start = time.perf_counter()
    try:
        row.operations = len(network.graph(tuple(images.shape[1:]), torch.float32).nodes)
    except clarp.CaptureError as error:
        row.reason = _refusal(error)
        return row
    row.capture = time.perf_counter() - start
    _explain(row, network, model, images)
    return row


def _explain(row: Row, network: Any, model: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        logits = model(images)
    logits = getattr(logits, "logits", logits)
    # A logit of zero, as behind a last ReLU, has no relevance to follow.
    target = 1 if bool((logits[:, 1] != 0).all()) else int(logits.abs().amin(0).argmax())
    both, first = _pair(clarp.Explainer(network, "lrp", composite="zplus-box"), images, target)
    start = time.perf_counter()
    relevance = clarp.Explainer(network, "sglrp")(images, target).relevance
    row.explain = time.perf_counter() - start
    row.logits = _apart(both.logits, logits)
    row.batch = _apart(both.relevance[:1], first.relevance)
    if row.batch > TOLERANCE:
        row.doubled = True
        exact = _pair(
            clarp.Explainer(network, "lrp", composite="zplus-box", dtype=torch.float64), images, target
        )
        row.batch = _apart(exact[0].relevance[:1], exact[1].relevance)
    ledger = both.ledger
    rest = ledger.seed - ledger.pixels - sum(ledger.total(what) for what in ("selection", "bias", "epsilon"))
    sizes = torch.stack([ledger.seed.abs(), *(entry.arrived.abs() for entry in ledger)]).amax(0)
    row.ledger = float((rest.abs() / sizes).max())
    row.reached = float((ledger.pixels / ledger.seed).mean())
    figures = torch.tensor([row.logits, row.ledger, row.batch, row.reached])
    if not all(bool(torch.isfinite(value).all()) for value in (both.relevance, relevance, figures)):
        row.reason = "its map or its ledger has NaN or infinity"
    elif float(figures[:3].max()) > TOLERANCE:
        row.reason = f"an error of {float(figures[:3].max()):.1g}"


def _pair(
    explainer: clarp.Explainer, images: Tensor, target: int
) -> tuple[clarp.Explanation, clarp.Explanation]:
    """Two images together, and the first alone; no explainer outlives it, for a large model has room for one."""
    return explainer(images, target), explainer(images[:1], target)


def _apart(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-30))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300].replace("|", "/")


def _refusal(error: Exception) -> str:
    """The reason alone, without the paths of this machine."""
    lines = [line.strip() for line in str(error).splitlines()]
    listed = [line for line in lines[1:] if line.startswith(("aten.", "wrap_", "<built-in"))]
    reasons = dict.fromkeys(f"`{line.split()[0]}` {line.rpartition(': ')[2]}" for line in listed)
    return "; ".join(list(reasons)[:4]).replace("|", "/") or _first_line(error)


def in_a_process(name: str, timeout: int) -> Row:
    """Measure one model where its memory is freed afterwards."""
    try:
        done = subprocess.run(
            [sys.executable, __file__, "--one", name],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Row(name, reason=f"took more than {timeout} s")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Row(name, reason=last[:200].replace("|", "/"), broken=True)
    return Row(**json.loads(lines[-1]))


def _place(name: str) -> Path:
    """Where a model's row is kept."""
    return CACHE / f"{name.replace('/', '--').replace(' ', '-')}.json"


def _kept(every: list[str]) -> list[Row]:
    """What was measured so far, now or in an earlier run."""
    return [Row(**json.loads(_place(name).read_text())) for name in every if _place(name).is_file()]


def table(rows: list[Row]) -> Iterator[str]:
    """The lines between the markers of the page."""
    yield f"{sum(not row.reason for row in rows)} of {len(rows)} are explained.\n"
    for library in dict.fromkeys(row.name.partition("/")[0] for row in rows):
        part = [row for row in rows if row.name.startswith(f"{library}/")]
        yield f"### {library}: {sum(not row.reason for row in part)} of {len(part)}\n"
        yield f"| {' | '.join(COLUMNS)} |"
        yield "|" + "---|" * len(COLUMNS)
        for row in part:
            yield f"| {' | '.join(row.cells()).replace(f'{library}/', '', 1)} |"
        yield ""


def updated(text: str, rows: list[Row]) -> str:
    """The page with its table made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n".join(table(rows)) + END + after


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "patterns", nargs="*", default=["*"], help='names with wildcards, for example "timm/*vit*"'
    )
    parser.add_argument("--again", action="store_true", help="measure anew what is in the cache")
    parser.add_argument("--timeout", type=int, default=TIMEOUT, help="seconds for a model")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.one:
        print(json.dumps(asdict(measure(options.one))))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    every = names()
    for name in every:
        if not any(fnmatch(name, pattern) for pattern in options.patterns):
            continue
        if options.again or not _place(name).is_file():
            row = in_a_process(name, options.timeout)
            print(" | ".join(row.cells()), flush=True)
            if row.broken:  # nothing that the model can help: the next run tries again
                continue
            _place(name).write_text(json.dumps(asdict(row)))
        PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), _kept(every)), encoding="utf-8")


if __name__ == "__main__":
    main()
