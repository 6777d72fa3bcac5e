"""How good heatmaps are: metrics with one row per image, and controls that every method has to beat."""

from clarp.evaluation import metrics
from clarp.evaluation.controls import CentrePosition, RandomPosition
from clarp.evaluation.metrics import *  # noqa: F403  what it lists is public here too

__all__ = ["CentrePosition", "RandomPosition"]
__all__ += metrics.__all__
