"""What a user may pass as bounds: the lowest and the highest pixel after preprocessing, for the z^B rule."""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from clarp.errors import level_of_the_user
from clarp.propagation import Plan
from clarp.rules import Rule, ZBox

BEYOND = 0.1
"""How far pixels may be outside bounds without a word, in units of their range: resampling overshoots."""
Bounds = tuple[float | Sequence[float] | Tensor, float | Sequence[float] | Tensor]


def checked_bounds(bounds: object) -> Bounds | None:
    """What was given, if it can be bounds.

    Raises:
        TypeError: it is no pair.
        ValueError: the lowest is not below the highest, or not a number.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"bounds is {bounds!r}, expected (low, high), each a number or one per channel.")
    ZBox(*bounds)  # the rule's own check
    return bounds[0], bounds[1]


def source(bounds: Bounds | None, plan: Plan) -> str:
    """Where a plan's z^B rule has its bounds from, for people."""
    rules = [step.rule for step in plan if step.reads_pixels and isinstance(step.rule, ZBox)]
    if not rules:
        return "not used"
    given = bounds is not None or any(rule.low is not None for rule in rules)
    return "given" if given else "each image's own minima and maxima per channel"


def limits(
    bounds: Bounds | None, first: Rule | None, images: Tensor, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """The lowest and highest pixels, each (B or 1, C, H, W), or with more axes as the images.

    Args:
        bounds: the explainer's.
        first: the rule of what reads the pixels; the bounds that it has itself count before the explainer's.
        images: (B, C, H, W), or with more axes; where there are no bounds, those of each image.
        channels: the axis of the channels.

    Raises:
        ValueError: bounds for another number of channels, or images that are far outside.
    """
    low, high = ends(bounds, first, images, channels)
    if given_by(bounds, first) is not None:
        _check_within(images, low, high, strictly=isinstance(first, ZBox))
    return low, high


def given_by(bounds: Bounds | None, first: Rule | None) -> Bounds | None:
    """The bounds of the rule of what reads the pixels, else the explainer's, else None."""
    if isinstance(first, ZBox) and first.low is not None and first.high is not None:
        return first.low, first.high
    return bounds


def ends(
    bounds: Bounds | None, first: Rule | None, images: Tensor, channels: int = 1
) -> tuple[Tensor, Tensor]:
    """As :func:`limits`, whatever the images' values.

    Raises:
        ValueError: bounds for another number of channels.
    """
    given = given_by(bounds, first)
    if given is None:
        within = [axis for axis in range(1, images.ndim) if axis != channels]
        low, high = images.amin(within, keepdim=True), images.amax(within, keepdim=True)
        return low.expand_as(images), high.expand_as(images)
    found = []
    for name, end in zip(("low", "high"), given, strict=True):
        values = torch.as_tensor(end, dtype=images.dtype, device=images.device).flatten()
        if values.numel() not in (1, images.shape[channels]):
            raise ValueError(
                f"bounds has {values.numel()} {name} values for images of {images.shape[channels]} "
                "channels, expected one number, or one per channel."
                + (
                    f" The channels are axis {channels} of the images {tuple(images.shape)}."
                    if images.ndim != 4
                    else ""
                )
            )
        shape = [1] * images.ndim
        shape[channels] = -1
        found.append(values.view(shape).expand(1, *images.shape[1:]))
    low, high = found
    return low, high


def _check_within(images: Tensor, low: Tensor, high: Tensor, *, strictly: bool) -> None:
    """Refuse images far outside the bounds; ``strictly``: warn of those that are a little outside."""
    slack = BEYOND * (high - low)
    if bool(((images < 2 * low - high) | (images > 2 * high - low)).any()):
        raise ValueError(
            f"images has values from {images.min().item():.4g} to {images.max().item():.4g}, more than the "
            f"whole range of bounds outside it ({low.min().item():.4g} to {high.max().item():.4g}). Are "
            "both after the same preprocessing?"
        )
    if strictly and bool(((images < low - slack) | (images > high + slack)).any()):
        warnings.warn(
            f"images has values from {images.min().item():.4g} to {images.max().item():.4g}, outside bounds "
            f"({low.min().item():.4g} to {high.max().item():.4g}): the rule for the first layer, z^B, is "
            "then not what it should be. Pass the lowest and the highest value that a pixel can have after "
            "preprocessing.",
            stacklevel=level_of_the_user(),
        )
