"""Findings in words, as JSON with the photos by their names, and as Markdown."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clarp.evaluation.findings import background, confusion, places
from clarp.evaluation.findings.clusters import MOST_CLUSTERS, ClassClusters
from clarp.evaluation.findings.confusion import SHOWS, Difference
from clarp.evaluation.findings.findings import Findings
from clarp.evaluation.findings.frame import FIELDS
from clarp.evaluation.tables import Estimate
from clarp.files import write_atomically
from clarp.geometry import Box
from clarp.text import document as as_json
from clarp.text import printable

MARKS = "Marks at a fixed place"
BACKGROUND = "Classes told apart by the background"
CONFUSED = "Classes that are confused"
CLUSTERS = "Clusters of maps"
LEFT_OUT = "Left out"
_PHOTOS_OF_A_CLUSTER = 20
_PHOTOS_IN_TEXT = 8

HOW_TO_READ = (
    f"Maps are compared in {FIELDS} x {FIELDS} fields of the model's input, by what speaks for the class. "
    "A finding is a reason to look at its photos, and no proof: that the evidence of a class lies at one "
    "place is for a person to judge."
)


@dataclass(frozen=True)
class Told:
    """A sentence or two, and what to look at.

    Attributes:
        text: what was found.
        about: in a few words, as a title of its photos.
        units: the units behind it.
        method: whose maps show it; None: any.
        place: the part of the input that it is about.
    """

    text: str
    about: str = ""
    units: tuple[int, ...] = ()
    method: str | None = None
    place: Box | None = None


def sections(findings: Findings) -> list[tuple[str, list[Told]]]:
    """Each question with its answers in words."""
    asked = findings.asked
    found: list[tuple[str, list[Told]]] = []
    if findings.gathered.seen.any():
        found.append((MARKS, _marks(findings) or [Told("None found.")]))
    if findings.outside:
        found.append((BACKGROUND, _from_background(findings) or [Told("None found.")]))
    if findings.pairs:
        pairs = [
            Told(text, f"{pair.names[0]} and {pair.names[1]} confused", pair.units)
            for pair, text in zip(
                findings.pairs, confusion.sentences(findings.pairs, asked.target), strict=True
            )
        ]
        found.append((CONFUSED, [*pairs, Told(SHOWS[asked.target])]))
    if findings.clusters:
        found.append((CLUSTERS, [Told(text) for text in _clusters(findings)]))
    if findings.left_out:
        found.append((LEFT_OUT, [Told(text) for text in findings.left_out]))
    return [
        (title, [replace(one, text=printable(one.text), about=printable(one.about)) for one in told])
        for title, told in found
    ]


def markdown(findings: Findings) -> str:
    """All of it as a section of Markdown."""
    text = f"## Findings\n\n{HOW_TO_READ}\n"
    for title, lines in sections(findings):
        text += f"\n**{title}**\n\n" + "".join(f"- {line.text}\n" for line in lines)
    return text


def write_findings(findings: Findings, folder: Path) -> Path:
    """Write ``findings.json``, whole or not at all.

    Returns:
        Its path.
    """
    path = folder / "findings.json"
    text = as_json(as_document(findings)) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    return path


def as_document(findings: Findings) -> dict[str, Any]:
    """What ``findings.json`` says; photos are the names that the rows have."""
    photos = findings.asked.photos
    return {
        "marks at a fixed place": [
            _named(one.index, one.name, one.method)
            | {
                "place": one.place,
                "box": list(one.box),
                "share of the photos": one.share,
                "photos with a map": one.count,
                "share of the other classes": one.others,
                "peaks outside of boxes": one.outside,
                "p": one.p,
                "likeness of the photos there": one.likeness,
                "photos": photos(one.units),
            }
            for one in findings.places
        ],
        "evidence outside of objects": [
            _named(one.index, one.name, one.method)
            | {
                "share": _interval(one.share),
                "area outside": one.area,
                "excess": one.excess,
                "photos with boxes": one.count,
                "p": _number(one.p_holm),
                "told apart by the background": one.from_background,
                "photos": photos(one.units) if one.from_background else [],
            }
            for one in findings.outside
        ],
        "confused classes": [
            {
                "classes": [pair.first, pair.second],
                "names": list(pair.names),
                "confused": list(pair.count),
                "photos of each": list(pair.photos),
                "maps of the classes differ": [_difference(one) for one in pair.classes],
                "maps of confused photos differ": [_difference(one) for one in pair.confused],
                "photos": photos(pair.units),
            }
            for pair in findings.pairs
        ],
        "clusters": [
            _named(one.index, one.name, one.method)
            | {
                "maps": one.count,
                "clustered": one.clustered,
                "eigenvalues": list(one.eigenvalues),
                "clusters": [
                    {
                        "size": len(cluster.units),
                        "prototype": photos([cluster.prototype])[0],
                        "most evidence": cluster.place,
                        "share of it there": cluster.concentration,
                        "photos most like the prototype": photos(cluster.units[:_PHOTOS_OF_A_CLUSTER]),
                    }
                    for cluster in one.clusters
                ],
                "outliers": photos(one.outliers),
            }
            for one in findings.clusters
        ],
        "confused photos' maps": SHOWS[findings.asked.target],
        "left out": list(findings.left_out),
    }


def _marks(findings: Findings) -> list[Told]:
    return [
        Told(
            f"{text} Photos: {_few(findings.asked.photos(one.units[:_PHOTOS_IN_TEXT]), len(one.units))}.",
            f"{one.name}, {one.method}, {one.place}",
            one.units,
            one.method,
            one.box,
        )
        for one, text in zip(findings.places, places.sentences(findings.places), strict=True)
    ]


def _from_background(findings: Findings) -> list[Told]:
    found = [one for one in findings.outside if one.from_background]
    return [
        Told(text, f"{one.name}, {one.method}, evidence outside of its boxes", one.units, one.method)
        for one, text in zip(found, background.sentences(found), strict=True)
    ]


def _clusters(findings: Findings) -> list[str]:
    """How many classes have several, and those that part most clearly; findings.json has all."""
    several = [one for one in findings.clusters if len(one.clusters) > 1]
    text = f"{len(several)} of {len(findings.clusters)} classes and methods have more than one cluster "
    text += f"(at most {MOST_CLUSTERS}); the page shows all, with prototypes and outliers."
    widest = sorted(several, key=lambda one: -_gap(one))[:_PHOTOS_IN_TEXT]
    return [text, *(_of_class(findings, one) for one in widest)]


def _gap(one: ClassClusters) -> float:
    return one.eigenvalues[len(one.clusters)] - one.eigenvalues[len(one.clusters) - 1]


def _of_class(findings: Findings, one: ClassClusters) -> str:
    parts = [
        f"{len(cluster.units)} with most evidence {cluster.place} "
        f"(prototype {findings.asked.photos([cluster.prototype])[0]})"
        for cluster in one.clusters
    ]
    return f"{one.name} ({one.index}), {one.method}: {'; '.join(parts)}."


def _few(names: list[str], count: int) -> str:
    more = count - len(names)
    return ", ".join(names) + (f" and {more} more (findings.json)" if more else "")


def _named(index: int, name: str, method: str) -> dict[str, Any]:
    return {"class": index, "name": name, "method": method}


def _difference(one: Difference) -> dict[str, Any]:
    return {
        "method": one.method,
        "place": one.place,
        "box": list(one.box),
        "shares": [one.first, one.second],
        "p": one.p,
    }


def _interval(value: Estimate) -> dict[str, float | None]:
    return {"mean": value.mean, "low": _number(value.low), "high": _number(value.high)}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
