"""Named protocols: models, methods and metrics that belong together."""

from dataclasses import dataclass

from clarp.hints import unknown


@dataclass(frozen=True)
class Suite:
    """A protocol.

    Attributes:
        name: for ``--suite``.
        models: what is evaluated where no model is named, each in a folder of its own.
        methods: names as for ``--methods``; the controls come on top.
        metrics: specs as for ``--metrics``.
        located: metrics that need to know where the objects are; left out, with a note, where the data set
            doesn't say.
        source: where the protocol is from.
    """

    name: str
    models: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    located: tuple[str, ...]
    source: str

    @staticmethod
    def named(name: str) -> "Suite":
        """A suite by its name.

        Raises:
            ValueError: there is none of that name.

        >>> Suite.named("ssglrp-paper").models
        ('vgg16', 'resnet50')
        """
        if name not in SUITES:
            raise ValueError(unknown("suite", name, SUITES, most=2))
        return SUITES[name]


SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "ssglrp-paper",
            models=("vgg16", "resnet50"),
            methods=("lrp", "slrp", "sglrp", "ssglrp"),
            metrics=("patch-masking:size=9", "patch-masking:size=9:centre=window"),
            located=("pointing:smoothing=0.02", "strict-pointing"),
            source="SSGLRP, Chen et al. 2025, 10.11772/j.issn.1001-9081.2025070906: what its abstract says, "
            "the rest from SGLRP's code; only the abstract was at hand",
        ),
        Suite(
            "torchray",
            models=("vgg16", "resnet50"),
            methods=("gradient", "guided-backprop", "gradcam", "lrp", "sglrp", "slrp", "ssglrp"),
            metrics=(),
            located=("pointing:tolerance=15:smoothing=0.02",),
            source="TorchRay's pointing game (Fong 2019, arXiv 1910.08485); coarse maps are not smoothed",
        ),
    )
}
"""Every suite by its name."""
