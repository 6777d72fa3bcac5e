"""How good heatmaps are: metrics with one row per image, and controls that every method has to beat."""

from clarp.evaluation import metrics
from clarp.evaluation.controls import CentrePosition, Pooling, RandomPosition
from clarp.evaluation.metrics import *  # noqa: F403  what it lists is public here too

__all__ = ["CentrePosition", "Pooling", "RandomPosition"]
__all__ += metrics.__all__
