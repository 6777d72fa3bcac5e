"""How a map is drawn: its style, colours, smoothing, opacity and size."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from clarp.render.palette import OF_TWO, PALETTES, PaletteName

Style = Literal["overlay", "pixels", "heatmap", "contours", "signs", "region", "versus"]
"""How a map is drawn: one of :data:`clarp.render.STYLES`."""

STYLES: tuple[Style, ...] = get_args(Style)
"""``overlay``: smoothed, over the photo; ``pixels``: the raw map over the photo; ``heatmap``: the raw map
alone; ``contours``: lines of equal relevance; ``signs``: what speaks for and what speaks against apart;
``region``: where the most relevant tenth lies; ``versus``: two classes at once."""

LEAST, MOST = 448, 1024  # pixels, the longer side of a drawn photo where no size is given
WITH_PHOTO = ("overlay", "pixels", "contours", "signs", "versus")
"""The styles beside whose map the photo stands."""
_SMOOTHING = {"overlay": 0.01, "signs": 0.01, "versus": 0.01, "contours": 0.02, "region": 0.02}
SIZES = (32, 8192)
WIDEST = 0.25  # of the longer side: a wider Gaussian leaves nothing of a map


@dataclass(frozen=True)
class Look:
    """How a map is drawn.

    Attributes:
        style: one of :data:`STYLES`.
        colours: one of :data:`~clarp.render.palette.PALETTES`.
        smoothing: sigma of the Gaussian over the map, as a share of its longer side, 0 to 0.25; 0: none;
            None: the style's own, which is 0.01 for "overlay", "signs" and "versus", 0.02 for "contours" and
            "region" (TorchRay's), and 0 for "pixels" and "heatmap".
        opacity: how much of the photo the strongest relevance hides, 0 to 1.
        size: pixels of the drawn photo's longer side; None: the photo's own, at least 448 and at most 1024.
        caption: whether the photo, the colour bar and words stand with the map; without them the picture is
            the map alone.

    Raises:
        ValueError: a value is not among those.

    >>> Look("contours").sigma, Look("contours", smoothing=0).sigma
    (0.02, 0)
    """

    style: Style = "overlay"
    colours: PaletteName = "vik"
    smoothing: float | None = None
    opacity: float = 1.0
    size: int | None = None
    caption: bool = True

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(f"style is {self.style!r}, expected one of {', '.join(STYLES)}.")
        if self.colours not in PALETTES:
            raise ValueError(f"colours is {self.colours!r}, expected one of {', '.join(PALETTES)}.")
        if self.smoothing is not None and not 0 <= self.smoothing <= WIDEST:  # NaN is caught here too
            raise ValueError(
                f"smoothing is {self.smoothing}, expected a share of the longer side between 0 (none) and "
                f"{WIDEST}; 0.01 is usual."
            )
        if not 0 <= self.opacity <= 1:
            raise ValueError(f"opacity is {self.opacity}, expected a number between 0 and 1.")
        if self.size is not None and not SIZES[0] <= self.size <= SIZES[1]:
            raise ValueError(f"size is {self.size}, expected {SIZES[0]} to {SIZES[1]} pixels.")

    @classmethod
    def of(cls, look: "Look | str") -> "Look":
        """A look, or that of a style.

        Raises:
            ValueError: no such style.
        """
        return look if isinstance(look, Look) else cls(look)  # type: ignore[arg-type]  # checked above

    @property
    def sigma(self) -> float:
        """The smoothing that is drawn, as a share of the map's longer side."""
        return _SMOOTHING.get(self.style, 0.0) if self.smoothing is None else self.smoothing

    @property
    def striped(self) -> bool:
        """Whether what speaks against the class is striped too, so that it is known by more than its hue."""
        return self.style in {"overlay", "signs"}

    @property
    def words(self) -> tuple[str, str]:
        """The names of the colours that speak for and against the class; of "versus", of the two classes."""
        return OF_TWO if self.style == "versus" else PALETTES[self.colours]

    def side(self, own: int) -> int:
        """Pixels of the drawn photo's longer side, from the photo's own."""
        return min(max(own, LEAST), MOST) if self.size is None else self.size

    def smoothed_by(self, longer: int) -> str:
        """What was smoothed of a map with so many pixels, a sentence; or nothing."""
        pixels = self.sigma * longer
        return f"Smoothed, sigma {pixels:.3g} px." if pixels and math.isfinite(pixels) else ""
