"""The metrics: small frozen dataclasses, called as ``metric(model, images, maps, targets=..., **truth)``."""

from clarp.evaluation.metrics.apart import Apart, DiFull
from clarp.evaluation.metrics.base import Direction, Metric, Model, Rows
from clarp.evaluation.metrics.comparison import Attribute, ClassSensitivity, ParameterRandomisation
from clarp.evaluation.metrics.curves import AOPC, Deletion, Insertion
from clarp.evaluation.metrics.localisation import (
    EnergyPointing,
    GridPointingGame,
    RelevanceRankAccuracy,
    StrictPointing,
)
from clarp.evaluation.metrics.masking import PatchMasking
from clarp.evaluation.metrics.parts import (
    BackgroundIndependence,
    ShortcutNamed,
    SingleDeletion,
    TargetSensitivity,
)
from clarp.evaluation.metrics.perturbation import Cover, Fill, mean_image, probabilities
from clarp.evaluation.metrics.pointing import PointingGame, mean_over_classes
from clarp.evaluation.metrics.removal import ROAD, SRG
from clarp.evaluation.metrics.signs import SignedEffect
from clarp.evaluation.metrics.sparseness import Sparseness
from clarp.evaluation.metrics.stability import Explain, MaxSensitivity

METRICS: dict[str, type[Metric]] = {
    metric.name: metric
    for metric in (
        PatchMasking,
        PointingGame,
        StrictPointing,
        EnergyPointing,
        GridPointingGame,
        DiFull,
        RelevanceRankAccuracy,
        Insertion,
        Deletion,
        AOPC,
        ROAD,
        SRG,
        SignedEffect,
        ClassSensitivity,
        ParameterRandomisation,
        MaxSensitivity,
        Sparseness,
        SingleDeletion,
        TargetSensitivity,
        BackgroundIndependence,
        ShortcutNamed,
    )
}
"""Every metric by its name."""

__all__ = [
    "AOPC",
    "METRICS",
    "ROAD",
    "SRG",
    "Apart",
    "Attribute",
    "BackgroundIndependence",
    "ClassSensitivity",
    "Cover",
    "Deletion",
    "DiFull",
    "Direction",
    "EnergyPointing",
    "Explain",
    "Fill",
    "GridPointingGame",
    "Insertion",
    "MaxSensitivity",
    "Metric",
    "Model",
    "ParameterRandomisation",
    "PatchMasking",
    "PointingGame",
    "RelevanceRankAccuracy",
    "Rows",
    "ShortcutNamed",
    "SignedEffect",
    "SingleDeletion",
    "Sparseness",
    "StrictPointing",
    "TargetSensitivity",
    "mean_image",
    "mean_over_classes",
    "probabilities",
]
