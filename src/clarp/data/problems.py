"""What can be wrong with a data set: files that give no sample, and annotations that can't be true."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from clarp.text import printable

ProblemKind = Literal["missing", "damaged", "outside", "unlabelled", "not an image"]
GAVE_NONE = frozenset({"missing", "damaged", "outside"})
"""Kinds of files that belong to the data set, and gave no sample."""
MAXIMUM_SHOWN = 20
"""How many of a list a message names."""


class UnreadableImageError(ValueError):
    """A picture that is missing or can't be decoded; ``problem`` says which and why."""

    def __init__(self, problem: "Problem") -> None:
        super().__init__(str(problem))
        self.problem = problem

    def __reduce__(self) -> tuple[type["UnreadableImageError"], tuple["Problem"]]:
        return type(self), (self.problem,)


class StoreError(OSError):
    """Where photos lie does not answer, or is not as it was: no photo's fault, so a run stops there."""


class AnnotationError(ValueError):
    """Annotations that contradict their pictures; the message lists all of them with file and line."""

    def __init__(self, contradictions: Iterable["Contradiction"]) -> None:
        self.contradictions = tuple(contradictions)
        shown = [f"  {c}" for c in self.contradictions[:MAXIMUM_SHOWN]]
        rest = len(self.contradictions) - len(shown)
        more = [f"  ... and {rest} more"] if rest else []
        count = len(self.contradictions)
        what = f"{count} annotation{'s' * (count != 1)} can't be true"
        head = f"{what}; correct or remove the lines below, then read again:"
        super().__init__("\n".join([head, *shown, *more]))

    def __reduce__(self) -> tuple[type["AnnotationError"], tuple[tuple["Contradiction", ...]]]:
        return type(self), (self.contradictions,)


@dataclass(frozen=True)
class Contradiction:
    """One line of an annotation file that can't be true.

    >>> print(Contradiction("a.xml", 7, "class 'unicorn' is not one of the data set's 20 classes"))
    a.xml:7: class 'unicorn' is not one of the data set's 20 classes
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.file}:{self.line}: {self.reason}")


@dataclass(frozen=True)
class Problem:
    """A file that gives no sample: which, and why.

    >>> print(Problem("missing", "val/a.jpg", "no such file"))
    val/a.jpg: missing (no such file)
    """

    kind: ProblemKind
    file: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.kind} ({self.reason.removesuffix('.')})")
