"""Maps as numbers within -1 to 1, for tools that colour them themselves."""

import numpy as np
from numpy.typing import NDArray

from clarp.explanation import Explanation
from clarp.render import Scale


def strengths(explanation: Explanation, limit: float | None = None) -> NDArray[np.float32]:
    """Each map in units of the relevance that clarp's own pictures draw in full colour.

    Args:
        explanation: of photos.
        limit: the relevance at and beyond which a value is -1 or 1, one for all maps; None: for each map the
            one that :meth:`clarp.render.Scale.of` chooses.

    Returns:
        (B, H, W) or (B, K, H, W), as the heatmap: 0 is no relevance, 1 speaks for the class in full.

    Raises:
        ValueError: the images are no photos, or the limit is not above zero.
    """
    if limit is not None and not limit > 0:
        raise ValueError(f"limit is {limit!r}, expected relevance above zero, or None for each map's own.")
    maps = explanation.shown.detach().double().cpu().numpy()
    if explanation.images.ndim != 4:
        raise ValueError(
            f"images has the shape {tuple(explanation.images.shape)}, and this tool takes maps of photos, "
            "expected (B, C, H, W)."
        )
    flat = maps.reshape(-1, *maps.shape[-2:])
    scales = (Scale.of(one) if limit is None else Scale(limit, "given", "") for one in flat)
    drawn = [scale.strength(one) for scale, one in zip(scales, flat, strict=True)]
    return np.asarray(drawn, dtype=np.float32).reshape(maps.shape)
