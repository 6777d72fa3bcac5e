"""Pictures of heatmaps."""

from clarp.render.figures import figure, overlay
from clarp.render.paper import FORMATS, rasterised, save
from clarp.render.scale import Scale, colours
from clarp.render.sheet import Cell, Row, sheet
from clarp.render.styles import STYLES, Style, layer, prepared

__all__ = [
    "FORMATS",
    "STYLES",
    "Cell",
    "Row",
    "Scale",
    "Style",
    "colours",
    "figure",
    "layer",
    "overlay",
    "prepared",
    "rasterised",
    "save",
    "sheet",
]
