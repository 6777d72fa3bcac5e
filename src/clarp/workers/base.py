"""Work in pieces, and other processes that do it.

A command describes its work once, as a :class:`Work` that pickles. A process makes a :class:`LoadedWork` of
it, with the model, and does one piece after the other, anywhere and in any order.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

Advance = Callable[[int], None]
_ABOUT = 16
_IN_SUCCESSION = 3


class Piece(Protocol):
    """A fixed range of what there is to do; it pickles."""

    @property
    def start(self) -> int:
        """Number of its first item."""
        ...

    @property
    def stop(self) -> int:
        """Number behind that of its last item."""
        ...

    @property
    def name(self) -> str:
        """Which items these are, for messages."""
        ...


P = TypeVar("P", bound=Piece)
R = TypeVar("R")


def piece_size(batch_size: int) -> int:
    """How many items a piece has: whole batches, about sixteen items.

    >>> piece_size(8), piece_size(6), piece_size(40)
    (16, 12, 40)
    """
    return batch_size * max(1, _ABOUT // batch_size)


def ranges(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and stop of each piece of so many items; they depend on these two numbers only.

    >>> ranges(20, 8)
    [(0, 16), (16, 20)]
    """
    size = piece_size(batch_size)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


@dataclass(frozen=True)
class WorkerPlace:
    """What a process computes with.

    Attributes:
        device: where.
        threads: of PyTorch; with others, the last bits of a number are others.
        helpers: how many threads read photos, and how many write.
        machine: the name of the machine, where it is not that of the command; for messages.
    """

    device: torch.device
    threads: int
    helpers: int
    machine: str = ""


class LoadedWork(ABC, Generic[P, R]):
    """Work in a process that has loaded what it takes."""

    @property
    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """All that results depend on, as this process has it."""

    @abstractmethod
    def done(self, piece: P, shared: Any, advance: Advance) -> R:
        """What comes of a piece; it pickles.

        Args:
            piece: which.
            shared: what :meth:`Crew.results` was given.
            advance: told how many of the piece's items are done.

        Raises:
            KeyboardInterrupt: somebody asked it to stop. What can return a part of a piece catches it.
        """


class Work(ABC, Generic[P, R]):
    """What another process must know before its first piece; it pickles.

    Attributes:
        after: what a user may do after the work ended early: a sentence.
    """

    after: str

    @abstractmethod
    def loaded(self, place: WorkerPlace) -> LoadedWork[P, R]:
        """Load what it takes, in the process that will do pieces."""


@dataclass(frozen=True)
class AbandonedPiece(Generic[P]):
    """A piece that ended its process again and again.

    Attributes:
        piece: which.
        deaths: how often.
        reason: how the process ended last.
        remedy: what the user may do about it, a sentence.
    """

    piece: P
    deaths: int
    reason: str
    remedy: str


class Crew(ABC, Generic[P, R]):
    """Processes at work."""

    fingerprint: Mapping[str, Any]
    """That of all of them."""

    @abstractmethod
    def results(self, pieces: Iterable[P], shared: Any, advance: Advance) -> Iterator[R | AbandonedPiece[P]]:
        """What comes of each piece, in the order in which it is ready.

        Where other processes compute, Ctrl-C is raised while it waits for them only, so no result is lost.

        Args:
            pieces: taken as they are needed.
            shared: what each piece's work reads besides; it pickles.
            advance: told how many items of all pieces are done.

        Raises:
            ValueError: a process has something else than the others.
            ChildProcessError: several pieces one after the other were given up.
        """

    def stopped(self) -> Iterator[R]:
        """End what was begun, and give what there is of it already.

        For use after an error of :meth:`results`, or Ctrl-C.
        """
        return iter(())


class Workers(Protocol):
    """Other processes that can do work."""

    def started(self, work: Work[P, R], *, most: int) -> AbstractContextManager[Crew[P, R]]:
        """Start them, and end them with the context.

        Args:
            work: what they will do.
            most: there are so many pieces.
        """
        ...


class Attempts(Generic[P]):
    """How often pieces ended the process that did them.

    Args:
        most: so often a piece may; then it is given up.
        remedy: what the user may do about it.
        after: of the :class:`Work`.
    """

    def __init__(self, most: int, remedy: str, after: str) -> None:
        self._most, self._remedy, self._after = most, remedy, after
        self._deaths: dict[int, int] = {}
        self._abandoned: list[AbandonedPiece[P]] = []

    def found(self) -> None:
        """A piece was done, so what ended the others' processes is theirs, and not the machine's."""
        self._abandoned.clear()

    def ended(self, piece: P, reason: str) -> AbandonedPiece[P] | None:
        """A piece ended its process; None: it is to be tried again.

        Raises:
            ChildProcessError: it is one of several in succession that are given up.
        """
        deaths = self._deaths[piece.start] = self._deaths.get(piece.start, 0) + 1
        if deaths < self._most:
            return None
        lost = AbandonedPiece(piece, deaths, reason, self._remedy)
        self._abandoned.append(lost)
        if len(self._abandoned) == _IN_SUCCESSION:
            raise abandoned_error(self._abandoned, self._after)
        return lost


def abandoned_error(lost: list[AbandonedPiece[P]], after: str) -> ChildProcessError:
    """The error that names these pieces, at least one; ``after`` of the :class:`Work`."""
    lines = "\n".join(f"  {one.piece.name}, {one.deaths} times: {one.reason}" for one in lost)
    return ChildProcessError(
        f"these parts ended the process that computed them:\n{lines}\n{lost[0].remedy} {after}"
    )
