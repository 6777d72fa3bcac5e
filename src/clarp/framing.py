"""Where in its photos a classifier looks, so that maps can be drawn over the whole photo."""

from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from torch import Tensor

from clarp.geometry import Geometry, Size
from clarp.models.classifier import Classifier
from clarp.render import Seen
from clarp.render.palette import Bytes

_ALIKE = 6.0  # of 256 levels, in the mean over the pixels: a photo that is resized by another filter


@dataclass(eq=False)
class Framing:
    """Finds the part of a photo that the model sees.

    A preprocessing is measured once (:meth:`Geometry.measured`, ten runs of it). If its geometry is that of a resize and a centre crop, or of a
    resize to one size, photos of other sizes are taken to be treated alike when their crop looks like what the model got; otherwise each size
    is measured.

    Attributes:
        classifier: whose preprocessing it is.
    """

    classifier: Classifier
    _known: dict[Size, Geometry | None] = field(default_factory=dict, repr=False)
    _rules: dict[str, int | Size] = field(default_factory=dict, repr=False)

    def seen(self, photo: Image.Image, image: Tensor, side: int | None = None) -> Seen:
        """The photo, and the part of it that the model saw.

        Args:
            photo: RGB, as it was given to the preprocessing.
            image: (C, h, w), what the preprocessing made of it.
            side: pixels of the longer side in which the photo is kept, if it has more.

        Returns:
            The whole photo; or what the model saw and nothing else, where that is no part of the photo: the preprocessing turns, warps
            or draws lots.
        """
        got = self.classifier.photo(image)
        size = (photo.height, photo.width)
        found = self._guessed(photo, got) if size not in self._known else self._known[size]
        if found is None and size not in self._known:
            found = self._known[size] = self._measured(size)
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

    def _measured(self, size: Size) -> Geometry | None:
        """The geometry of photos of one size, from which the rules for others are learnt; None where there is none."""
        try:
            found = Geometry.measured(self.classifier.preprocess, size)
        except Exception:  # noqa: BLE001  the user's own preprocessing may raise anything for a picture of greys
            return None
        rules: dict[str, int | Size] = {"shorter side": min(found.resized), "both sides": found.resized}
        fitting = {
            name: resize
            for name, resize in rules.items()
            if Geometry.of(size, resize=resize, crop=found.model) == found
        }
        kept = {name: resize for name, resize in self._rules.items() if fitting.get(name) == resize}
        self._rules = kept if self._known else fitting
        return found

    def _guessed(self, photo: Image.Image, got: Bytes) -> Geometry | None:
        """The geometry by the one rule that fits this photo, if just one does."""
        size = (photo.height, photo.width)
        fitting = {
            geometry
            for resize in self._rules.values()
            if _looks_like(photo, geometry := Geometry.of(size, resize=resize, crop=got.shape[:2]), got)
        }
        return fitting.pop() if len(fitting) == 1 else None


def _looks_like(photo: Image.Image, geometry: Geometry, got: Bytes) -> bool:
    """Whether the crop of a photo is what the model got, but for filters and colours."""
    left, top, right, bottom = geometry.window
    if left < 0 or top < 0 or right > photo.width or bottom > photo.height:
        return False
    crop = photo.resize(got.shape[1::-1], Image.Resampling.BILINEAR, (left, top, right, bottom), 2.0)
    expected, found = (np.asarray(part, dtype=np.float64).mean(-1) for part in (crop, got))
    return float(np.abs(expected - found).mean()) < _ALIKE
