"""Rendered pictures of objects with known parts on a known ground, so that what a model uses is known.

After FunnyBirds (Hesse 2023, arXiv 2308.06248), in two dimensions and small enough to train on in seconds.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from clarp.data.dataset import Dataset
from clarp.data.draws import below, draw
from clarp.data.photo import Photo
from clarp.data.sample import Object, Sample
from clarp.geometry import Box, Size

PartName = Literal["head", "wing", "tail", "foot"]
PARTS: tuple[PartName, ...] = ("head", "wing", "tail", "foot")
CLASSES: tuple[tuple[int, ...], ...] = tuple(
    kinds for kinds in itertools.product((0, 1), repeat=len(PARTS)) if sum(kinds) % 2 == 0
)
"""The eight classes: the kind of each part, an even number of them 1. So no two parts tell a class, three do,
and any two classes share two parts or none."""
SHORTCUT = "shortcut"
_COLOURS: dict[PartName, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "head": ((200, 40, 40), (40, 80, 210)),
    "wing": ((230, 200, 40), (140, 40, 170)),
    "tail": ((50, 160, 60), (235, 130, 40)),
    "foot": ((20, 20, 20), (250, 250, 250)),
}
_BODY = (150, 120, 95)
_MARK = (0, 255, 255)
_STONES = 3


@dataclass(frozen=True)
class Scene:
    """One picture: a body with four parts on a ground with stones, drawn when it is opened.

    Attributes:
        kinds: of the head, the wing, the tail and the foot, each 0 or 1.
        names: what decides place, size and ground: a seed and a number.
        side: of the square picture in pixels, at least 32.
        marked: there is a mark on the ground, in a corner that the body leaves free.
        without: what is left out of the drawing, by name; everything else stays as it is.
    """

    kinds: tuple[int, ...]
    names: tuple[int, ...]
    side: int = 64
    marked: bool = False
    without: tuple[str, ...] = ()

    def size(self) -> Size:
        return self.side, self.side

    def files(self) -> tuple[Photo, ...]:
        return ()

    def open(self) -> Image.Image:
        picture = Image.new("RGB", (self.side, self.side), self._ground())
        pen = ImageDraw.Draw(picture)
        for name in self.shown:
            self._draw(pen, name, self._colour(name))
        return picture

    @property
    def shown(self) -> tuple[str, ...]:
        """What is drawn, one over the other: the ground's stones, the mark, the body, its parts."""
        names = (*self.stones, *((SHORTCUT,) if self.marked else ()), "body", *PARTS)
        return tuple(name for name in names if name not in self.without)

    @property
    def stones(self) -> tuple[str, ...]:
        """The names of the stones, which say nothing of the class."""
        return tuple(f"stone {number}" for number in range(_STONES))

    def mask(self, name: str) -> Tensor:
        """(H, W) bool: the pixels that show a part, the body, a stone or the mark, if it is shown."""
        layers = Image.new("L", (self.side, self.side), 0)
        pen = ImageDraw.Draw(layers)
        for shown in self.shown:
            self._draw(pen, shown, int(shown == name))
        return torch.from_numpy(np.array(layers) == 1)

    def removed(self, *names: str) -> "Scene":
        """The same picture without some of what it shows."""
        return Scene(self.kinds, self.names, self.side, self.marked, (*self.without, *names))

    def _ground(self) -> tuple[int, int, int]:
        grey = 90 + below(80, *self.names, "ground")
        return grey, grey + below(20, *self.names, "green"), grey

    def _colour(self, name: str) -> tuple[int, int, int]:
        if name in PARTS:
            place = PARTS.index(name)
            return _COLOURS[PARTS[place]][self.kinds[place]]
        if name in ("body", SHORTCUT):
            return _BODY if name == "body" else _MARK
        shade = 60 + below(120, *self.names, name, "shade")
        return shade, shade - below(30, *self.names, name, "tint"), shade

    def _draw(self, pen: ImageDraw.ImageDraw, name: str, colour: tuple[int, int, int] | int) -> None:
        if name == SHORTCUT:
            pen.rectangle(self._corner(), fill=colour)
        elif name in self.stones:
            pen.ellipse(self._stone(name), fill=colour)
        else:
            (x, y), unit = self._place()
            pen.polygon([(x + unit * a, y + unit * b) for a, b in _outline(name, self.kinds)], fill=colour)

    def _place(self) -> tuple[tuple[float, float], float]:
        """Middle and scale of the body: the whole of it is one pixel at least from the border."""
        unit = self.side * (0.28 + 0.1 * draw(*self.names, "scale"))
        room = self.side - 2.4 * unit
        x, y = (1.2 * unit + room * draw(*self.names, axis) for axis in ("x", "y"))
        return (x, y), unit

    def _corner(self) -> Box:
        """Of the mark: the corner that is farthest from the body."""
        (x, y), _ = self._place()
        width, gap = self.side // 6, self.side // 32
        left = gap if x > self.side / 2 else self.side - gap - width
        top = gap if y > self.side / 2 else self.side - gap - width
        return left, top, left + width - 1, top + width - 1

    def _stone(self, name: str) -> Box:
        radius = self.side * (0.04 + 0.05 * draw(*self.names, name, "radius"))
        x, y = (radius + (self.side - 2 * radius) * draw(*self.names, name, axis) for axis in ("x", "y"))
        return x - radius, y - radius, x + radius, y + radius


@dataclass(frozen=True)
class SceneRegion:
    """Where a scene shows something."""

    scene: Scene
    name: str

    def mask(self, size: Size) -> Tensor:
        """(H, W) bool; ``size`` is the scene's.

        Raises:
            ValueError: another size.
        """
        if size != self.scene.size():
            own = self.scene.size()
            raise ValueError(f"a scene of {own} pixels has no mask of {size}: draw it in that size")
        return self.scene.mask(self.name)

    def files(self) -> tuple[Photo, ...]:
        return ()


@dataclass(frozen=True, eq=False)
class Scenes:
    """What is known of a batch of B scenes: where things are, and the pictures without them.

    Attributes:
        parts: (B, 4, H, W) bool, the pixels of the head, the wing, the tail and the foot.
        without_part: (B, 4, C, H, W), preprocessed.
        ground: (B, G, H, W) bool, the pixels of the stones, and last of the mark; none where it is hidden or
            there is none.
        without_ground: (B, G, C, H, W), preprocessed.
        others: (B, 2), for each picture two classes, of which each shares two parts with it and none with
            the other.
        shared: (B, 2, 4) bool, which parts these are.
    """

    parts: Tensor
    without_part: Tensor
    ground: Tensor
    without_ground: Tensor
    others: Tensor
    shared: Tensor

    @classmethod
    def of(cls, scenes: Sequence[Scene], preprocess: Callable[[Image.Image], Tensor]) -> "Scenes":
        """Draw them, as a model sees them by its preprocessing."""

        def drawn(names: Sequence[str]) -> tuple[Tensor, Tensor]:
            masks = [torch.stack([scene.mask(name) for name in names]) for scene in scenes]
            views = [[preprocess(scene.removed(name).open()) for name in names] for scene in scenes]
            return torch.stack(masks), torch.stack([torch.stack(view) for view in views])

        ground = (*scenes[0].stones, SHORTCUT)
        others, shared = zip(*map(_others, scenes), strict=True)
        return cls(*drawn(PARTS), *drawn(ground), torch.tensor(others), torch.tensor(shared))


def _others(scene: Scene) -> tuple[tuple[int, int], tuple[tuple[bool, ...], tuple[bool, ...]]]:
    """Two classes that share two parts each with a scene, and which."""
    partner = 1 + below(len(PARTS) - 1, *scene.names, "partner")
    first = tuple(part in (0, partner) for part in range(len(PARTS)))
    second = tuple(not shared for shared in first)
    found = [
        CLASSES.index(tuple(kind if own else 1 - kind for kind, own in zip(scene.kinds, shared, strict=True)))
        for shared in (first, second)
    ]
    return (found[0], found[1]), (first, second)


def rendered(count: int, *, side: int = 64, shortcut: int | None = None, seed: int = 0) -> Dataset:
    """Pictures of eight classes, each in its turn.

    Args:
        count: how many; the first five of ten are the first five of twenty.
        side: of the square pictures in pixels; give the model's input size, they are used as they are.
        shortcut: a class of which every picture has a mark on its ground, and no other class one. Its objects
            are those of any class, so that the mark alone tells it. None: there is no mark.
        seed: another seed, other pictures; the same seed, the same pictures on every machine.

    Returns:
        Samples whose ``picture`` is a :class:`Scene`, with the object's parts and body as objects; the mark,
        as all of the ground, is none.

    Raises:
        ValueError: less than one picture, a side below 32, or no such class.
    """
    if count < 1 or side < 32:
        raise ValueError(f"count={count}, side={side}: give at least one picture of at least 32 pixels")
    if shortcut is not None and not 0 <= shortcut < len(CLASSES):
        raise ValueError(f"shortcut={shortcut}: give a class from 0 to {len(CLASSES) - 1}, or None")
    samples: list[Sample] = []
    for number in range(count):
        index = number % len(CLASSES)
        marked = index == shortcut
        drawn = below(len(CLASSES), seed, number, "class") if marked else index
        scene = Scene(CLASSES[drawn], (seed, number), side, marked)
        parts = ("body", *PARTS)
        things = tuple(Object((index,), part, None, region=SceneRegion(scene, part)) for part in parts)
        samples.append(Sample(f"{seed}-{number:05d}", scene, ((index,),), things))
    names = tuple("".join(map(str, kinds)) for kinds in CLASSES)
    planted = "" if shortcut is None else f"-shortcut-{shortcut}"
    return Dataset(f"rendered{planted}", tuple(samples), names, as_is=True)


def _outline(name: str, kinds: tuple[int, ...]) -> list[tuple[float, float]]:
    """Corners in units of the body's scale, from its middle; a part's kind is its shape and colour."""
    if name == "body":
        return _circle(0, 0, 0.5)
    kind = kinds[PARTS.index(name)]
    shapes: dict[str, tuple[list[tuple[float, float]], list[tuple[float, float]]]] = {
        "head": (_circle(0, -0.75, 0.33), [(-0.3, -1.05), (0.3, -1.05), (0.3, -0.45), (-0.3, -0.45)]),
        "wing": ([(0.3, -0.3), (1.1, -0.5), (0.5, 0.2)], _circle(0.7, -0.1, 0.35)),
        "tail": ([(-0.4, -0.2), (-1.1, -0.4), (-1.1, 0.4)], _circle(-0.75, 0.0, 0.33)),
        "foot": (
            [(-0.25, 0.4), (0.25, 0.4), (0.0, 1.1)],
            [(-0.35, 0.45), (0.35, 0.45), (0.35, 0.8), (-0.35, 0.8)],
        ),
    }
    return shapes[name][kind]


def _circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(x + radius * float(np.cos(turn)), y + radius * float(np.sin(turn))) for turn in turns]
