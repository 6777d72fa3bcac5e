"""``clarp explain``: photos through a classifier and an explainer, to pictures, arrays and a manifest."""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from clarp import models
from clarp.cache import default_folder
from clarp.commands.manifest import (
    caption,
    describe,
    described,
    finite,
    named,
    output_stems,
    percent,
)
from clarp.commands.notes import lost_as_notes, note
from clarp.explainer import Explainer
from clarp.explanation import Explanation
from clarp.files import slug, write_atomically
from clarp.images import find_photos, notes_of, open_photo
from clarp.layers import resolve_layers
from clarp.method import Method
from clarp.models import Classifier
from clarp.network import Network
from clarp.render import STYLES, Style, figure, rasterised
from clarp.task import Task, TaskName
from clarp.text import document, printable

TOP = 5


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
    style: str
    out: Path
    batch_size: int
    device: str | None


@dataclass(frozen=True)
class _Photo:
    path: Path
    image: Tensor
    notes: tuple[str, ...]


def run(request: Request, *, json: bool) -> int:
    """Explain the photos, write the files, report on standard output.

    Args:
        request: what to do.
        json: print the manifest and nothing else; whatever libraries print goes to standard error.

    Returns:
        0 if every photo was explained, else 1.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: an argument does not hold, or the model can't be
            explained; nothing was written.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext():
        manifest = _Run.prepared(request).explain(report=not json)
    if json:
        sys.stdout.write(document(manifest) + "\n")
    return 1 if manifest["failed"] else 0


@dataclass(frozen=True)
class _Run:
    """A request whose arguments have been found to hold."""

    request: Request
    paths: list[Path]
    classifier: Classifier
    targets: list[int]
    against: list[int]
    explainer: Explainer
    device: torch.device
    style: Style

    @classmethod
    def prepared(cls, request: Request) -> "_Run":
        """Check everything that can be checked before the first photo."""
        paths = find_photos(request.photos)
        style = style_named(request.style)
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
        return cls(request, paths, classifier, targets, against, explainer, device, style)

    def explain(self, *, report: bool) -> dict[str, Any]:
        """Explain all photos and return the manifest, which is also written."""
        for assumed in self.classifier.notes:
            note(assumed)
        stems = output_stems(self.paths)
        records: dict[Path, dict[str, Any]] = {}
        tasks: list[Task] = []
        failed: dict[Path, str] = {}
        console = Console(stderr=True, soft_wrap=True)
        # On a terminal the report must not run into the bar, so rich prints it above; a redirected one stays as it is.
        bar = Progress(
            console=console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        )
        try:
            with bar:
                task = bar.add_task("explaining", total=len(self.paths))
                for batch in self._batches(failed, lambda: bar.advance(task)):
                    for photo, explanation, row in self._explanations(batch, failed):
                        if not tasks:
                            tasks.append(explanation.question)
                            for assumed in explanation.notes:
                                note(assumed)
                        record = self._write(photo, explanation, row, stems[photo.path])
                        records[photo.path] = record
                        bar.advance(task)
                        if report:
                            sys.stdout.write(_summary(record, self.request.out))
        except KeyboardInterrupt:
            self._finished(records, failed, tasks)
            sys.stderr.write(
                f"clarp: stopped after {len(records)} of {len(self.paths)} photos; {self.request.out / 'manifest.json'} has those.\n"
            )
            raise
        return self._finished(records, failed, tasks)

    def _finished(
        self, records: dict[Path, dict[str, Any]], failed: dict[Path, str], tasks: list[Task]
    ) -> dict[str, Any]:
        """Name the photos that failed, and write the manifest of those that were explained."""
        for path, reason in failed.items():
            sys.stderr.write(printable(f"clarp: skipped {path}: {reason.removeprefix(f'{path}: ')}") + "\n")
        manifest = describe(self.classifier, self.explainer.method, self.device, self.request.batch_size)
        manifest["task"] = described(tasks[0] if tasks else None)
        manifest["style"] = self.style
        manifest["photos"] = [records[path] for path in self.paths if path in records]
        manifest["failed"] = [
            {"file": str(path), "error": failed[path]} for path in self.paths if path in failed
        ]
        text = document(manifest) + "\n"
        write_atomically(self.request.out / "manifest.json", lambda file: file.write(text.encode()))
        return manifest

    def _batches(self, failed: dict[Path, str], on_failure: Callable[[], None]) -> Iterator[list[_Photo]]:
        """Photos of the same size after preprocessing, as many as a batch may have, in their order."""
        batch: list[_Photo] = []
        for path in self.paths:
            try:
                photo = self._opened(path)
            except (ValueError, OSError, ModuleNotFoundError) as error:
                failed[path] = str(error)
                on_failure()
                continue
            if batch and (len(batch) == self.request.batch_size or batch[0].image.shape != photo.image.shape):
                yield batch
                batch = []
            batch.append(photo)
        if batch:
            yield batch

    def _opened(self, path: Path) -> _Photo:
        image = open_photo(path)
        try:
            return _Photo(path, self.classifier.preprocess(image), notes_of(image))
        except Exception as error:  # the user's own preprocessing may raise anything
            raise ValueError(f"the preprocessing failed with {type(error).__name__}: {error}.") from error

    def _explanations(
        self, batch: list[_Photo], failed: dict[Path, str]
    ) -> Iterator[tuple[_Photo, Explanation, int]]:
        """Each photo with the explanation that it is in, and its row there; a photo that spoils its batch is left out."""
        target = [self.targets] * len(batch) if self.targets else None
        try:
            images = torch.stack([photo.image for photo in batch])
            with lost_as_notes(lambda k, index: f"{batch[k].path}, {self.classifier.labels[index]}"):
                explanation = self.explainer(
                    images,
                    target=target,
                    against=self.against or None,
                    layers=self.request.layers,
                    batch_size="auto",
                )
        except ValueError as error:
            if len(batch) == 1:
                failed[batch[0].path] = str(error)
                return
            for photo in batch:
                yield from self._explanations([photo], failed)
            return
        for row, photo in enumerate(batch):
            yield photo, explanation, row

    def _write(self, photo: _Photo, explanation: Explanation, row: int, stem: str) -> dict[str, Any]:
        """Write the pictures and arrays of one photo, and return what the manifest says of it."""
        probabilities = explanation.probabilities[row].double().cpu()
        targets = explanation.target[row].view(-1).tolist()
        relevance = explanation.relevance[row].float().cpu().view(len(targets), *photo.image.shape)
        skipped = explanation.selection_skipped[row].view(-1).tolist()
        empty = explanation.empty[row].view(-1).tolist()
        method = explanation.method
        for assumed in photo.notes:
            note(f"{photo.path}: {assumed}")
        seen = self.classifier.photo(photo.image)
        name_of = partial(named, self.classifier, probabilities)
        explanations = []
        for k, target in enumerate(targets):
            rivals = [index for index in self.against if index != target]
            name = f"{stem}.{target}-{slug(self.classifier.labels[target])}.{method.name}"
            skips = [f"selection was skipped at {skipped[k]} layers"] if skipped[k] else []
            skips += filter(None, [explanation.remark(row, k)])
            words = caption(
                self.classifier,
                explanation,
                target,
                float(probabilities[target]),
                rivals,
                photo.path.name,
                *skips,
            )
            # On a scale of its own rounding would be in full colour.
            heatmap = relevance[k].double().sum(0).numpy() * (not empty[k])
            picture = rasterised(figure(heatmap, seen, words, style=self.style))
            write_atomically(self.request.out / f"{name}.png", partial(picture.save, format="PNG"))
            write_atomically(self.request.out / f"{name}.npy", partial(np.save, arr=relevance[k].numpy()))
            layers = self._write_layers(explanation, row, k, name)
            explanations.append(
                {
                    "target": name_of(target),
                    "against": [name_of(index) for index in rivals]
                    if rivals
                    else explanation.question.unnamed_rivals(method.has_rivals),
                    "selection_skipped": skipped[k],
                    "empty": empty[k],
                    "remark": explanation.remark(row, k),
                    "ledger": {
                        part: finite(_at(values, row, k))
                        for part, values in explanation.ledger.summary().items()
                    },
                    "overlay": f"{name}.png",
                    "relevance": f"{name}.npy",
                    **({"layers": layers} if layers else {}),
                }
            )
        return {
            "file": str(photo.path),
            "sha256": hashlib.sha256(photo.path.read_bytes()).hexdigest(),
            "predictions": [
                name_of(index) for index in probabilities.topk(min(TOP, len(probabilities))).indices.tolist()
            ],
            "explanations": explanations,
            **({"notes": list(photo.notes)} if photo.notes else {}),
        }

    def _write_layers(self, explanation: Explanation, row: int, k: int, name: str) -> dict[str, str]:
        """Write the relevance at the layers that were asked for; returns the names of their files."""
        files = {}
        for layer, values in explanation.layers.items():
            value = values[row][k] if explanation.target.ndim == 2 else values[row]
            files[layer] = f"{name}.{layer}.npy"
            write_atomically(
                self.request.out / files[layer], partial(np.save, arr=value.float().cpu().numpy())
            )
        return files


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


def style_named(name: str) -> Style:
    """The style of ``--style``.

    Raises:
        ValueError: there is none of that name.
    """
    for style in STYLES:
        if style == name:
            return style
    raise ValueError(f"--style is {name!r}, expected one of {', '.join(STYLES)}.")


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
    told += [f"  {percent(p['probability']):>6}  {p['label']} ({p['class']})" for p in record["predictions"]]
    for explanation in record["explanations"]:
        against = explanation["against"]
        rivals = (
            ", ".join(rival["label"] for rival in against)
            if isinstance(against, list)
            else against.partition(":")[0]  # the reason behind it is in the manifest
        )
        told.append(f"  {explanation['target']['label']} against {rivals}: {out / explanation['overlay']}")
    return "\n".join(map(printable, told)) + "\n"


def _at(values: Any, row: int, k: int) -> float:
    """One number of a ledger's totals, which are (B,) or (B, K)."""
    value = values[row]
    return float(value[k] if isinstance(value, list) else value)
