"""What the report's page lets people browse: every unit's numbers, and its pictures part by part."""

import base64
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clarp.evaluation.attribution import CONTROLS
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report

_DIGITS = 5


@dataclass(frozen=True, eq=False)
class Index:
    """All units of a run, a unit being one label in one picture.

    Attributes:
        document: methods, columns with their directions, names of classes, and for each unit what the rows
            say; JSON.
        parts: how many units each part of the pictures has, in order.
    """

    document: dict[str, Any]
    parts: tuple[int, ...]

    @classmethod
    def of(cls, store: Store, report: Report) -> "Index":
        table, methods = store.rows(), list(report.about["fingerprint"]["methods"])
        count, controls = len(methods), {control.name for control in CONTROLS}
        names = report.about["classes"]
        directions = {line.column: line.better for line in report.lines}

        def units(column: str) -> list[Any]:
            found: list[Any] = table.column(column).to_pylist()[::count]
            return found

        labels = [[int(index) for index in text.split()] for text in units("label")]
        targets, predicted = units("target"), units("predicted")
        used = {index for label in labels for index in label} | {*targets, *predicted}
        document = {
            "task": report.about.get("task"),  # none in runs of before there were tasks
            "methods": methods,
            "pictured": [place for place, name in enumerate(methods) if name not in controls],
            "columns": [
                {"name": name, "better": better, "hit": _is_hit(name)} for name, better in directions.items()
            ],
            "classes": {index: names[index] for index in sorted(used) if 0 <= index < len(names)},
            "id": units("id"),
            "label": labels,
            "target": targets,
            "predicted": predicted,
            "probability": [_short(value) for value in units("probability")],
            "values": {
                name: [_short(value) for value in table.column(name).to_pylist()] for name in directions
            },
        }
        sizes = [rows // count for rows in store.part_rows()]
        # A run that isn't complete, or whose parts were removed later, may have fewer parts than rows.
        known = sum(sizes) == len(labels)
        return cls(document, tuple(sizes) if known else ())


def parts(store: Store, methods: int) -> Iterator[dict[str, Any] | None]:
    """The pictures of each part: JPEGs and boxes for each unit, and maps for each unit and method.

    A photo is None where it is that of the unit before. A map is ``[height, width, peak, limit, codes]``, the
    codes in base64, and None where there is none. A part without pictures is None.
    """
    for table in store.pictures():
        if table is None:
            yield None
            continue
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
        maps = [
            None if codes is None else [height, width, _short(peak), _short(limit), _text(codes)]
            for height, width, peak, limit, codes in zip(
                *(columns[name] for name in ("height", "width", "peak", "limit", "codes")), strict=True
            )
        ]
        photos = [photo and _text(photo) for photo in columns["photo"][::methods]]
        edges = columns.get("boxes", [[]] * len(table))[::methods]  # none in runs of before there were any
        yield {"photos": photos, "boxes": [_boxes(found) for found in edges], "maps": maps}


def _boxes(edges: list[float]) -> list[list[float]]:
    """Boxes of four edges each, from all edges in a row."""
    short = [round(edge, _DIGITS) for edge in edges]
    return [short[start : start + 4] for start in range(0, len(short), 4)]


def as_script(document: object) -> str:
    r"""JSON that may stand in a script of an HTML page, whatever names are in it.

    >>> as_script("</script>")
    '"\\u003c/script>"'
    """
    text = json.dumps(document, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _is_hit(column: str) -> bool:
    """Whether a column says hit (1) or miss (0) of each unit."""
    return column.rpartition("/")[2].startswith("hit")


def _short(value: float | None) -> float | None:
    """A number with few digits; None where JSON has no word for it."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.{_DIGITS}g}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
