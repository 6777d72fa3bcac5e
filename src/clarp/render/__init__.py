"""Pictures of heatmaps."""

from clarp.render.canvas import picture, tiles
from clarp.render.figures import figure
from clarp.render.look import STYLES, Look, Style
from clarp.render.palette import PALETTES
from clarp.render.paper import FORMATS, rasterised, save
from clarp.render.scale import Scale, colours
from clarp.render.seen import Seen
from clarp.render.sheet import Cell, Row, sheet
from clarp.render.styles import layer, prepared

__all__ = [
    "FORMATS",
    "PALETTES",
    "STYLES",
    "Cell",
    "Look",
    "Row",
    "Scale",
    "Seen",
    "Style",
    "colours",
    "figure",
    "layer",
    "picture",
    "prepared",
    "rasterised",
    "save",
    "sheet",
    "tiles",
]
