"""Metrics as a user writes them: ``patch-masking:size=9+17:centre=window``."""

from ast import literal_eval
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, cast

from clarp.evaluation.metrics import METRICS, Metric
from clarp.hints import unknown


def metric(spec: str) -> Metric:
    """A metric with its options.

    Args:
        spec: a name of :data:`METRICS` (underscores count as hyphens), then options ``:field=value``; several
            values are joined by ``+``.

    Raises:
        ValueError: an unknown name or field, or a value that the metric refuses.

    >>> metric("patch_masking:size=9+17:centre=window")
    PatchMasking(size=(9, 17), fill='mean', centre='window', chunk=64)
    """
    name, *options = spec.split(":")
    kind = METRICS.get(name.replace("_", "-"))
    if kind is None:
        raise ValueError(unknown("metric", name, METRICS))
    known = [field.name for field in fields(cast("Any", kind))]
    values: dict[str, Any] = {}
    for option in options:
        field, equals, text = option.partition("=")
        if field not in known or not equals:
            has = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(
                f"{spec!r}: {option!r} is no option of {name}: {has}, as in :{(known or ['x'])[0]}=..."
            )
        values[field] = _value(text)
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{spec!r}: {error}.") from error


def metrics(specs: Sequence[str]) -> dict[str, Metric]:
    """Metrics by what names them in the tables: the spec, underscores in the name as hyphens.

    Raises:
        ValueError: as :func:`metric`; or one that is given twice.
    """
    found: dict[str, Metric] = {}
    for spec in specs:
        name, colon, options = spec.partition(":")
        key = name.replace("_", "-") + colon + options
        if key in found:
            raise ValueError(f"the metric {key} is given twice, expected each once.")
        found[key] = metric(spec)
    return found


def _value(text: str) -> Any:
    """A number, a tuple of numbers, or the text."""
    try:
        parts = [literal_eval(part) for part in text.split("+")]
    except (ValueError, SyntaxError):
        return text
    if any(isinstance(part, str) for part in parts):
        return text
    return parts[0] if len(parts) == 1 else tuple(parts)
