"""A method is a seed, a selection and a composite. Every method is one row of a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal, get_args

from clarp.capture import Graph
from clarp.covering import Covering
from clarp.hints import unknown
from clarp.propagation.plan import composite_on
from clarp.rules import Epsilon, Flat, Norm, Rule, WSquare, ZBox, Zero
from clarp.rules.composites import Composite, default
from clarp.rules.composites import get as get_composite
from clarp.seeds import Contrast, Logit, Seed, SoftmaxGradient, Uniform, Vector
from clarp.selection import Selection, needs_rivals, normalised

PassesName = Literal["signed", "two_pass", "dual"]
MapNormalisation = Literal["none", "rival-to-target", "unit-sum"]
BASELINES = {
    "gradient": "largest magnitude over the channels of the logit's gradient (Simonyan 2014)",
    "input-x-gradient": "gradient times input, summed over the channels (Shrikumar 2016)",
    "integrated-gradients": "from zeros, 50 steps, summed over the channels (Sundararajan 2017)",
    "guided-backprop": "as gradient, negative gradients cut off at every ReLU (Springenberg 2015)",
    "gradcam": "last convolution's output times its mean gradient, rectified, bilinear (Selvaraju 2017)",
    "occlusion": "windows of 1/14 of the image set to zero, strides of half a window (Zeiler 2014)",
}
"""Baselines to compare with, and their settings; ``clarp.evaluation.baselines`` computes them."""
RIVALS = {
    "gradcam-plusplus": "Grad-CAM with each channel's positive gradients weighed (Chattopadhay 2018)",
    "layercam": "last convolution's output times its positive gradient, cell by cell (Jiang 2021)",
    "finer-cam": "Grad-CAM of the lead over the three classes of the nearest logits (Zhang 2025)",
    "idgi": "changes of the probability from zeros in 50 steps, by squared gradients (Yang 2023)",
    "legrad": "positive gradients of attention, over all blocks; transformers (Bousselham 2025)",
    "chefer": "attention times its gradient, multiplied over blocks; transformers (Chefer 2021, ICCV)",
    "chefer-lrp": "relevance of attention times its gradient, likewise; transformers (Chefer 2021, CVPR)",
    "attnlrp": "lrp with the composite attnlrp; transformers (Achtibat 2024)",
    "reslrp": "attnlrp with the gamma rule at sums of two branches; residual networks (Berend 2026)",
    "var": "lrp where it is the strongest of five classes' maps; var@METHOD of another (Walter 2025)",
}
"""Recent methods of others, to compare with likewise; ``clarp.evaluation.rivals`` makes them."""


@dataclass(frozen=True)
class Method:
    """How to explain: which relevance the logits start with, which of it is selected, how it is handed on.

    Passes:

    - "signed": the seed as it is, in one pass. Propagation is linear in the seed, so this is the target's map
      minus the rivals'.
    - "two_pass": the target's part and the rivals' part of the seed apart, and their maps subtracted after
      ``normalisation``.
    - "dual": the target's map minus the map of the target through the last layer with its weights negated
      (CLRP2).

    Normalisation of two maps, per image: "none"; "rival-to-target": the rivals' map is scaled to the target
    map's sum (SGLRP's published code); "unit-sum": each map is divided by its own sum (CLRP's published
    code).

    Attributes:
        seed: the initial relevance over the logits.
        selection: none, one, or several; at each convolution the first that names it counts.
        composite: a preset's name or a composite. Left out, it is ``zplus-box``, ``zplus-scaled-box`` in
            networks with depthwise convolutions, and ``zplus-gamma`` in transformers; see :meth:`on`.
        passes: see above.
        normalisation: of the two maps of "two_pass" and "dual"; "signed" has only one.
        rectify: keep the positive part of the final map only (CLRP's published code).
        covering: explain differences: instead of relevance by rules, each pixel gets ``m_i (x_i - x~_i)``,
            with x~ the image where its cell is covered, and the secants m of the seed's logits between the
            two (:mod:`clarp.propagation.secants`). Rules and selection have no part in it.
        name: for captions and manifests.
        when: for which questions to take it, for people.

    Raises:
        TypeError: a field is not of its kind.
        ValueError: an unknown composite, passes or normalisation, or a combination that makes no sense.
    """

    seed: Seed = Logit()
    selection: Selection | Sequence[Selection] | None = None
    composite: str | Composite = default("zplus-box")
    passes: PassesName = "signed"
    normalisation: MapNormalisation = "none"
    rectify: bool = False
    covering: Covering | None = None
    name: str = "custom"
    when: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.seed, Seed):
            raise TypeError(
                f"seed is {self.seed!r}, expected one of clarp.seeds, for example SoftmaxGradient()."
            )
        object.__setattr__(self, "selection", normalised(self.selection))
        object.__setattr__(self, "composite", get_composite(self.composite))
        for part, choices in (
            ("passes", get_args(PassesName)),
            ("normalisation", get_args(MapNormalisation)),
        ):
            if getattr(self, part) not in choices:
                raise ValueError(f"{part} is {getattr(self, part)!r}, expected one of {', '.join(choices)}.")
        if self.passes == "signed" and self.normalisation != "none":
            raise ValueError(
                f"normalisation is {self.normalisation!r} with passes='signed', which makes one map. Pass "
                "passes='two_pass', or normalisation='none'."
            )
        if self.covering is not None and (self.selections or self.passes != "signed"):
            raise ValueError(
                f"covering is {self.covering!r} with a selection or passes={self.passes!r}: differences go "
                "back in one pass, and nothing selects them. Leave out the selection, and passes."
            )
        if self.passes == "dual":
            check_dual_rule(self.rules.dense)
            if self.seed.has_rivals or isinstance(self.seed, Vector):
                raise ValueError(
                    "passes='dual' makes a map of the target's weights and one of the same weights "
                    f"negated, and {self.seed!r} has more than the target's, which it would not use. Pass "
                    "seed=Logit(), or passes='two_pass'."
                )

    @staticmethod
    def named(method: "str | Method") -> "Method":
        """A method by its name; a :class:`Method` is returned.

        Raises:
            ValueError: no such method; of a baseline such as Grad-CAM it says where there is one.
            TypeError: neither a name nor a method.

        >>> Method.named("lrp").seed
        Logit()
        """
        if isinstance(method, Method):
            return method
        if not isinstance(method, str):
            raise TypeError(
                f"method is {method!r}, expected a name (one of {', '.join(_TABLE)}) or a clarp.Method."
            )
        if method not in _TABLE:
            if baseline := _baseline(method):
                raise ValueError(
                    f"{method!r} is no method of clarp's; the baseline {baseline} can be seen beside them: "
                    f"`clarp compare PHOTO --methods {baseline},ssglrp` draws both, and `clarp evaluate` "
                    "measures them."
                )
            raise ValueError(unknown("method", method, _TABLE, wanted=method.lower()))
        return _TABLE[method]

    @property
    def rules(self) -> Composite:
        """The composite."""
        assert isinstance(self.composite, Composite)
        return self.composite

    @property
    def selections(self) -> tuple[Selection, ...]:
        """The selections as a tuple."""
        return normalised(self.selection)

    @property
    def has_rivals(self) -> bool:
        """Whether the choice of rivals changes anything."""
        return self.seed.has_rivals or needs_rivals(self.selections)

    @property
    def needs_bounds(self) -> bool:
        """Whether its first rule reads the bounds of the pixels."""
        return isinstance(self.rules.first, ZBox)

    def with_composite(self, composite: str | Composite | None) -> "Method":
        """The same method with another composite, for every network; None changes nothing."""
        return self if composite is None else replace(self, composite=composite)

    def on(self, graph: Graph) -> "Method":
        """The method with the composite that it has in this network.

        A default composite (:func:`clarp.rules.composites.default`) is for plain convolutional networks. With
        depthwise convolutions most of its relevance would be lost, and ``zplus-scaled-box`` takes the place
        of ``zplus-box``. In transformers it would hardly tell classes apart, and ``zplus-gamma`` takes its
        place (docs/rules.md). One that was asked for stays.
        """
        return replace(self, composite=composite_on(self.rules, graph))


def _baseline(name: str) -> str:
    """The baseline or rival that a name means, also as "Grad-CAM" or "gradcam@layer4"; "" for none."""
    head, _, layer = name.partition("@")
    spelt = {_letters(known): known for known in (*BASELINES, *RIVALS)}
    # The rivals' names are short, and near to many words.
    near = get_close_matches(_letters(head), map(_letters, BASELINES), n=1, cutoff=0.8) or get_close_matches(
        _letters(head), map(_letters, RIVALS), n=1, cutoff=0.9
    )
    if not near:
        return ""
    return f"{spelt[near[0]]}@{layer}" if layer else spelt[near[0]]


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.lower().replace("+", "plus")))


def check_dual_rule(rule: Rule) -> None:
    """Refuse a rule for the last layer to which the sign of the weights means nothing.

    Raises:
        ValueError: it gives both passes of CLRP2 the same map.
    """
    if isinstance(rule, Zero | Epsilon | Norm | Flat | WSquare):
        raise ValueError(  # noqa: TRY004  it is a rule, but the wrong one for this place
            f"passes='dual' negates the last layer's weights, and {rule!r} gives both passes the same map. "
            "Take a composite whose rule for the last layer sees the weights' signs, for example 'zplus-box'."
        )


def ssglrp() -> Method:
    """Our variant of SSGLRP, chosen by measurement on the tune half of our photos (``docs/study.md``).

    SGLRP's seed, ``R_t = 1``, ``R_n = -s_n``, and selection in neuron form at every convolution,
    ``m = ReLU(g)`` with g the gradient of the target's probability. Of the paper (Chen et al. 2025,
    10.11772/j.issn.1001-9081.2025070906) only the abstract was at hand. It says "introducing the activation
    values of the positive gradients of output neurons and modifying the initial relevance values of
    non-target classes", and not whether relevance is selected, nor how.
    """
    return Method(SoftmaxGradient(), _ALL, name="ssglrp")


def clarp() -> Method:
    """This package's own method: the target's lead, from the head to the pixels (``docs/study.md``).

    1. *The question.* The log-odds of the target, ``log y_t / (1 - y_t)``, have the gradient ``e_t - s`` over
       the logits, with s the softmax over the rivals. Along it the target's *lead* ``D = z_t - sum_n s_n
       z_n`` is what there is to explain.
    2. *In the head it has an exact answer.* The seed :class:`~clarp.seeds.Contrast` with the epsilon rule
       gives each feature ``a_k (w_tk - sum_n s_n w_nk)``, what it adds to D. SGLRP's seed with z+ rules
       forgets there what speaks against a class, and weighs logits by probabilities alone.
    3. *Below, z+ against the noise, led by the same question.* Where a convolution hands relevance to its
       inputs, those count as much as they raise D: SSGLRP's selection in neuron form, ``R_i = sum_j m_i a_i
       w+_ij / sum_i' m_i' a_i' w+_i'j R_j`` with ``m = ReLU(dD/da)``. It conserves, so the rivals' negative
       relevance arrives at their objects and cancels the target's there; multiplying relevance by channels,
       as SLRP does, would throw it away.
    4. *Where the target trails*, D is negative, and a map of it would say of every place, the target's object
       included, only that the rivals are ahead. Asked for is what speaks for the target, so its rivals count
       no more than it has itself (``Contrast``).
    """
    return Method(Contrast(), _ALL, default("epsilon-plus-box"), name="clarp")


_ALL = Selection("neuron", "all", "probability")
_LAST = Selection("channel", "last", "probability")
_TABLE = {
    method.name: method
    for method in (
        # LRP, Bach et al. 2015, 10.1371/journal.pone.0130140.
        Method(
            Logit(),
            name="lrp",
            when="To see all that the model looks at. It marks the other objects too, whichever class is "
            "asked for.",
        ),
        # CLRP1 and CLRP2, Gu, Yang, Tresp 2018, arXiv 1812.02100.
        Method(
            Uniform(),
            name="clrp1",
            when="To compare with its paper. All rivals count the same, however improbable they are; sglrp "
            "weighs them.",
        ),
        Method(
            Logit(),
            passes="dual",
            name="clrp2",
            when="To compare with its paper. It needs no rivals, and for findings it is second to clarp.",
        ),
        # SGLRP, Iwana, Kuroki, Uchida 2019, arXiv 1908.04351.
        Method(
            SoftmaxGradient(),
            name="sglrp",
            when="Siblings of a kind, one against the other: one map answers both ways. Speed: it "
            "tells classes apart at the price of lrp.",
        ),
        # SLRP, Jung, Han, Choi 2021, 10.1049/ell2.12061.
        Method(
            Logit(),
            _LAST,
            name="slrp",
            when="To compare with its paper. Its maps are close to lrp's, and ssglrp has more in the right "
            "place.",
        ),
        replace(
            ssglrp(),
            when="Two objects or more: most of its positive relevance lies on the one that is asked for. The "
            "default.",
        ),
        # DeepLIFT's rescale rule, Shrikumar 2017, arXiv 1704.02685, with references of covered cells.
        Method(
            SoftmaxGradient(),
            composite="zero",
            covering=Covering(),
            name="secant",
            when="Whether colours are true: red where covering a place costs the class, blue where covering "
            "it helps. Place by place, not pixel by pixel: draw it with --smoothing 0.06. It takes several "
            "times as long as clarp.",
        ),
        replace(
            clarp(),
            when="One object: covering its best place costs the class more than with lrp, slrp, sglrp "
            "or Grad-CAM. Transformers. Findings (multilabel) and a single logit (binary): it keeps what "
            "speaks against them.",
        ),
    )
}


def methods() -> tuple[str, ...]:
    """The names of the methods, for ``method=``.

    >>> methods()
    ('lrp', 'clrp1', 'clrp2', 'sglrp', 'slrp', 'ssglrp', 'secant', 'clarp')
    """
    return tuple(_TABLE)
