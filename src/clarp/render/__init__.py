"""Pictures of heatmaps."""

from clarp.render.overlay import overlay
from clarp.render.scale import Scale, colours

__all__ = ["Scale", "colours", "overlay"]
