"""What a run is of, besides data set and model."""

from collections.abc import Mapping
from dataclasses import dataclass

from clarp.arguments import EngineName
from clarp.evaluation.metrics import Metric
from clarp.evaluation.questions import TargetKind


@dataclass(frozen=True)
class Settings:
    """What a run is of, besides data set and model.

    Attributes:
        methods: names, see :func:`clarp.evaluation.attribution.attributors`.
        metrics: by their names in the tables.
        composite: for clarp's methods that name none.
        target: explain each label of a picture, or the class that the model predicts.
        limit: so many samples, evenly spread; None: all.
        batch_size: images that are explained at once.
        seed: another seed, other random draws (mosaics, composites); part of the fingerprint.
        pictures: keep a small picture of each photo and map, for the report's page. They change no row, so
            they are no part of the fingerprint; parts that are there already are not made again for them.
        engine: what computes the maps of clarp's methods, but those of the copies that a metric makes of the
            model.
    """

    methods: tuple[str, ...]
    metrics: Mapping[str, Metric]
    composite: str | None = None
    target: TargetKind = "label"
    limit: int | None = None
    batch_size: int = 8
    seed: int = 0
    pictures: bool = True
    engine: EngineName = "torch"

    @property
    def fills_with_mean(self) -> bool:
        """Whether a metric uses the mean of the run's images."""
        asked = [metric for one in self.metrics.values() for metric in (one, one.for_coarse_maps())]
        return any("mean_image" in (*metric.truth, *metric.optional_truth) for metric in asked)

    @property
    def placed(self) -> bool:
        """Whether a metric needs to know how each photo becomes a tensor."""
        return any("masks" in metric.truth for metric in self.metrics.values())
