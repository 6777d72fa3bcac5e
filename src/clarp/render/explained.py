"""The pictures and files of an explanation."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from clarp.files import slug, write_atomically
from clarp.render.canvas import picture
from clarp.render.encoding import encoded
from clarp.render.look import Look, Style
from clarp.render.montage import Montage
from clarp.render.notebook import table
from clarp.render.palette import Bytes, Floats
from clarp.render.scale import Scale, colours
from clarp.render.seen import Seen
from clarp.render.sheet import Cell, Row, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from clarp.explanation import Explanation

RIVALS = 3
"""How many rivals a title names."""


@dataclass(frozen=True, eq=False)
class Drawable:
    """An explanation with its maps as flat pictures.

    Attributes:
        explanation: what is drawn.
        classes: the targets of each image.
        maps: (B, K, ...), without those that are only rounding.
        montage: how a map becomes flat.
    """

    explanation: "Explanation"
    classes: list[list[int]]
    maps: Floats
    montage: Montage

    @classmethod
    def of(cls, explanation: "Explanation") -> "Drawable":
        """With the maps on the CPU in float64."""
        shown = explanation.shown.detach().double().cpu().numpy()
        maps = shown if explanation.target.ndim == 2 else shown[:, None]
        montage = Montage.of(
            maps.reshape(-1, *maps.shape[2:]), "views" if explanation.channels == 2 else "slices"
        )
        classes: list[list[int]] = explanation.target.view(len(maps), -1).tolist()
        return cls(explanation, classes, maps, montage)

    def figure(self, style: Look | Style, *, one_scale: bool) -> "Figure":
        """See :meth:`clarp.Explanation.plot`."""
        look = Look.of(style)
        rows = self._rows(16, 8, look)
        if look.style == "versus":
            rows = [row.versus() for row in rows]
        caption = f"{self._caption(16, 8)}\n{self.montage.note(look)}".strip()
        return sheet(rows, caption, style=self.montage.look(look), one_scale=one_scale)

    def html(self) -> str:
        """The first 8 images with their first 4 heatmaps, for a notebook."""
        look = Look()
        caption = ". ".join(filter(None, (self._caption(8, 4), self.montage.note(look))))
        return table(self._rows(8, 4, look), caption, self.montage.look(look))

    def pictures(self, scale: Scale) -> list[list[Image.Image]]:
        """Every map over its image, by image and target, without words, and all on one scale."""
        look = self.montage.look(Look(caption=False))
        return [
            [picture(self.montage.map(one, look), self._photo(i), "", look, scale=scale) for one in own]
            for i, own in enumerate(self.maps)
        ]

    def save(self, folder: Path) -> Path:
        """See :meth:`clarp.Explanation.save`."""
        explanation = self.explanation
        folder.mkdir(parents=True, exist_ok=True)
        layers = {name: f"layer-{name}.npy" for name in explanation.layers}
        arrays = {"relevance.npy": explanation.relevance}
        for name, value in (arrays | {layers[name]: explanation.layers[name] for name in layers}).items():
            write_atomically(folder / name, _array(value))
        entries = [
            self._save_map(folder, i, k) for i, own in enumerate(self.classes) for k in range(len(own))
        ]
        manifest = {
            **explanation.describe(),
            "relevance": "relevance.npy",
            "layers": layers,
            "explanations": entries,
        }
        path = folder / "manifest.json"
        _write(path, f"{json.dumps(manifest, indent=2)}\n".encode())
        return path

    def _save_map(self, folder: Path, i: int, k: int) -> dict[str, Any]:
        """Draw the map of one target, and return its part of the manifest."""
        explanation, look, target = self.explanation, Look(), self.classes[i][k]
        label, remark = explanation.label(target), explanation.remark(i, k)
        name = f"{i:04d}-class{target}" + ("" if explanation.labels is None else f"-{slug(label)}")
        made = [self._title(i, target), explanation.method.name, explanation.model, remark]
        caption = "\n".join(filter(None, [", ".join(filter(None, made)), self.montage.note(look)]))
        heatmap = self.montage.map(self.maps[i, k], look)
        pictures = {
            "heatmap": Image.fromarray(colours(self.montage.map(self.maps[i, k]))),
            "overlay": picture(heatmap, self._photo(i), caption, self.montage.look(look)),
        }
        files = {kind: f"{name}-{kind}.png" for kind in pictures}
        for kind, drawn in pictures.items():
            _write(folder / files[kind], encoded(drawn))
        return {
            "image": i,
            "target": target,
            "label": label,
            "probability": explanation.probabilities[i, target].item(),
            "empty": bool(explanation.empty.view(len(self.classes), -1)[i, k]),
            "remark": remark,
            **files,
        }

    def _rows(self, images: int, targets: int, look: Look) -> list[Row]:
        """The first images with their first heatmaps."""
        rows = []
        for i, own in enumerate(self.classes[:images]):
            cells = tuple(
                Cell(
                    self.montage.map(self.maps[i, k], look),
                    self._title(i, target),
                    self.explanation.remark(i, k),
                )
                for k, target in enumerate(own[:targets])
            )
            rows.append(Row(f"image {i}", self._photo(i), cells))
        return rows

    def _photo(self, i: int) -> Seen | Bytes | None:
        """What the maps of an image are drawn over."""
        explanation = self.explanation
        if explanation.photos is not None:
            return explanation.photos[i]
        image = explanation.images[i].movedim(explanation.channels - 1, 0)
        return self.montage.photo(image.detach().double().cpu().numpy())

    def _title(self, i: int, target: int) -> str:
        """The class, its probability, and the rivals that were named."""
        explanation, against = self.explanation, self.explanation.against
        title = f"{explanation.label(target)} ({explanation.probabilities[i, target].item():.1%})"
        if against is None:
            return title
        named = against[i] if against.ndim == 2 else against.view(-1)
        rivals = [explanation.label(k) for k in named.tolist() if k != target]
        return f"{title} against {', '.join(rivals[:RIVALS])}{' ...' if len(rivals) > RIVALS else ''}"

    def _caption(self, images: int, targets: int) -> str:
        """What is explained, and how much of it is left out."""
        method, found = self.explanation.method, self.maps.shape[:2]
        left_out = [
            f"the first {limit} of {number} {what}"
            for number, limit, what in zip(found, (images, targets), ("images", "targets"), strict=True)
            if number > limit
        ]
        return ", ".join(
            [f"{method.name.upper()} ({method.rules.name}), {self.explanation.model}", *left_out]
        )


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def _array(value: Tensor) -> Callable[[BinaryIO], object]:
    """Writes a tensor as ``.npy``, in a type that numpy has."""
    plain = value.float() if value.dtype == torch.bfloat16 else value
    array = plain.detach().cpu().numpy()
    return lambda file: np.save(file, array)
