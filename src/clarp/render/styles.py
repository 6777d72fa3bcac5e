"""Five ways to look at one map."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from matplotlib.axes import Axes
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from clarp.render.scale import Bytes, Floats, Scale, as_bytes, checked, oddity, paint

Style = Literal["overlay", "heatmap", "contours", "signs", "region"]
STYLES: tuple[Style, ...] = get_args(Style)
"""``overlay``: over the faded photo; ``heatmap``: alone; ``contours``: lines of equal relevance; ``signs``: what speaks for and
what speaks against apart; ``region``: where the most relevant tenth lies."""

REGION = 0.1  # of the pixels
SMOOTHING = 0.02  # sigma in longer sides, TorchRay's for maps with a value per pixel
LEVELS = (0.25, 0.5, 0.75)  # of full colour
GROUND = 0.8  # the middle of the faded greys

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CRISP = 96  # pixels; smaller pictures are shown as the squares that they are


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture.

    Attributes:
        pixels: (H, W, 3) in 0 to 1.
        title: what stands over it, or nothing.
        lines: (H, W), and at which of its values lines are drawn over the picture.
        levels: see ``lines``.
    """

    pixels: Floats
    title: str = ""
    lines: Floats | None = None
    levels: tuple[float, ...] = ()

    def draw(self, axes: Axes) -> None:
        """Fill a rectangle with it."""
        rows, columns = self.pixels.shape[:2]
        interpolation = "nearest" if max(rows, columns) <= _CRISP else "bilinear"
        axes.imshow(self.pixels, interpolation=interpolation, aspect="auto")
        axes.set_axis_off()
        if self.lines is None or min(rows, columns) < 2:
            return
        low, high = self.lines.min(), self.lines.max()
        levels = [level for level in self.levels if low < level < high]
        if levels:
            strong = paint(np.sign(np.array(levels)))
            widths = [0.7 + 1.1 * abs(level) for level in levels]
            axes.contour(self.lines, levels=levels, colors=strong, linewidths=widths, linestyles="solid")
            axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))


@dataclass(frozen=True, eq=False)
class View:
    """A map in one style.

    Attributes:
        panels: one, or two for the signs.
        scale: what the colours mean.
        note: how to read it, a sentence or nothing.
    """

    panels: tuple[Panel, ...]
    scale: Scale
    note: str

    @classmethod
    def of(
        cls, heatmap: ArrayLike, photo: Bytes | None, style: Style = "overlay", scale: Scale | None = None
    ) -> "View":
        """Look at a map.

        Args:
            heatmap: (H, W) relevance.
            photo: (H, W, 3) bytes, RGB, as the model saw it; None: white ground.
            style: one of :data:`STYLES`.
            scale: of several maps :func:`prepared` in this style; None: the map's own.

        Raises:
            ValueError: the heatmap is not (H, W), the photo doesn't fit it, or no such style.
        """
        values = checked(heatmap)
        if style not in STYLES:
            raise ValueError(f"style is {style!r}, expected one of {', '.join(STYLES)}.")
        if photo is not None and (photo.shape != (*values.shape, 3) or photo.dtype != np.uint8):
            raise ValueError(
                f"the photo must be ({values.shape[0]}, {values.shape[1]}, 3) bytes like the heatmap, got {photo.shape} of "
                f"{photo.dtype}."
            )
        shown = prepared(values, style)
        scale = scale or Scale.of(shown)
        strength = scale.strength(shown)
        ground = None if photo is None else faded(photo)
        if style == "overlay":
            return cls((Panel(blend(strength, ground)),), scale, "")
        if style == "heatmap":
            return cls((Panel(paint(strength)),), scale, "")
        if style == "contours":
            return cls(
                (_contours(strength, ground),), scale, f"{_smoothed_by(values)} Lines at {_LEVELS_SAID}."
            )
        if style == "signs":
            return cls(_signs(values, strength, ground), scale, "")
        panel, note = _region(values, shown, photo)
        return cls((panel,), scale, note)


def prepared(heatmap: ArrayLike, style: Style) -> Floats:
    """The map that a style draws, (H, W): smoothed for contours and regions, else the map itself.

    One scale over several maps is the scale of what is drawn:

    >>> maps = np.eye(4), 2 * np.eye(4)
    >>> Scale.of(*(prepared(values, "overlay") for values in maps)).limit
    2.0
    """
    values = checked(heatmap)
    return smoothed(values) if style in {"contours", "region"} else values


def smoothed(heatmap: ArrayLike) -> Floats:
    """A map under a Gaussian of :data:`SMOOTHING`, (H, W), mirrored at the border; what is not finite counts as 0, and stays.

    >>> bool(np.allclose(smoothed(np.full((50, 80), 3.0)), 3.0))
    True
    """
    given = checked(heatmap)
    sigma = SMOOTHING * max(given.shape)
    radius = int(np.ceil(4 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    values = np.where(np.isfinite(given), given, 0.0)
    for axis in (0, 1):
        around = [(radius, radius) if axis == side else (0, 0) for side in (0, 1)]
        padded = np.pad(values, around, mode="symmetric")
        values = sliding_window_view(padded, len(kernel), axis=axis) @ (kernel / kernel.sum())
    return np.where(np.isfinite(given), values, np.nan)


def region(heatmap: ArrayLike, share: float = REGION) -> NDArray[np.bool_]:
    """The most relevant pixels, (H, W): ``share`` of them, of equal ones the first; fewer where fewer speak for the class.

    >>> int(region(np.arange(100.0).reshape(10, 10)).sum())
    10
    """
    values = checked(heatmap)
    ranked = np.where(np.isfinite(values), values, -np.inf).ravel()
    best = np.argsort(-ranked, kind="stable")[: round(share * values.size)]
    chosen = np.zeros(values.size, dtype=np.bool_)
    chosen[best[ranked[best] > 0]] = True
    return chosen.reshape(values.shape)


def faded(photo: Bytes) -> Floats:
    """The photo in pale greys, (H, W, 1) within 0.45 to 1: recognisable, and colours stand out on it."""
    pale: Floats = 0.45 + 0.55 * (photo @ np.array(_LUMA))[..., None] / 255
    return pale


def blend(strength: Floats, ground: Floats | float | None) -> Floats:
    """Relevance over a ground, more or less opaque."""
    painted = paint(strength)
    if ground is None:
        return painted
    share = opacity(strength)[..., None]
    blended: Floats = (1 - share) * ground + share * painted
    return blended


def opacity(strength: Floats) -> Floats:
    """How much of the ground relevance hides: the root of its strength, so that weak relevance is seen; all where not finite."""
    return np.sqrt(np.abs(np.nan_to_num(strength, nan=1.0)))


def layer(heatmap: ArrayLike, scale: Scale) -> Bytes:
    """A map to lay over a photo by other means, (H, W, 4) bytes: colours, and their opacity."""
    strength = scale.strength(heatmap)
    return as_bytes(np.concatenate([paint(strength), opacity(strength)[..., None]], axis=-1))


def _contours(strength: Floats, ground: Floats | None) -> Panel:
    plain = blend(np.where(np.isnan(strength), np.nan, 0.0), 1.0 if ground is None else ground)
    levels = (*(-level for level in reversed(LEVELS)), *LEVELS)
    return Panel(np.broadcast_to(plain, (*strength.shape, 3)), lines=np.nan_to_num(strength), levels=levels)


def _signs(values: Floats, strength: Floats, ground: Floats | None) -> tuple[Panel, Panel]:
    finite = np.where(np.isfinite(values), values, 0.0)
    largest = max(float(np.abs(finite).max()), np.finfo(np.float64).tiny)
    total = float(np.abs(finite / largest).sum())
    panels = []
    for sign, words in ((1, "speaks for"), (-1, "speaks against")):
        part = float((sign * finite / largest).clip(min=0).sum())
        share = f": {part / total:.0%} of |relevance|" if total > 0 else ""
        one_sided = np.where(np.isnan(strength) | (sign * strength > 0), strength, 0.0)
        panels.append(Panel(blend(one_sided, ground), words + share))
    return panels[0], panels[1]


def _region(values: Floats, shown: Floats, photo: Bytes | None) -> tuple[Panel, str]:
    chosen = region(shown)
    ground = np.broadcast_to(1.0 if photo is None else faded(photo), (*values.shape, 3))
    inside = paint(np.zeros(values.shape)) * 0.7 if photo is None else photo / 255
    pixels = np.where(chosen[..., None], inside, ground)
    pixels = np.where(np.isfinite(values)[..., None], pixels, paint(np.array(np.nan)))
    positive = np.where(np.isfinite(values), values, 0.0).clip(min=0)
    largest = positive.max()
    held = (positive * chosen / largest).sum() / (positive / largest).sum() if largest > 0 else 0.0
    note = f"{_smoothed_by(values)} Marked: the most relevant {chosen.mean():.1%} of the pixels"
    note += f", with {held:.0%} of the positive relevance." if largest > 0 else "."
    if chosen.sum() < round(REGION * values.size):
        note += f" Fewer than {REGION:.0%} speak for the class."
    if odd := oddity(values):
        note += f" Note: {odd}."
    return Panel(pixels, lines=chosen.astype(np.float64), levels=(0.5,)), note


def _smoothed_by(values: Floats) -> str:
    return f"Smoothed, sigma {SMOOTHING * max(values.shape):.3g} px."


_LEVELS_SAID = "±" + ", ".join(f"{level:.0%}" for level in LEVELS) + " of full colour"
