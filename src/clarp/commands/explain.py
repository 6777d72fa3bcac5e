"""``clarp explain``: photos through a classifier and an explainer, to pictures, arrays and a manifest."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from clarp import models
from clarp.cache import default_folder
from clarp.commands.manifest import describe, described, drawn_as, output_stems, percent
from clarp.commands.notes import note
from clarp.commands.pipeline import Outcome, Pipeline
from clarp.commands.writing import Writer
from clarp.explainer import Explainer
from clarp.files import write_atomically
from clarp.framing import Framing
from clarp.images import find_photos
from clarp.layers import resolve_layers
from clarp.method import Method
from clarp.models import Classifier
from clarp.network import Network
from clarp.render import Look, Seen
from clarp.render.encoding import PIXEL_FORMATS, Format
from clarp.task import TaskName
from clarp.text import document, printable


@dataclass(frozen=True)
class Request:
    """The arguments of the command, as they were given."""

    photos: tuple[Path, ...]
    model: str
    weights: Path | None
    labels: Path | None
    output: str | None
    task: TaskName | None
    targets: tuple[str, ...]
    against: tuple[str, ...]
    method: str
    composite: str | None
    layers: tuple[str, ...]
    look: Look
    pictures: bool
    format: str
    out: Path
    batch_size: int
    device: str | None


def run(request: Request, *, json: bool) -> int:
    """Explain the photos, write the files, report on standard output.

    Args:
        request: what to do.
        json: print the manifest and nothing else; whatever libraries print goes to standard error.

    Returns:
        0 if every photo was explained, else 1.

    Raises:
        ValueError, TypeError, ImportError, CaptureError: an argument does not hold, or the model can't be explained;
            nothing was written.
        OSError: the same, or a file can't be written; what was is in the manifest, if that can be.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext():
        manifest = Run.prepared(request).explain(report=not json)
    if json:
        sys.stdout.write(document(manifest) + "\n")
    return 1 if manifest["failed"] else 0


@dataclass(frozen=True)
class Run:
    """A request whose arguments have been found to hold."""

    request: Request
    paths: list[Path]
    classifier: Classifier
    targets: list[int]
    against: list[int]
    explainer: Explainer
    device: torch.device
    format: Format | None

    @classmethod
    def prepared(cls, request: Request) -> "Run":
        """Check everything that can be checked before the first photo."""
        paths = find_photos(request.photos)
        kind = format_named(request.format)
        method = Method.named(request.method).with_composite(request.composite)
        device = device_named(request.device)
        classifier = models.load(
            request.model, request.weights, request.labels, request.output, task=request.task
        )
        targets, against = classes(classifier, request.targets), classes(classifier, request.against)
        if against and not method.has_rivals:
            raise ValueError(
                f"--against was given, but the method {method.name!r} has no rivals; leave it out, or use ssglrp."
            )
        for target in targets:
            if against and set(against) <= {target}:
                raise ValueError(
                    f"--target and --against are both {classifier.labels[target]!r}; name another class."
                )
        if request.look.style == "versus" and len(targets) != 2:
            raise ValueError(
                f"--style versus draws two classes at once, and --target names {len(targets)}; name two, such as "
                '--target "Egyptian cat,espresso".'
            )
        if request.out.exists() and not request.out.is_dir():
            raise ValueError(f"--out {request.out} is a file; name a folder.")
        network = Network(classifier.module, cache=default_folder())
        explainer = Explainer(
            network,
            method,
            bounds=classifier.bounds,
            device=device,
            task=classifier.task,
            labels=classifier.labels,
        )
        if request.layers:
            shape = tuple(classifier.preprocess(Image.new("RGB", (320, 320))).shape)
            resolve_layers(request.layers, explainer.plan(shape).graph)
        request.out.mkdir(parents=True, exist_ok=True)
        format_ = kind if request.pictures else None
        return cls(request, paths, classifier, targets, against, explainer, device, format_)

    def explain(self, *, report: bool) -> dict[str, Any]:
        """Explain all photos and return the manifest, which is also written."""
        for assumed in self.classifier.notes:
            note(assumed)
        outcome = Outcome()
        try:
            self._run(outcome, report=report)
        except KeyboardInterrupt:
            self._finished(outcome)
            sys.stderr.write(
                f"clarp: stopped after {len(outcome.records)} of {len(self.paths)} photos; {self.request.out / 'manifest.json'} has those.\n"
            )
            raise
        except OSError:
            with suppress(OSError):  # where no picture could be written, there may be no room for it either
                self._finished(outcome)
            raise
        return self._finished(outcome)

    def _run(self, outcome: Outcome, *, report: bool) -> None:
        """Explain all photos, and say of each what came of it."""
        console = Console(stderr=True, soft_wrap=True)
        # On a terminal the report must not run into the bar, so rich prints it above; a redirected one stays as it is.
        bar = Progress(
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        with bar:
            task = bar.add_task("explaining", total=len(self.paths))
            for record in self._pipeline(outcome).run(self.paths):
                bar.update(task, completed=outcome.count)
                for assumed in record.get("notes", ()):
                    note(f"{record['file']}: {assumed}")
                if report:
                    sys.stdout.write(_summary(record, self.request.out))

    def _pipeline(self, outcome: Outcome) -> Pipeline:
        request = self.request
        writer = Writer(
            self.classifier, self.against, request.look, self.format, request.out, output_stems(self.paths)
        )
        return Pipeline(
            self.classifier,
            self.explainer,
            self.targets,
            self.against,
            request.layers,
            request.batch_size,
            None if self.format is None else self._framed,
            writer.write,
            outcome,
        )

    @cached_property
    def _framed(self) -> Callable[[Image.Image, Tensor], Seen]:
        """The photo in the size in which it is drawn, and what the model sees of it."""
        framing, look = Framing(self.classifier), self.request.look
        return lambda photo, image: framing.seen(photo, image, look.side(max(photo.size)))

    def _finished(self, outcome: Outcome) -> dict[str, Any]:
        """Name the photos that failed, and write the manifest of those that were explained."""
        records, failed = outcome.records, outcome.failed
        for path in self.paths:
            if path in failed:
                reason = failed[path].removeprefix(f"{path}: ")
                sys.stderr.write(printable(f"clarp: skipped {path}: {reason}") + "\n")
        manifest = describe(self.classifier, self.explainer.method, self.device, self.request.batch_size)
        manifest["task"] = described(outcome.task)
        manifest["pictures"] = self.format
        manifest["look"] = drawn_as(self.request.look) if self.format else None
        manifest["photos"] = [records[path] for path in self.paths if path in records]
        manifest["failed"] = [
            {"file": str(path), "error": failed[path]} for path in self.paths if path in failed
        ]
        text = document(manifest) + "\n"
        write_atomically(self.request.out / "manifest.json", lambda file: file.write(text.encode()))
        return manifest


def classes(classifier: Classifier, names: Sequence[str]) -> list[int]:
    """Class indices from what the user wrote: names or numbers, several in one string with commas.

    A string that is a label with a comma in it counts as that label.

    Raises:
        ValueError: an unknown or ambiguous class.
    """
    found: list[int] = []
    for name in names:
        try:
            found.append(classifier.class_index(name))
        except ValueError:
            parts = [part.strip() for part in name.split(",") if part.strip()]
            if len(parts) < 2:
                raise
            found += [classifier.class_index(part) for part in parts]
    return list(dict.fromkeys(found))


def format_named(name: str) -> Format:
    """The format of ``--format``.

    Raises:
        ValueError: there is none of that name.
    """
    for known in PIXEL_FORMATS:
        if known == name:
            return known
    raise ValueError(f"--format is {name!r}, expected one of {', '.join(PIXEL_FORMATS)}.")


def device_named(name: str | None) -> torch.device:
    """The device of ``--device``; None: the GPU if there is one, else the CPU.

    Raises:
        ValueError: it can't be used here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--device {name} can't be used here ({reason}); use cpu, or leave it out."
        ) from error
    return device


def _summary(record: dict[str, Any], out: Path) -> str:
    """A photo's part of the report for people."""
    told = [record["file"]]
    top = record["predictions"]
    asked = [explanation["target"] for explanation in record["explanations"]]
    told += [f"  {percent(p['probability']):>6}  {p['label']} ({p['class']})" for p in top]
    told += [
        f"  {percent(p['probability']):>6}  {p['label']} ({p['class']}), as asked"
        for p in asked
        if p not in top
    ]
    for explanation in record["explanations"]:
        against = explanation["against"]
        rivals = (
            ", ".join(rival["label"] for rival in against)
            if isinstance(against, list)
            else against.partition(":")[0]  # the reason behind it is in the manifest
        )
        file = explanation.get("overlay", explanation["relevance"])
        told.append(f"  {explanation['target']['label']} against {rivals}: {out / file}")
    return "\n".join(map(printable, told)) + "\n"
