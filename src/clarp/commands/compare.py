"""``clarp compare``: one photo, several methods and classes, on one sheet."""

import hashlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.export import ExportedProgram

from clarp import models
from clarp.cache import default_folder
from clarp.commands.explain import classes, device_named
from clarp.commands.manifest import described, drawn_as, finite, head, named, percent
from clarp.commands.notes import lost_in_silence, note, note_lost
from clarp.commands.writing import TOP
from clarp.data.pairs import boxed_photos
from clarp.data.sample import Object, checked_box
from clarp.evaluation.attribution import Attributor, ClarpMethod, attributors, lossy, warnings_of
from clarp.evaluation.metrics import EnergyPointing
from clarp.files import write_atomically
from clarp.geometry import Box, Geometry
from clarp.images import notes_of, open_photo
from clarp.models import Classifier
from clarp.models.logits import Logits
from clarp.network import Network
from clarp.render import Cell, Look, Row, save, sheet
from clarp.render.paper import checked_format
from clarp.render.scale import Scale
from clarp.render.styles import prepared
from clarp.task import Task, TaskName
from clarp.text import document

_SHOWN = 2  # classes, where none is named


@dataclass(frozen=True)
class Request:
    """The arguments of the command, as they were given."""

    photo: Path
    model: str
    weights: Path | None
    labels: Path | None
    output: str | None
    task: TaskName | None
    methods: tuple[str, ...]
    targets: tuple[str, ...]
    against: tuple[str, ...]
    composite: str | None
    boxes: tuple[str, ...]
    look: Look
    out: Path
    device: str | None


def run(request: Request, *, json: bool) -> int:
    """Draw the sheet, write it and its manifest, and say where.

    Returns:
        0.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: something doesn't hold; nothing was written.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext(), lost_in_silence():
        comparison = _Comparison.prepared(request)
        for assumed in (
            *comparison.classifier.notes,
            *comparison.photo_notes,
            *comparison.task.notes,
        ):
            note(assumed)
        drawn = sheet(comparison.rows(), comparison.caption(), aside=comparison.aside(), style=request.look)
        request.out.parent.mkdir(parents=True, exist_ok=True)
        save(drawn, request.out)
        manifest = comparison.manifest()
        text = document(manifest) + "\n"
        write_atomically(request.out.with_suffix(".json"), lambda file: file.write(text.encode()))
        note_lost(lossy(comparison.methods), warnings_of(comparison.methods))
    sys.stdout.write(text if json else f"{request.out}\n{request.out.with_suffix('.json')}\n")
    return 0


@dataclass(frozen=True, eq=False)
class _Comparison:
    """A request whose arguments hold, with the model's answer.

    Attributes:
        image: (C, H, W).
        size: of the photo, (height, width).
        photo_notes: what was assumed to open it.
        task: what the last layer means.
        probabilities: (N,) float64, of N classes.
        targets: K classes, the columns.
        objects: the boxes that were given, in the photo's pixels.
    """

    request: Request
    classifier: Classifier
    methods: tuple[Attributor, ...]
    image: Tensor
    size: tuple[int, int]
    photo_notes: tuple[str, ...]
    task: Task
    probabilities: Tensor
    targets: list[int]
    against: list[int]
    objects: tuple[Object, ...]
    device: torch.device

    @classmethod
    def prepared(cls, request: Request) -> "_Comparison":
        """Check everything, and ask the model."""
        _check_out(request)
        if not request.methods:
            raise ValueError("--methods names none, expected names such as lrp,ssglrp.")
        device = device_named(request.device)
        classifier = models.load(
            request.model, request.weights, request.labels, request.output, task=request.task
        )
        targets, against = classes(classifier, request.targets), classes(classifier, request.against)
        photo, objects = _opened(request, classifier)
        image = classifier.preprocess(photo)
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"{request.photo}: the preprocessing made NaN or infinity of it.")
        module = classifier.module
        model: nn.Module = (module.module() if isinstance(module, ExportedProgram) else module).to(device)
        network = Network(module, cache=default_folder())
        found = attributors(
            request.methods,
            network,
            bounds=classifier.bounds,
            composite=request.composite,
            task=classifier.task,
            image=image,
            device=device,
        )
        methods = tuple(method for method in found if method.name in request.methods)
        logits = Logits.of(model, network, image, classifier.task)
        probabilities = logits.probabilities(image[None].to(device))[0]
        targets = targets or probabilities.topk(min(_SHOWN, len(probabilities))).indices.tolist()
        comparison = cls(
            request,
            classifier,
            tuple(sorted(methods, key=lambda method: request.methods.index(method.name))),
            image,
            (photo.height, photo.width),
            notes_of(photo),
            logits.task,
            probabilities,
            targets,
            against,
            objects,
            device,
        )
        if against and not any(comparison.has_rivals(method) for method in methods):
            raise ValueError(f"--against was given, but none of {', '.join(request.methods)} has rivals.")
        return comparison

    @staticmethod
    def has_rivals(method: Attributor) -> bool:
        """Whether ``--against`` changes its maps."""
        return isinstance(method, ClarpMethod) and method.explainer.method.has_rivals

    @cached_property
    def maps(self) -> list[Tensor]:
        """Of each method (K, H, W) float64 on the CPU; what has no relevance but rounding is zero."""
        found = []
        for method in self.methods:
            if isinstance(method, ClarpMethod):
                against = self.against if self.against and self.has_rivals(method) else None
                explanation = method.explainer(self.image[None], target=[self.targets], against=against)
                explained = explanation.shown[0]
            else:
                images = self.image.to(self.device).expand(len(self.targets), -1, -1, -1)
                ids = [self.request.photo.name] * len(self.targets)
                explained = method(images, torch.tensor(self.targets), ids)
            found.append(explained.detach().double().cpu())
        return found

    @cached_property
    def own_boxes(self) -> list[tuple[Object, ...]]:
        """The boxes of each target."""
        return [tuple(thing for thing in self.objects if target in thing.label) for target in self.targets]

    @cached_property
    def inside(self) -> list[list[tuple[float, float] | None]]:
        """Of each method and target the share of the positive relevance in the target's boxes, and their area."""
        if not self.objects:
            return [[None] * len(self.targets) for _ in self.methods]
        masks = [
            sum((thing.mask(self.size) for thing in own), torch.zeros(self.size)).bool()
            for own in self.own_boxes
        ]
        seen = [self.geometry.mask_to_model(mask) for mask in masks]
        shares = []
        for maps in self.maps:
            rows = EnergyPointing()(None, None, maps, masks=seen)
            pairs = zip(rows["energy"].tolist(), rows["area"].tolist(), strict=True)
            shares.append([(energy, area) if area > 0 else None for energy, area in pairs])
        return shares

    @cached_property
    def geometry(self) -> Geometry:
        """From the photo to the model's pixels."""
        return Geometry.measured(self.classifier.preprocess, self.size)

    def rows(self) -> list[Row]:
        """The sheet's rows."""
        photo = self.classifier.photo(self.image)
        rows = []
        for number, (method, maps, shares) in enumerate(
            zip(self.methods, self.maps, self.inside, strict=True)
        ):
            cells = []
            for k, (target, share) in enumerate(zip(self.targets, shares, strict=True)):
                title = f"{self._label(target)}, {percent(float(self.probabilities[target]))}"
                note = "" if share is None else f"inside {share[0]:.0%} (box {share[1]:.0%})"
                if share is None and self.objects:
                    note = "no box of this class"
                boxes = [self.geometry.box_to_model(thing.box) for thing in self.own_boxes[k] if thing.box]
                cells.append(Cell(maps[k].numpy(), title, note, tuple(box for box in boxes if box)))
            title = method.name.upper() if isinstance(method, ClarpMethod) else method.name
            row = Row(title, photo, tuple(cells), shows_photo=number == 0)
            rows.append(row.versus() if self.request.look.style == "versus" else row)
        return rows

    def caption(self) -> str:
        """Title and small print."""
        lines = [f"{self.request.photo.name} by {Path(self.classifier.name).name}"]
        contrasted = [method.name for method in self.methods if self.has_rivals(method)]
        if contrasted:
            lines.append(f"{', '.join(contrasted)}: each class {self._contrast()}.")
        if self.objects:
            lines.append(
                "Inside: the share of the positive relevance in the class's own boxes; in brackets their share of the picture."
            )
        return "\n".join(lines)

    def _contrast(self) -> str:
        if self.task.name == "binary":
            return "against the other"
        if self.against:
            return f"against {', '.join(self._label(index) for index in self.against)}"
        return "against all others" if self.task.name == "multiclass" else "by itself"

    def aside(self) -> list[str]:
        """What the model says."""
        top = self.probabilities.topk(min(TOP, len(self.probabilities))).indices.tolist()
        found = [f"{self._label(k)}, {percent(float(self.probabilities[k]))}" for k in top]
        return ["The model says:", *found]

    def manifest(self) -> dict[str, Any]:
        """How the sheet was made, and its numbers."""
        request = self.request
        top = self.probabilities.topk(min(TOP, len(self.probabilities))).indices.tolist()

        def name_of(index: int) -> dict[str, Any]:
            return named(self.classifier, self.probabilities, index)

        return {
            **head(self.classifier),
            "task": described(self.task),
            "device": str(self.device),
            "look": drawn_as(request.look),
            "sheet": request.out.name,
            "photo": {
                "file": str(request.photo),
                "sha256": hashlib.sha256(request.photo.read_bytes()).hexdigest(),
                "predictions": [name_of(index) for index in top],
                **({"notes": list(self.photo_notes)} if self.photo_notes else {}),
            },
            "targets": [name_of(target) for target in self.targets],
            "against": [name_of(index) for index in self.against]
            or self.task.unnamed_rivals(any(map(self.has_rivals, self.methods))),
            "boxes": [{"label": t.name, "classes": list(t.label), "box": t.box} for t in self.objects],
            "methods": [self._described(number) for number in range(len(self.methods))],
        }

    def _described(self, number: int) -> dict[str, Any]:
        method, maps, shares = self.methods[number], self.maps[number], self.inside[number]
        scale = Scale.of(*(prepared(heatmap.numpy(), self.request.look) for heatmap in maps))
        return {
            "name": method.name,
            "definition": method.definition,
            "has_rivals": self.has_rivals(method),
            "scale": {
                "peak": scale.peak,
                "full_colour": scale.limit,
                "basis": scale.basis,
                "warning": scale.warning,
            },
            "maps": [
                {
                    "target": target,
                    "empty": not bool(heatmap.any()),
                    "minimum": finite(float(heatmap.min())),
                    "maximum": finite(float(heatmap.max())),
                    "sum": finite(float(heatmap.sum())),
                    "inside": None if share is None else finite(share[0]),
                    "box_area": None if share is None else finite(share[1]),
                }
                for target, heatmap, share in zip(self.targets, maps, shares, strict=True)
            ],
        }

    def _label(self, index: int) -> str:
        return self.classifier.labels[index].replace("_", " ")


def _check_out(request: Request) -> None:
    """Refuse a sheet that would take the place of what it is made of."""
    checked_format(request.out)
    read = {request.photo.resolve(), *(Path(text).resolve() for text in request.boxes)}
    for written in (request.out, request.out.with_suffix(".json")):
        if written.resolve() in read:
            raise ValueError(
                f"--out {request.out} would replace {written}, which is read: give another name."
            )


def _opened(request: Request, classifier: Classifier) -> tuple[Image.Image, tuple[Object, ...]]:
    """The photo and the boxes in its pixels.

    A table of boxes counts the pixels as they are stored, so with one the photo's rotation tag is left alone.
    """
    tables = [text for text in request.boxes if text.endswith(".json")]
    if not tables:
        photo = open_photo(request.photo)
        size = (photo.height, photo.width)
        return photo, tuple(_box(text, classifier, size) for text in request.boxes)
    if len(request.boxes) > 1:
        raise ValueError("--boxes takes one table, or boxes one by one, not both.")
    table = Path(tables[0])
    wanted = request.photo.resolve()
    for sample in boxed_photos(table.parent, table.name):
        if (table.parent / sample.id).resolve() == wanted:
            return sample.image(), sample.objects
    raise ValueError(f"{table} does not list {request.photo}: expected its path below {table.parent}.")


def _box(text: str, classifier: Classifier, size: tuple[int, int]) -> Object:
    """``CLASS:left,top,right,bottom`` in the upright photo's pixels."""
    name, _, edges = text.rpartition(":")
    box = checked_box(_edges(text, edges.split(",")), size)
    index = classifier.class_index(name)
    if isinstance(box, str):
        raise ValueError(f"--boxes {text}: {box}.")  # noqa: TRY004  it says why it is no box
    return Object((index,), classifier.labels[index], box)


def _edges(text: str, parts: Sequence[str]) -> Box:
    try:
        left, top, right, bottom = map(float, parts)
    except ValueError as error:
        raise ValueError(
            f"--boxes {text}: expected CLASS:left,top,right,bottom in pixels, or a table that ends in .json."
        ) from error
    return left, top, right, bottom
