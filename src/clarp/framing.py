"""Where in its photos a classifier looks, so that maps can be drawn over the whole photo."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from PIL import Image
from torch import Tensor

from clarp.geometry import Geometry, Size
from clarp.models.classifier import Classifier
from clarp.render import Seen
from clarp.render.palette import Bytes

_ALIKE = 6.0  # of 256 levels, in the mean over the pixels: a photo that is resized by another filter
_TRIED = ((331, 487), (487, 331))  # (height, width) of pictures of which the geometry is measured
_REMEMBERED = 1000  # sizes of photos, so that a server that runs for long does not fill up
_MEASURED = 2_000_000  # pixels; larger photos take too long to be measured each for itself

Resize = int | Size | None


@dataclass(eq=False)
class Framing:
    """Finds the part of a photo that the model sees.

    The preprocessing is measured on two small pictures (:meth:`Geometry.measured`). If it resizes the shorter
    side, or to one size, or not at all, and cuts the middle, it is taken to do so with every photo whose
    middle looks like what the model got; other photos are measured, if they are not too large.

    Attributes:
        classifier: whose preprocessing it is.
    """

    classifier: Classifier
    _known: dict[Size, Geometry | None] = field(default_factory=dict, repr=False)

    def seen(self, photo: Image.Image, image: Tensor, side: int | None = None) -> Seen:
        """The photo, and the part of it that the model saw.

        Args:
            photo: RGB, as it was given to the preprocessing.
            image: (C, h, w), what the preprocessing made of it.
            side: pixels of the longer side in which the photo is kept, if it has more.

        Returns:
            The whole photo; or what the model saw and nothing else, where that is no part of the photo (the
            preprocessing turns, warps or draws lots), or none that could be found.
        """
        got = self.classifier.photo(image)
        size = (photo.height, photo.width)
        found = self._by_rule(photo, got) or self._by_itself(size)
        if found is None or found.model != got.shape[:2]:
            return Seen.of(got, got.shape[:2])
        factor = 1.0 if side is None else min(1.0, side / max(size))
        if factor < 1:
            smaller = (max(1, round(factor * photo.width)), max(1, round(factor * photo.height)))
            photo = photo.resize(smaller, Image.Resampling.LANCZOS, reducing_gap=2.0)
        x, y = photo.width / size[1], photo.height / size[0]
        left, top, right, bottom = found.window
        return Seen(
            np.asarray(photo), (left * x, top * y, right * x, bottom * y), (photo.height, photo.width)
        )

    @cached_property
    def _rules(self) -> tuple[Resize, ...]:
        """The ways to resize that give what was measured on both pictures."""
        measured = [found for size in _TRIED if (found := self._measured(size))]
        if len(measured) < len(_TRIED):
            return ()
        first = measured[0]
        ways: tuple[Resize, ...] = (min(first.resized), first.resized, None)
        return tuple(
            way
            for way in ways
            if all(Geometry.of(found.original, resize=way, crop=found.model) == found for found in measured)
        )

    def _by_rule(self, photo: Image.Image, got: Bytes) -> Geometry | None:
        """The geometry by the rule that fits this photo, if one does and no other."""
        size = (photo.height, photo.width)
        ways = {Geometry.of(size, resize=way, crop=(got.shape[0], got.shape[1])) for way in self._rules}
        fitting = [geometry for geometry in ways if _looks_like(photo, geometry, got)]
        return fitting[0] if len(fitting) == 1 else None

    def _by_itself(self, size: Size) -> Geometry | None:
        """The geometry of photos of one size, measured once."""
        if size not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[size] = self._measured(size) if size[0] * size[1] <= _MEASURED else None
        return self._known[size]

    def _measured(self, size: Size) -> Geometry | None:
        try:
            return Geometry.measured(self.classifier.preprocess, size)
        except Exception:  # noqa: BLE001  the user's own preprocessing may raise anything
            return None


def _looks_like(photo: Image.Image, geometry: Geometry, got: Bytes) -> bool:
    """Whether the crop of a photo is what the model got, but for filters and colours."""
    left, top, right, bottom = geometry.window
    inside = (max(left, 0.0), max(top, 0.0), min(right, photo.width), min(bottom, photo.height))
    x, y = geometry.model[1] / (right - left), geometry.model[0] / (bottom - top)
    place = [round((inside[k] - (left, top)[k % 2]) * (x, y)[k % 2]) for k in range(4)]
    shown = got[place[1] : place[3], place[0] : place[2]]
    if shown.size == 0:
        return False
    crop = photo.resize(shown.shape[1::-1], Image.Resampling.BILINEAR, inside, 2.0)
    expected, found = (np.asarray(part, dtype=np.float64).mean(-1) for part in (crop, shown))
    return float(np.abs(expected - found).mean()) < _ALIKE
