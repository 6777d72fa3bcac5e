"""The message for a name that nobody knows."""

from collections.abc import Collection
from difflib import get_close_matches


def unknown(kind: str, name: str, known: Collection[str], *, wanted: str | None = None, most: int = 3) -> str:
    """What to say of an unknown name: what is expected, and the nearest names.

    Args:
        kind: what it should name.
        name: as it was given.
        known: the names that there are.
        wanted: the part of the name that is compared with them; None: all of it.
        most: how many near names to give.

    >>> unknown("metric", "pointin", ["pointing", "aopc"])
    "unknown metric 'pointin', expected one of pointing, aopc. Did you mean pointing?"
    """
    near = get_close_matches(name if wanted is None else wanted, known, n=most, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"unknown {kind} {name!r}, expected one of {', '.join(known)}.{hint}"
