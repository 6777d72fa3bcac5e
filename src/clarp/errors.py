"""The errors and warnings of clarp that are not plain ``ValueError`` or ``TypeError``.

Every message says what was given, what was expected, and what to do.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from math import isnan


class CaptureError(RuntimeError):
    """The model could not be turned into a graph of operations that computes the same logits."""


class UnsupportedOperation(CaptureError):  # noqa: N818  the public name says what it is
    """The model contains operations that no rule covers; the message lists all of them at once."""


class RelevanceLost(UserWarning):
    """More than half of the relevance never reached the pixels, or several times as much as there was did.

    The message says how much, and which operations took it or added to it.

    Attributes:
        share: what reached the pixels, beside what there was: at least 0, or NaN.
        image: the number of the image where that was worst.
        target: the class that was explained there.
        absorbers: the operations that took or added most, each with its share; may be empty.
        better: a composite that brings more of this relevance to the pixels, and which share; None where none
            that was tried does.
    """

    def __init__(
        self,
        share: float,
        image: int,
        target: int,
        absorbers: tuple[str, ...],
        better: tuple[str, float] | None = None,
    ) -> None:
        self.share = share
        self.image = image
        self.target = target
        self.absorbers = absorbers
        self.better = better
        super().__init__(share)

    def __str__(self) -> str:
        """The message with the remedy in Python."""
        fact = self.fact(f"image {self.image}, class {self.target}")
        return f"{fact} {self.remedy('composite={!r}')} explanation.ledger has the balance."

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """For errors that are sent between processes."""
        return type(self), (self.share, self.image, self.target, self.absorbers, self.better)

    def remedy(self, option: str) -> str:
        """What to do about it: ``option`` with the composite's name in its braces."""
        if self.better is None:
            return "No composite that clarp tried brings more."
        name, share = self.better
        return f"{option.format(name)} brings {share:.0%} there."

    def fact(self, where: str) -> str:
        """The message without the remedy, which differs between Python and the command line."""
        if isnan(self.share):
            return (
                f"the relevance is not a number ({where}), and the map shows nothing. A logit or a value "
                "inside the model is infinite or not a number there, or relevance grew beyond all numbers "
                "under a rule that divides by sums of either sign."
            )
        if self.share > 1:
            return (
                f"{self.share:.3g} times the relevance reached the pixels ({where}): where a rule divides "
                "by a sum whose terms nearly cancel, or a bias is of the other sign, relevance grows, and "
                "the map shows that more than the evidence. The most was added by "
                f"{', '.join(self.absorbers) or 'many operations, a little by each'}."
            )
        return (
            f"only {self.share:.0%} of the relevance reached the pixels ({where}): the map shows where that "
            "part lies, and what the rest would have shown is missing. The most was absorbed by "
            f"{', '.join(self.absorbers) or 'many operations, a little by each'}."
        )


class EmptyMap(UserWarning):
    """A map has no relevance: it cancelled, never reached the pixels, or the seed was zero.

    Attributes:
        maps: (image, class) of each map that is empty.
        seed: whether there was relevance at the logits, at any of them.
    """

    def __init__(self, maps: tuple[tuple[int, int], ...], *, seed: bool) -> None:
        self.maps = maps
        self.seed = seed
        super().__init__(
            f"{self.fact([f'image {image}, class {target}' for image, target in maps[:EXAMPLES]])}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        """For errors that are sent between processes."""
        return partial(type(self), seed=self.seed), (self.maps,)

    def fact(self, named: Sequence[str]) -> str:
        """The message, with these names of the first maps."""
        more = f" and {len(self.maps) - len(named)} more" if len(self.maps) > len(named) else ""
        where = (
            f"{len(self.maps)} map(s) have no relevance ({'; '.join(named)}{more}), and their pictures show "
            "nothing: "
        )
        if not self.seed:
            return where + (
                "the seed is zero there, because the logit is. Explain by a method whose seed is not the "
                "logit, for example 'sglrp'."
            )
        return where + (
            "it never arrived at the pixels, or cancelled where parts of opposite sign met, as those of "
            "two classes do that are made of the same values. explanation.ledger has the balance; other "
            "rivals (against=) or another method ask another question."
        )


EXAMPLES = 3
"""How many empty maps a message names."""


def level_of_the_user() -> int:
    """How far up from the caller of this function is the first one outside clarp, for ``stacklevel``."""
    frame, level = inspect.currentframe(), 0
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "clarp":
        frame, level = frame.f_back, level + 1
    return level
