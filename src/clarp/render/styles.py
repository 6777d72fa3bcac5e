"""Ways to look at one map, or at the maps of two classes."""

from dataclasses import dataclass

import numpy as np
from contourpy import contour_generator
from numpy.typing import ArrayLike, NDArray

from clarp.render.look import Look
from clarp.render.palette import NOT_FINITE, Bytes, Floats, PaletteName, Pixels, mix, paint
from clarp.render.scale import Scale, as_bytes, checked, oddity
from clarp.render.seen import Seen
from clarp.render.shading import DARKEST, THINNED, blend, faded, opacity, shaded, stripes, unit

REGION = 0.1  # of the pixels
LEVELS = (0.25, 0.5, 0.75)  # of full colour
GROUND = 0.65  # the middle of the faded greys

_DIMMED, _CUT = 0.4, 0.55
CRISP = 96  # pixels; smaller maps are shown as the squares that they are


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture.

    Attributes:
        pixels: (H, W, 3) in 0 to 1.
        title: what stands over it, or nothing.
        lines: polylines over the picture.
    """

    pixels: Pixels
    title: str = ""
    lines: tuple["Line", ...] = ()


@dataclass(frozen=True, eq=False)
class Line:
    """A line over a picture.

    Attributes:
        points: (n, 2), x and y, in pixels of the picture whose centres are whole numbers.
        colour: red, green, blue in 0 to 1.
        weight: in points, on a picture of four inches.
    """

    points: Floats
    colour: tuple[float, float, float]
    weight: float


@dataclass(frozen=True, eq=False)
class View:
    """A map in one style.

    Attributes:
        panels: one, or two for the signs.
        scale: what the colours mean.
        note: how to read it, sentences or nothing.
    """

    panels: tuple[Panel, ...]
    scale: Scale
    note: str

    @classmethod
    def of(
        cls,
        heatmap: ArrayLike,
        photo: Seen | Bytes | None,
        look: Look | str = "overlay",
        scale: Scale | None = None,
        rival: ArrayLike | None = None,
    ) -> "View":
        """Look at a map.

        Args:
            heatmap: (h, w) relevance.
            photo: (h, w, 3) bytes, RGB, as the model saw it; or a photo of any size, and where in it the map
                lies, in which size the panels are; None: white ground.
            look: a look, or the name of a style.
            scale: of several maps :func:`prepared` in this look; None: the map's own.
            rival: (h, w), the second class's map, for the style "versus", and for no other.

        Raises:
            ValueError: a heatmap is not (h, w), the photo doesn't fit it, or no such style.
        """
        values, look = checked(heatmap), Look.of(look)
        if (rival is not None) != (look.style == "versus"):
            raise ValueError(
                "the style versus draws the maps of two classes, and other styles one: give rival= with it "
                "alone."
            )
        seen = Seen.of(photo, values.shape)
        maps = [prepared(part, look) for part in (values, *([] if rival is None else [_like(rival, values)]))]
        scale = scale or Scale.of(*maps)
        squares = look.style == "pixels" or max(values.shape) <= CRISP
        strengths = [seen.placed(scale.strength(part), squares=squares) for part in maps]
        drawing = _Renderer(look, seen, None if seen.photo is None else faded(seen.photo))
        smooth = look.smoothed_by(max(values.shape))
        match look.style:
            case "heatmap":
                return cls((Panel(paint(strengths[0], look.colours)),), scale, smooth)
            case "contours":
                said = f"Lines at {_LEVELS_SAID}."
                return cls((drawing.contours(strengths[0]),), scale, f"{smooth} {said}".strip())
            case "signs":
                return cls(drawing.signs(values, strengths[0]), scale, smooth)
            case "region":
                panel, note = drawing.region(values, maps[0])
                return cls((panel,), scale, f"{smooth} {note}".strip())
            case "versus":
                return cls((drawing.versus(*strengths),), scale, f"{smooth} {_VERSUS_SAID}".strip())
            case _:
                return cls((drawing.over(strengths[0]),), scale, smooth)


def laid(
    heatmap: ArrayLike,
    photo: Seen | Bytes | None,
    look: Look,
    scale: Scale | None = None,
    *,
    rival: ArrayLike | None = None,
    side: int | None = None,
) -> tuple[Seen, View]:
    """The photo and the map over it, in the size in which they are drawn.

    Args:
        heatmap: as of :meth:`View.of`.
        photo: likewise.
        look: how it is drawn.
        scale: likewise.
        rival: likewise.
        side: pixels of the longer side; None: as the look says.

    Raises:
        ValueError: as of :meth:`View.of`.
    """
    values = checked(heatmap)
    seen = Seen.of(photo, values.shape)
    if look.style == "heatmap":
        seen = seen.cropped()
    seen = seen.at(side or look.side(max(seen.size)), squares=max(seen.size) <= CRISP)
    return seen, View.of(values, seen, look, scale, rival)


def photo_panel(seen: Seen) -> Panel | None:
    """The photo itself, with what the model did not see dimmed; None where there is none."""
    return None if seen.photo is None else Panel(seen.framed(unit(seen.photo), _CUT))


@dataclass(frozen=True, eq=False)
class _Renderer:
    """How strengths (H, W), within -1 to 1, are drawn over a ground (H, W, 1)."""

    look: Look
    seen: Seen
    ground: Pixels | None

    def over(self, strength: Pixels) -> Panel:
        """Relevance over the photo."""
        return Panel(self._framed(blend(strength, self.ground, self.look, striped=self.look.striped)))

    def versus(self, first: Pixels, second: Pixels) -> Panel:
        """What speaks for either class: the stronger is the brightness, their difference the hue."""
        one, other = (np.nan_to_num(part).clip(0, 1) for part in (first, second))
        share = opacity(np.maximum(one, other)) * self.look.opacity
        share = np.where((other > one) & stripes(share.shape), THINNED * share, share)[..., None]
        ground = 0.25 if self.ground is None else 0.6 * (self.ground - DARKEST) + 0.05
        blended = (1 - share) * ground + share * mix(one, other)
        missing = np.isnan(first) | np.isnan(second)
        return Panel(self._framed(np.where(missing[..., None], NOT_FINITE, blended)))

    def contours(self, strength: Pixels) -> Panel:
        """Lines of equal relevance on the ground."""
        plain = np.where(np.isnan(strength), np.nan, 0.0)
        pixels = blend(plain, 1.0 if self.ground is None else self.ground, self.look)
        levels = (*(-level for level in reversed(LEVELS)), *LEVELS)
        return Panel(
            self._framed(np.broadcast_to(pixels, (*strength.shape, 3))),
            lines=_lines(np.nan_to_num(strength), levels, self.look.colours),
        )

    def signs(self, values: Floats, strength: Pixels) -> tuple[Panel, Panel]:
        """What speaks for the class, and what speaks against it."""
        finite = np.where(np.isfinite(values), values, 0.0)
        largest = max(float(np.abs(finite).max()), np.finfo(np.float64).tiny)
        total = float(np.abs(finite / largest).sum())
        panels = []
        for sign, words in ((1, "speaks for"), (-1, "speaks against")):
            part = float((sign * finite / largest).clip(min=0).sum())
            share = f": {part / total:.0%} of |relevance|" if total > 0 else ""
            one_sided = np.where(np.isnan(strength) | (sign * strength > 0), strength, 0.0)
            panels.append(
                Panel(
                    self._framed(blend(one_sided, self.ground, self.look, striped=self.look.striped)),
                    words + share,
                )
            )
        return panels[0], panels[1]

    def region(self, values: Floats, shown: Floats) -> tuple[Panel, str]:
        """The photo in colour where the most relevant pixels of the smoothed map lie."""
        chosen = region(shown)
        there = self.seen.placed(chosen.astype(np.float64), squares=True) > 0
        shape = (*self.seen.size, 3)
        ground = np.broadcast_to(1.0 if self.ground is None else self.ground, shape)
        inside = (
            np.broadcast_to(0.7 * paint(np.zeros(1))[0], shape)
            if self.seen.photo is None
            else unit(self.seen.photo)
        )
        pixels = np.where(there[..., None], inside, ground)
        missing = self.seen.placed((~np.isfinite(values)).astype(np.float64), squares=True) > 0
        pixels = np.where(missing[..., None], NOT_FINITE, pixels)
        positive = np.where(np.isfinite(values), values, 0.0).clip(min=0)
        largest = positive.max()
        held = (positive * chosen / largest).sum() / (positive / largest).sum() if largest > 0 else 0.0
        note = f"Marked: the most relevant {chosen.mean():.1%} of the pixels"
        note += f", with {held:.0%} of the positive relevance." if largest > 0 else "."
        if chosen.sum() < round(REGION * values.size):
            note += f" Fewer than {REGION:.0%} speak for the class."
        if odd := oddity(values):
            note += f" Note: {odd}."
        lines = _lines(there.astype(np.float64), (0.5,), self.look.colours)
        return Panel(self._framed(pixels), lines=lines), note

    def _framed(self, pixels: Floats | Pixels) -> Pixels:
        return self.seen.framed(pixels.astype(np.float32, copy=False), _DIMMED)


def prepared(heatmap: ArrayLike, look: Look | str) -> Floats:
    """The map that is drawn, (H, W): smoothed as the look says.

    One scale over several maps is the scale of what is drawn:

    >>> maps = np.eye(4), 2 * np.eye(4)
    >>> Scale.of(*(prepared(values, "pixels") for values in maps)).limit
    2.0
    """
    sigma = Look.of(look).sigma
    return smoothed(heatmap, sigma) if sigma > 0 else checked(heatmap)


def smoothed(heatmap: ArrayLike, share: float) -> Floats:
    """A map under a Gaussian whose sigma is a share of the longer side, (H, W), mirrored at the border.

    What is not finite counts as 0, and stays.

    >>> bool(np.allclose(smoothed(np.full((50, 80), 3.0), 0.02), 3.0))
    True
    """
    given = checked(heatmap)
    sigma = share * max(given.shape)
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    values = np.where(np.isfinite(given), given, 0.0)
    kernel /= kernel.sum()
    for axis in (0, 1):
        around = [(radius, radius) if axis == side else (0, 0) for side in (0, 1)]
        padded, length = np.pad(values, around, mode="symmetric"), values.shape[axis]
        # A sum over the kernel's few values is several times as fast as a product with all windows.
        values = sum(
            weight * (padded[k : k + length] if axis == 0 else padded[:, k : k + length])
            for k, weight in enumerate(kernel.tolist())
        )
    return np.where(np.isfinite(given), values, np.nan)


def region(heatmap: ArrayLike, share: float = REGION) -> NDArray[np.bool_]:
    """The most relevant pixels, (H, W): ``share`` of them, of equal ones the first.

    Fewer where fewer speak for the class.

    >>> int(region(np.arange(100.0).reshape(10, 10)).sum())
    10
    """
    values = checked(heatmap)
    ranked = np.where(np.isfinite(values), values, -np.inf).ravel()
    best = np.argsort(-ranked, kind="stable")[: round(share * values.size)]
    chosen = np.zeros(values.size, dtype=np.bool_)
    chosen[best[ranked[best] > 0]] = True
    return chosen.reshape(values.shape)


def layer(heatmap: ArrayLike, scale: Scale, look: Look | str = "overlay") -> Bytes:
    """A map as a look draws it, to lay over a photo by other means.

    Args:
        heatmap: (h, w) relevance.
        scale: of the map :func:`prepared`.
        look: its colours, opacity, smoothing, and size.

    Returns:
        (H, W, 4) bytes: colours, and their opacity.
    """
    look = Look.of(look)
    values = prepared(heatmap, look)
    squares = look.style == "pixels" or max(values.shape) <= CRISP
    seen = Seen.of(None, values.shape).at(look.side(max(values.shape)), squares=squares)
    strength = seen.placed(scale.strength(values), squares=squares)
    hidden = shaded(strength, look.colours, look.opacity, striped=look.striped)[..., 3:]
    return as_bytes(np.concatenate([paint(strength, look.colours), hidden], axis=-1))


def _like(rival: ArrayLike, values: Floats) -> Floats:
    other = checked(rival)
    if other.shape != values.shape:
        raise ValueError(f"rival is {other.shape}, expected the heatmap's {values.shape}.")
    return other


def _lines(values: Floats, levels: tuple[float, ...], colours: PaletteName) -> tuple[Line, ...]:
    """Lines around where values (H, W) lie above levels of full colour, or below negative ones."""
    if min(values.shape) < 2:
        return ()
    low, high = values.min(), values.max()
    generator = contour_generator(z=values)
    return tuple(
        Line(
            np.asarray(points, dtype=np.float64),
            tuple(paint(np.sign(np.array([level])), colours)[0]),
            0.7 + 1.1 * abs(level),
        )
        for level in levels
        if low < level < high
        for points in generator.lines(level)
    )


_LEVELS_SAID = "±" + ", ".join(f"{level:.0%}" for level in LEVELS) + " of full colour"
_VERSUS_SAID = "The brighter, the more speaks for a class; the hue says for which, and white for both."
