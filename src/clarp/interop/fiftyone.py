"""Maps as heatmaps of FiftyOne's samples."""

from typing import Any

from clarp.explanation import Explanation
from clarp.interop.strength import strengths
from clarp.optional import optional


def heatmaps(explanation: Explanation, limit: float | None = None) -> list[Any]:
    """Each image's map as a ``fiftyone.Heatmap``, a field of a sample.

    Args:
        explanation: of photos whose preprocessing only resizes, one target each. FiftyOne stretches a map
            over the whole photo, so it has no place for what a crop cut away.
        limit: the relevance at and beyond which a value is -1 or 1; None: each map's own.

    Returns:
        Maps within -1 to 1, with that range: 0 is no relevance, 1 speaks for the class in full.

    Raises:
        ValueError: several targets of an image, or no photos.
        ModuleNotFoundError: FiftyOne is not installed.
    """
    if explanation.target.ndim != 1:
        raise ValueError(
            f"target has the shape {tuple(explanation.target.shape)}, expected one class for each image, "
            "(B,)."
        )
    maps = strengths(explanation, limit)
    heatmap = optional("fiftyone", "A heatmap of FiftyOne", None).Heatmap
    return [heatmap(map=one, range=[-1, 1]) for one in maps]
