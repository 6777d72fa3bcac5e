"""What the commands say on standard error, in the words of the command line."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from clarp.arguments import ENGINE_LOG
from clarp.errors import EXAMPLES, EmptyMap, RelevanceLost
from clarp.text import printable

OPTION = "`--composite {}`"
Say = Callable[[str, bool], None]


def note(text: str) -> None:
    """Say something that changes how a result is to be read."""
    sys.stderr.write(f"clarp: note: {printable(text)}\n")


@contextmanager
def lost_as_notes(
    named: Callable[[int, int], str], option: str = OPTION, say: Say = lambda text, _: note(text)
) -> Iterator[None]:
    """Warnings of lost relevance and empty maps become notes.

    Args:
        named: the name of an image and a class, from their numbers.
        option: how to ask for another composite, its name in the braces.
        say: says a note; told also whether it is said once only, of images of one size.
    """
    show = warnings.showwarning

    def shown(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if isinstance(message, RelevanceLost):
            fact = message.fact(named(message.image, message.target))
            say(f"{fact} {message.remedy(option)}", True)
        elif isinstance(message, EmptyMap):
            say(message.fact([named(image, target) for image, target in message.maps[:EXAMPLES]]), False)
        else:
            show(message, category, *place)

    with warnings.catch_warnings():
        warnings.simplefilter("always", RelevanceLost)
        warnings.simplefilter("always", EmptyMap)
        warnings.showwarning = shown  # type: ignore[assignment]
        yield


@contextmanager
def recording_as_notes() -> Iterator[None]:
    """What an engine says while it records becomes notes: it takes a minute in which nothing else happens."""
    logger, handler = logging.getLogger(ENGINE_LOG), _AsNote()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _AsNote(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        note(record.getMessage())


@contextmanager
def lost_in_silence() -> Iterator[None]:
    """Leave out these warnings, for a command that ends with :func:`note_lost` and whose pictures tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RelevanceLost)
        warnings.simplefilter("ignore", EmptyMap)
        yield


def note_lost(methods: Sequence[str], warned: Iterable[RelevanceLost]) -> None:
    """Say once of all methods that lost relevance, if any did.

    Args:
        methods: their names.
        warned: their warnings, as far as they were given in this process.
    """
    if methods:
        named = " and ".join(filter(None, (", ".join(methods[:-1]), methods[-1])))
        remedies = {lost.remedy(OPTION): None for lost in warned if lost.better}
        note(
            f"with {named} more than half of the relevance never reached the pixels (looked at once for "
            "each size of picture): the maps show where the rest of it lies, and what is missing may be "
            f"elsewhere.{''.join(f' {said}' for said in remedies)}"
        )


def note_assumed(assumed: Iterable[tuple[str, str]]) -> None:
    """Say of each kind of assumption about pictures (greys, DICOM) for how many it was made, and name one.

    Args:
        assumed: a picture's name with a sentence that begins with its kind and a colon.
    """
    kinds: dict[str, list[tuple[str, str]]] = {}
    for picture, said in assumed:
        kinds.setdefault(said.partition(":")[0], []).append((picture, said))
    for made in kinds.values():
        others = f"; the like of {len(made) - 1} other pictures" if len(made) > 1 else ""
        note(f"{made[0][0]}: {made[0][1]}{others}")
