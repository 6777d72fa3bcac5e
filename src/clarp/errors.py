"""The errors and warnings of clarp that are not plain ``ValueError`` or ``TypeError``.

Every message says what was given, what was expected, and what to do.
"""


class CaptureError(RuntimeError):
    """The model could not be turned into a graph of operations that computes the same logits."""


class UnsupportedOperation(CaptureError):  # noqa: N818  the public name says what it is
    """The model contains operations that no rule covers; the message lists all of them at once."""


class RelevanceLost(UserWarning):
    """More than half of the relevance never reached the pixels; the message says how much, and which operations took it.

    Attributes:
        fact: the message without what to do about it, which is another thing in Python than at the command line.
    """

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(f"{fact} {remedy}")
        self.fact = fact
