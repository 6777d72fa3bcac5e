"""Relevance over a ground: how a photo fades, and how colours cover it."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from clarp.render.look import Look
from clarp.render.palette import Bytes, Floats, PaletteName, Pixels, paint

DARKEST = 0.3  # of the faded greys
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_POWER = 0.7
_STRIPED = 0.12  # of full colour; weaker relevance against the class is too pale for stripes
THINNED = 0.35  # of the opacity, between the stripes
_STEPS = 2047  # of colour and opacity, from zero to full strength
_NAN = 1 + 1 / _STEPS  # where the table of shades has what is not finite


def faded(photo: Bytes) -> Pixels:
    """The photo in greys, (H, W, 1) within 0.3 to 1, without a colour that could be taken for relevance."""
    weights = np.array(_LUMA, np.float32) * np.float32((1 - DARKEST) / 255)
    pale: Pixels = photo.astype(np.float32) @ weights[:, None] + np.float32(DARKEST)
    return pale


def unit(photo: Bytes) -> Pixels:
    """Bytes as colours in 0 to 1."""
    return photo * np.float32(1 / 255)


def blend(
    strength: Floats | Pixels,
    ground: Pixels | float | None,
    look: Look | None = None,
    *,
    striped: bool = False,
) -> Pixels:
    """Relevance over a ground, more or less opaque, (H, W, 3).

    Args:
        strength: (H, W) within -1 to 1, or NaN.
        ground: (H, W, 1) or a grey, in 0 to 1; None: the neutral colour.
        look: colours and opacity; None: the usual ones.
        striped: whether what speaks against the class is striped, so that it is known by more than its hue.
    """
    look = look or Look()
    painted = shaded(strength, look.colours, None if ground is None else look.opacity, striped=striped)
    behind = paint(np.zeros(1), look.colours)[0] if ground is None else np.atleast_1d(np.float32(ground))
    colours, seen = painted[..., :3], 1 - painted[..., 3]
    for k in range(3):  # numpy is slow along an axis of three
        colours[..., k] += seen * behind[..., min(k, behind.shape[-1] - 1)]
    return colours


def opacity(strength: Floats | Pixels) -> Floats | Pixels:
    """How much of the ground relevance hides: its strength to the power of 0.7; all where not finite."""
    return np.abs(np.nan_to_num(strength, nan=1.0)) ** _POWER


def shaded(
    strength: Floats | Pixels, colours: PaletteName, opacity: float | None, *, striped: bool
) -> Pixels:
    """Colours times their opacity, and the opacity, (H, W, 4).

    Args:
        strength: (H, W) within -1 to 1, or NaN.
        colours: their names.
        opacity: at full strength; None: nothing of the ground is seen but through stripes.
        striped: whether there are stripes where relevance speaks against the class.
    """
    plain, thinned = _shades(colours, opacity)
    # One look-up for each pixel: powers and products of a whole photo take several times as long.
    index = np.rint((np.nan_to_num(strength, nan=_NAN) + 1) * _STEPS).astype(np.int32)
    if not striped:
        return plain.take(index, axis=0)
    index += np.where(stripes(strength.shape), len(plain), 0).astype(np.int32)
    return np.concatenate([plain, thinned]).take(index, axis=0)


# The opacity may be any number that a request names, so few are kept.
@lru_cache(maxsize=8)
def _shades(colours: PaletteName, opaque: float | None) -> tuple[Pixels, Pixels]:
    """What :func:`shaded` gives of evenly spaced strengths and of NaN, (n, 4); the same between stripes."""
    strength = np.append(np.arange(-_STEPS, _STEPS + 1) / _STEPS, np.nan)
    share = np.ones(len(strength)) if opaque is None else opacity(strength) * opaque
    share[-1] = 1.0
    between = np.where(strength < -_STRIPED, THINNED * share, share)
    painted = paint(strength, colours)
    plain, thinned = (
        np.column_stack([painted * part[:, None], part]).astype(np.float32) for part in (share, between)
    )
    return plain, thinned


def stripes(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Where diagonal stripes are thinned out, (H, W)."""
    period = max(4, round(max(shape) / 60))
    row = np.arange(shape[0] + shape[1] - 1) % period < 0.45 * period
    return np.lib.stride_tricks.sliding_window_view(row, shape[1])
