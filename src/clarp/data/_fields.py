"""The fields of an annotation's JSON record, checked one by one; what is wrong is said in words.

Pydantic would check them too, but its messages are not sentences that say what to do.
"""

import math
import reprlib
from collections.abc import Callable
from typing import TypeVar

from clarp.data._located import RepeatedKeys

T = TypeVar("T")


class FieldError(ValueError):
    """A field that is absent, repeated or of another kind; the message is the reason of a contradiction."""


def field(record: object, name: str, kind: Callable[[object], T]) -> T:
    """The field ``name`` of an object of a JSON file.

    Args:
        record: what was read.
        name: the field.
        kind: a function of this module: turns a value into what is expected, or raises FieldError that says
            what is.

    Raises:
        FieldError: the record is no object, a name is in it twice, there is no such field, or it is of
            another kind.

    >>> field({"width": 30}, "width", whole)
    30
    >>> field({"width": "wide"}, "width", whole)
    Traceback (most recent call last):
    ...
    clarp.data._fields.FieldError: 'width' is 'wide', expected a whole number from 0
    """
    if not isinstance(record, dict):
        raise FieldError(f"{reprlib.repr(record)} is no object, expected one with {name!r}")
    if isinstance(record, RepeatedKeys):
        raise FieldError(f"{', '.join(map(repr, record.repeated))} is there twice: keep the right one")
    if name not in record:
        raise FieldError(f"there is no {name!r}: add it")
    try:
        return kind(record[name])
    except FieldError as error:
        raise FieldError(f"{name!r} is {reprlib.repr(record[name])}, expected {error}") from None


def whole(value: object) -> int:
    """A whole number from 0; some writers give 640 as 640.0."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise FieldError("a whole number from 0")
    return value


def text_of(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise FieldError("a text")
    return value


def items(value: object) -> list[object]:
    if not isinstance(value, list):
        raise FieldError("a list")
    return value


def wholes(value: object) -> list[int]:
    try:
        return [whole(item) for item in items(value)]
    except FieldError:
        raise FieldError("a list of whole numbers from 0") from None


def label(value: object) -> tuple[int, ...]:
    """Class indices, the best first."""
    try:
        indices = tuple(wholes(value))
    except FieldError:
        indices = ()
    if not indices:
        raise FieldError("a list of class indices, whole numbers from 0, with one at least")
    return indices


def numbers(value: object) -> list[float]:
    if not isinstance(value, list) or not all(_finite(item) for item in value):
        raise FieldError("a list of finite numbers")
    return [float(item) for item in value]


def four(value: object) -> tuple[float, float, float, float]:
    if not isinstance(value, list) or len(value) != 4 or not all(_finite(item) for item in value):
        raise FieldError("four finite numbers")
    first, second, third, fourth = (float(item) for item in value)
    return first, second, third, fourth


def _finite(value: object) -> bool:
    # A whole number of JSON may be too large for a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300 and math.isfinite(value)
