"""``clarp compare``: one photo, several methods and classes, on one sheet."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from clarp.commands.notes import lost_in_silence, note, note_lost
from clarp.data.pairs import boxed_photos
from clarp.data.sample import Object, checked_box
from clarp.evaluation.attribution import Attributor, ClarpMethod, lossy, warnings_of
from clarp.evaluation.metrics import EnergyPointing
from clarp.files import file_sha256
from clarp.geometry import Box, Geometry
from clarp.images import notes_of, open_photo
from clarp.manifest import class_entry, finite, head, look_entry, percent, scale_entry, task_entry, top, write
from clarp.maps import PhotoMaps
from clarp.models import Classifier
from clarp.render import Cell, Look, Row, Scale, prepared, save, sheet
from clarp.render.paper import checked_format
from clarp.session import Session
from clarp.task import Task

_SHOWN = 2  # classes, where none is named
_INSIDE = (
    "Inside: the share of the positive relevance in the class's own boxes; in brackets their share of the "
    "picture."
)


def run(
    photo: Path,
    load: Callable[[], Session],
    *,
    methods: Sequence[str],
    targets: Sequence[str],
    against: Sequence[str],
    composite: str | None,
    boxes: Sequence[str],
    look: Look,
    out: Path,
    json: bool,
) -> int:
    """Draw the sheet, write it and its manifest, and say where.

    ``load`` makes the session when it is needed; the other arguments are those of the command line.

    Returns:
        0.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: something doesn't hold; nothing was
            written.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext(), lost_in_silence():
        _check_out(photo, boxes, out)
        if not methods:
            raise ValueError("--methods names none, expected names such as lrp,ssglrp.")
        session = load()
        chosen, rivals = session.classes(targets), session.classes(against)
        opened, objects = _opened(photo, boxes, session.classifier)
        image = session.classifier.preprocess(opened)
        if not bool(torch.isfinite(image).all()):
            raise ValueError(f"{photo}: the preprocessing made NaN or infinity of it.")
        attributors = session.attributors(methods, image, composite)
        probabilities = session.probabilities(image)
        if rivals and not any(map(_has_rivals, attributors)):
            raise ValueError(f"--against was given, but none of {', '.join(methods)} has rivals.")
        size, notes = (opened.height, opened.width), notes_of(opened)
        chosen = chosen or top(probabilities, _SHOWN)
        comparison = _Comparison(
            session, photo, image, size, probabilities, attributors, chosen, rivals, objects, look
        )
        for assumed in (*session.classifier.notes, *notes, *comparison.task.notes):
            note(assumed)
        drawn = sheet(comparison.rows(), comparison.caption(), aside=comparison.aside(), style=look)
        out.parent.mkdir(parents=True, exist_ok=True)
        save(drawn, out)
        text = write(comparison.manifest(notes, out), out.with_suffix(".json"))
        note_lost(lossy(attributors), warnings_of(attributors))
    sys.stdout.write(text if json else f"{out}\n{out.with_suffix('.json')}\n")
    return 0


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Methods and classes of a photo whose arguments hold, with the model's answer.

    Attributes:
        session: with the model.
        file: the photo's.
        image: (C, H, W).
        size: of the photo, (height, width).
        probabilities: (N,) float64, of N classes.
        attributors: the rows.
        targets: K classes, the columns.
        against: the rivals; empty: those of the task.
        objects: the boxes that were given, in the photo's pixels.
        look: how maps are drawn.
    """

    session: Session
    file: Path
    image: Tensor
    size: tuple[int, int]
    probabilities: Tensor
    attributors: tuple[Attributor, ...]
    targets: list[int]
    against: list[int]
    objects: tuple[Object, ...]
    look: Look

    @property
    def task(self) -> Task:
        return self.session.logits(self.image).task

    @cached_property
    def heatmaps(self) -> list[Tensor]:
        """Of each method (K, H, W) float64 on the CPU; what has no relevance but rounding is zero."""
        return [found.shown.detach().double().cpu() for found in self.maps]

    @cached_property
    def maps(self) -> list[PhotoMaps]:
        """Of each method, with what is said of its maps."""
        return [
            self.session.maps(attributor, self.image, self.targets, self.against, self.file.name)
            for attributor in self.attributors
        ]

    @cached_property
    def remarks(self) -> list[str]:
        """What a reader of the sheet must know of single maps, a sentence each."""
        return [
            f"{found.method}, {self._label(target)}: {remark}"
            for found in self.maps
            for k, target in enumerate(self.targets)
            if not found.empty[k] and (remark := found.remark(k))
        ]

    @cached_property
    def boxed(self) -> list[tuple[Object, ...]]:
        return [tuple(thing for thing in self.objects if target in thing.label) for target in self.targets]

    @cached_property
    def inside(self) -> list[list[tuple[float, float] | None]]:
        """Of each method and target the share of the positive relevance in its boxes, and their area."""
        if not self.objects:
            return [[None] * len(self.targets) for _ in self.attributors]
        masks = [
            sum((thing.mask(self.size) for thing in own), torch.zeros(self.size)).bool() for own in self.boxed
        ]
        seen = [self.geometry.mask_to_model(mask) for mask in masks]
        found = []
        for heatmaps in self.heatmaps:
            rows = EnergyPointing()(None, None, heatmaps, masks=seen)
            pairs = zip(rows["energy"].tolist(), rows["area"].tolist(), strict=True)
            found.append([(energy, area) if area > 0 else None for energy, area in pairs])
        return found

    @cached_property
    def geometry(self) -> Geometry:
        return Geometry.measured(self.session.classifier.preprocess, self.size)

    def rows(self) -> list[Row]:
        photo = self.session.classifier.photo(self.image)
        rows = []
        for number, (attributor, heatmaps, inside) in enumerate(
            zip(self.attributors, self.heatmaps, self.inside, strict=True)
        ):
            cells = []
            for k, (target, share) in enumerate(zip(self.targets, inside, strict=True)):
                note = "" if share is None else f"inside {share[0]:.0%} (box {share[1]:.0%})"
                if share is None and self.objects:
                    note = "no box of this class"
                boxes = [self.geometry.box_to_model(thing.box) for thing in self.boxed[k] if thing.box]
                cells.append(
                    Cell(heatmaps[k].numpy(), self._said(target), note, tuple(box for box in boxes if box))
                )
            name = attributor.name
            title = name.upper() if isinstance(attributor, ClarpMethod) else name
            row = Row(title, photo, tuple(cells), shows_photo=number == 0)
            rows.append(row.versus() if self.look.style == "versus" else row)
        return rows

    def caption(self) -> str:
        """Title and small print."""
        lines = [f"{self.file.name} by {Path(self.session.classifier.name).name}"]
        contrasted = [attributor.name for attributor in self.attributors if _has_rivals(attributor)]
        if contrasted:
            lines.append(f"{', '.join(contrasted)}: each class {self._contrast()}.")
        lines += [_INSIDE] if self.objects else []
        return "\n".join([*lines, *self.remarks])

    def _contrast(self) -> str:
        if self.task.name == "binary":
            return "against the other"
        if self.against:
            return f"against {', '.join(map(self._label, self.against))}"
        return "against all others" if self.task.name == "multiclass" else "by itself"

    def aside(self) -> list[str]:
        return ["The model says:", *map(self._said, top(self.probabilities))]

    def manifest(self, notes: Sequence[str], out: Path) -> dict[str, Any]:
        """How the sheet at ``out`` was made, and its numbers; ``notes`` are of the photo."""
        session = self.session

        def entries(classes: Sequence[int]) -> list[dict[str, Any]]:
            return [class_entry(session.classifier, self.probabilities, index) for index in classes]

        return {
            **head(session.classifier),
            "task": task_entry(self.task),
            "device": str(session.device),
            "look": look_entry(self.look),
            "sheet": out.name,
            "photo": {
                "file": str(self.file),
                "sha256": file_sha256(self.file),
                "predictions": entries(top(self.probabilities)),
                **({"notes": list(notes)} if notes else {}),
            },
            "targets": entries(self.targets),
            "against": entries(self.against)
            or self.task.unnamed_rivals(any(map(_has_rivals, self.attributors))),
            "boxes": [{"label": t.name, "classes": list(t.label), "box": t.box} for t in self.objects],
            "methods": [self._method(number) for number in range(len(self.attributors))],
        }

    def _method(self, number: int) -> dict[str, Any]:
        attributor, heatmaps, maps = self.attributors[number], self.heatmaps[number], self.maps[number]
        scale = Scale.of(*(prepared(heatmap.numpy(), self.look) for heatmap in heatmaps))
        return {
            "name": attributor.name,
            "definition": attributor.definition,
            "has_rivals": _has_rivals(attributor),
            "scale": scale_entry(scale),
            "maps": [
                {
                    "target": target,
                    "empty": not bool(heatmap.any()),
                    "remark": maps.remark(k),
                    "minimum": finite(float(heatmap.min())),
                    "maximum": finite(float(heatmap.max())),
                    "sum": finite(float(heatmap.sum())),
                    "inside": None if share is None else finite(share[0]),
                    "box_area": None if share is None else finite(share[1]),
                }
                for k, (target, heatmap, share) in enumerate(
                    zip(self.targets, heatmaps, self.inside[number], strict=True)
                )
            ],
        }

    def _label(self, index: int) -> str:
        return self.session.classifier.labels[index].replace("_", " ")

    def _said(self, index: int) -> str:
        return f"{self._label(index)}, {percent(float(self.probabilities[index]))}"


def _has_rivals(attributor: Attributor) -> bool:
    """Whether ``--against`` changes its maps."""
    return isinstance(attributor, ClarpMethod) and attributor.explainer.method.has_rivals


def _check_out(photo: Path, boxes: Sequence[str], out: Path) -> None:
    """Refuse a sheet that would take the place of what it is made of."""
    checked_format(out)
    read = {photo.resolve(), *(Path(text).resolve() for text in boxes)}
    for written in (out, out.with_suffix(".json")):
        if written.resolve() in read:
            raise ValueError(f"--out {out} would replace {written}, which is read: give another name.")


def _opened(
    file: Path, boxes: Sequence[str], classifier: Classifier
) -> tuple[Image.Image, tuple[Object, ...]]:
    """The photo and the boxes in its pixels.

    A table of boxes counts the pixels as they are stored, so with one the photo's rotation tag is left alone.
    """
    tables = [text for text in boxes if text.endswith(".json")]
    if not tables:
        photo = open_photo(file)
        return photo, tuple(_box(text, classifier, (photo.height, photo.width)) for text in boxes)
    if len(boxes) > 1:
        raise ValueError("--boxes takes one table, or boxes one by one, not both.")
    table = Path(tables[0])
    for sample in boxed_photos(table.parent, table.name):
        if (table.parent / sample.id).resolve() == file.resolve():
            return sample.image(), sample.objects
    raise ValueError(f"{table} does not list {file}: expected its path below {table.parent}.")


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
        left, top_edge, right, bottom = map(float, parts)
    except ValueError as error:
        raise ValueError(
            f"--boxes {text}: expected CLASS:left,top,right,bottom in pixels, or a table that ends in .json."
        ) from error
    return left, top_edge, right, bottom
