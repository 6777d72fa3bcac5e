"""The errors and warnings of clarp that are not plain ``ValueError`` or ``TypeError``.

Every message says what was given, what was expected, and what to do.
"""

from math import isnan


class CaptureError(RuntimeError):
    """The model could not be turned into a graph of operations that computes the same logits."""


class UnsupportedOperation(CaptureError):  # noqa: N818  the public name says what it is
    """The model contains operations that no rule covers; the message lists all of them at once."""


class RelevanceLost(UserWarning):
    """More than half of the relevance never reached the pixels; the message says how much, and which operations took it.

    Attributes:
        share: what reached the pixels, 0 to 1, or NaN.
        image: the number of the image that lost most.
        target: the class that was explained there.
        absorbers: the operations that took most, each with its share; may be empty.
    """

    def __init__(self, share: float, image: int, target: int, absorbers: tuple[str, ...]) -> None:
        self.share = share
        self.image = image
        self.target = target
        self.absorbers = absorbers
        super().__init__(
            f"{self.fact(f'image {image}, class {target}')} explanation.ledger has the balance; another composite may lose less "
            "(clarp.composites.names())."
        )

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """For processes that send it to each other as an error."""
        return type(self), (self.share, self.image, self.target, self.absorbers)

    def fact(self, where: str) -> str:
        """The message without what to do about it, which is another thing in Python than at the command line."""
        if isnan(self.share):
            return (
                f"the relevance is not a number ({where}), and the map shows nothing. A logit or a value inside the model is "
                "infinite or not a number there."
            )
        return (
            f"only {self.share:.0%} of the relevance reached the pixels ({where}), and the map shows no more than that. "
            f"The most was absorbed by {', '.join(self.absorbers) or 'many operations, a little by each'}."
        )
