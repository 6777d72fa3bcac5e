"""What the commands say on standard error, in the words of the command line."""

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clarp.errors import RelevanceLost
from clarp.text import printable


def note(text: str) -> None:
    """Say something that changes how a result is to be read."""
    sys.stderr.write(f"clarp: note: {printable(text)}\n")


@contextmanager
def lost_as_notes(model: str, named: Callable[[int, int], str]) -> Iterator[None]:
    """Warnings of lost relevance become notes.

    Args:
        model: what ``--model`` named.
        named: the name of an image and a class, from their numbers.
    """
    show = warnings.showwarning

    def shown(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if isinstance(message, RelevanceLost):
            note(f"{message.fact(named(message.image, message.target))} {_remedy(model)}")
        else:
            show(message, category, *place)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RelevanceLost)
        warnings.showwarning = shown  # type: ignore[assignment]
        yield


@contextmanager
def lost_in_silence() -> Iterator[None]:
    """Warnings of lost relevance are left out, for a command that says :func:`note_lost` at its end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RelevanceLost)
        yield


def note_lost(methods: Sequence[str], model: str) -> None:
    """Say once of all methods that lost relevance, if any did.

    Args:
        methods: their names.
        model: what ``--model`` named.
    """
    if methods:
        named = " and ".join(filter(None, (", ".join(methods[:-1]), methods[-1])))
        note(
            f"with {named} more than half of the relevance never reached the pixels (looked at once for each size of picture), "
            f"and the maps show only the rest. {_remedy(model)}"
        )


def _remedy(model: str) -> str:
    return (
        f"`clarp plan {model}` shows every operation's rule; explain, compare and evaluate take others, which may lose less "
        "(--composite NAME)."
    )
