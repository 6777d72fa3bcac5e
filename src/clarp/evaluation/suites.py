"""Named protocols: models, methods and metrics that belong together."""

from dataclasses import dataclass

from clarp.hints import unknown


@dataclass(frozen=True)
class Grids:
    """Mosaics that a suite makes of the photos of a folder.

    Attributes:
        n: cells per side.
        count: how many, where no limit is given.
        confidence: the least probability of its label that a photo needs.
    """

    n: int
    count: int
    confidence: float = 0.99


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
        grids: what it is played on; None: the data set as it is.
    """

    name: str
    models: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    located: tuple[str, ...]
    source: str
    grids: Grids | None = None

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


_EMBEDDED = ("efficientnet-lite0",)
_METHODS = ("lrp", "clrp1", "slrp", "sglrp", "ssglrp", "clarp", "gradcam", "input-x-gradient")
_POOLED = ("pooled@lrp", "pooled@sglrp", "pooled@ssglrp", "pooled@clarp")
_SIGNED = tuple(f"signed-effect:grid=4+7+14{fill}" for fill in ("", ":fill=blur", ":fill=inpaint"))
_PATCHES = ("patch-masking:size=9", "patch-masking:size=9:centre=window")
_GRID_POINTING = (
    "Boehle 2021, arXiv 2104.00032: photos that the model gets right with confidence, each class once"
)

SUITES = {
    suite.name: suite
    for suite in (
        Suite(
            "ssglrp-paper",
            models=("vgg16", "resnet50"),
            methods=("lrp", "slrp", "sglrp", "ssglrp"),
            metrics=_PATCHES,
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
        *(
            Suite(
                f"grids{suffix}",
                models=_EMBEDDED,
                methods=_METHODS + _POOLED,
                metrics=(),
                located=(f"grid-pointing:n={n}",),
                source=_GRID_POINTING,
                grids=Grids(n, 500),
            )
            for n, suffix in ((2, ""), (3, "-3x3"))
        ),
        Suite(
            "difull",
            models=_EMBEDDED,
            methods=_METHODS,
            metrics=(),
            located=("difull:n=2",),
            source="Rao 2022, arXiv 2205.10435, with all logits from the target's cell",
            grids=Grids(2, 100),
        ),
        Suite(
            "srg",
            models=_EMBEDDED,
            methods=(*_METHODS, "pooled@lrp", "pooled@ssglrp"),
            metrics=("srg", "srg:fill=blur", "road"),
            located=(),
            source="SRG, Bluecher 2024, arXiv 2401.06654; ROAD, Rong 2022, arXiv 2202.00449",
        ),
        Suite(
            "signs",
            models=_EMBEDDED,
            methods=_METHODS,
            metrics=_SIGNED,
            located=(),
            source="signed effect, a metric of this project",
        ),
        Suite(
            "resnet-vgg",
            models=("vgg16", "resnet50"),
            methods=_METHODS,
            metrics=(*_PATCHES, "srg", "signed-effect"),
            located=("pointing:smoothing=0.02", "energy-pointing"),
            source="the two kinds of networks of SSGLRP's paper, with the patches of SGLRP's code",
        ),
        Suite(
            "transformers",
            models=("vit_b_16", "swin_t"),
            methods=(
                *("lrp@attnlrp", "sglrp@attnlrp", "lrp@epsilon-plus", "sglrp@epsilon-plus"),
                *("clarp@epsilon-plus", "gradient", "input-x-gradient"),
            ),
            metrics=("srg", "signed-effect"),
            located=("pointing:smoothing=0.02", "energy-pointing"),
            source="SRG by tokens of 16 x 16 px, and AttnLRP's rules (Achtibat 2024, arXiv 2402.05602)",
        ),
    )
}
"""Every suite by its name."""
