"""The names of a model's classes, and which class a name means."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

_NEAR = 5
"""How many names are suggested."""


@dataclass(frozen=True)
class ClassNames:
    """A name for each class.

    Attributes:
        labels: in the order of the classes.
        owner: the model, for messages.
    """

    labels: tuple[str, ...]
    owner: str

    def index(self, name: str | int) -> int:
        """The index of a class, from its index or its name.

        A name is looked for in three ways, and the first that finds anything counts: exactly as
        written; without regard to case and underscores; as one of the synonyms in a label such as
        ``"tench, Tinca tinca"``. A string of digits that is no label is an index.

        Raises:
            ValueError: no such class (the message has the nearest names), or several (it lists them).
            TypeError: neither a string nor an int.
        """
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise TypeError(f"a class is given by its index or its name, got {name!r}.")
        if isinstance(name, int):
            return self._checked(name)
        matches = self.matches(name)
        if len(matches) == 1:
            return matches[0]
        wanted = _plain(name)
        if matches:
            candidates = ", ".join(f"{k} ({self.labels[k]})" for k in matches)
            raise ValueError(
                f"the class {name!r} of {self.owner} is ambiguous: {candidates}. Give the number instead."
            )
        if wanted.lstrip("+-").isdecimal():
            return self._checked(int(wanted))
        near = [repr(self.labels[k]) for k in self.nearest(name)]
        if not near:
            raise ValueError(
                f"{self.owner} has no class {name!r}, nor one with a similar name; give its number instead."
            )
        raise ValueError(f"{self.owner} has no class {name!r}; the nearest names are {', '.join(near)}.")

    def matches(self, name: str) -> list[int]:
        """The classes that are called so, by the first of the three ways of :meth:`index` that finds any."""
        wanted = _plain(name)
        ways = (
            [k for k, label in enumerate(self.labels) if label == name],
            [k for k, label in enumerate(self.labels) if _plain(label) == wanted],
            [k for k, label in enumerate(self.labels) if wanted in map(_plain, label.split(","))],
        )
        return next((found for found in ways if found), [])

    def nearest(self, name: str) -> list[int]:
        """At most five classes with names near an unknown one: first those with that word, then similar ones.

        >>> ClassNames(("tabby", "tiger cat", "boxer"), "toy").nearest("tabbi")
        [0]
        """
        wanted = _plain(name)
        with_word = [k for k, label in enumerate(self.labels) if wanted and wanted in _plain(label).split()]
        plain = {
            _plain(known): k for k, label in enumerate(self.labels) for known in (label, *label.split(","))
        }
        similar = [plain[match] for match in difflib.get_close_matches(wanted, plain, n=_NEAR)]
        return list(dict.fromkeys(with_word + similar))[:_NEAR]

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.labels):
            raise ValueError(
                f"{self.owner} has no class {index}: its {len(self.labels)} classes are 0 to "
                f"{len(self.labels) - 1}."
            )
        return index


def has_names(value: object) -> bool:
    """Whether a target or its rivals are given by name, in a list or alone."""
    if isinstance(value, list | tuple):
        return any(has_names(one) for one in value)
    return isinstance(value, str)


def numbered(what: str, value: Any, names: ClassNames | None) -> Any:
    """A target or its rivals with numbers in place of names.

    Args:
        what: "target" or "against", for messages.
        value: as the user gave it; what holds no name stays as it is.
        names: of the classes, None where they have none.

    Raises:
        ValueError: there is no such class, or the classes have no names.
    """
    if isinstance(value, Tensor) or not has_names(value):
        return value
    if names is None:
        raise ValueError(
            f"{what} is {value!r}, and the classes have no names. Give them, Explainer(model, "
            "labels=[...]), or give numbers."
        )
    if isinstance(value, str):
        return names.index(value)
    return [numbered(what, one, names) for one in value]


def checked_labels(labels: object) -> tuple[str, ...] | None:
    """What was given as ``labels``.

    Raises:
        TypeError: no sequence of strings.
        ValueError: an empty one.
    """
    if labels is None:
        return None
    if (
        isinstance(labels, str)
        or not isinstance(labels, Sequence)
        or not all(isinstance(x, str) for x in labels)
    ):
        raise TypeError(
            f"labels is {labels!r}, expected the names of the classes, for example ['normal', 'covid']."
        )
    if not labels:
        raise ValueError("labels is empty, expected the names of the classes, or None.")
    return tuple(labels)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
