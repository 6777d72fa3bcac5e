"""The page's files from a report: one file, or above a size one file and its data beside it."""

import base64
import hashlib
import shutil
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

import clarp
from clarp.evaluation.browsing import Index, as_script, parts
from clarp.evaluation.drawing import FOREST, HEIGHT, WIDTH, Plot, whiskers
from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import HOW_TO_READ
from clarp.evaluation.page.findings import findings_shown
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import axis, blocks, explanation, headline, write_text
from clarp.optional import optional
from clarp.render.palette import paint
from clarp.text import document as as_json

INLINE = 4_000_000
"""Bytes of data up to which the page is one file; above, the data goes to ``data/`` beside it."""
_STEPS = 255


def write_page(report: Report, store: Store, folder: Path, findings: Findings) -> Path:
    """Write ``index.html``, and ``data/`` where the pictures are too many for one file.

    The page needs no network and no server. Its policy allows its own style and script by their hashes,
    pictures inside it, and scripts beside it where the data is there; nothing else.

    Args:
        report: the numbers.
        store: the run's folder, for rows and pictures.
        folder: where the report is, made if it isn't there; what an earlier page left in ``data/`` is
            removed.
        findings: of the same run.

    Returns:
        The path of the page.
    """
    index = Index.of(store, report)
    document = index.document | {"parts": index.parts, "colours": _colours()}
    told = findings_shown(findings)
    document["findings"] = {"photos": told["photos"], "clusters": told["clusters"]}
    pictures = parts(store, len(document["methods"])) if index.parts else iter(())
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)
    held: list[str] = [as_script(document)]
    size, beside = len(held[0]), False
    for number, part in enumerate(pictures):
        text = as_script(part)
        size += len(text)
        if not beside and size > INLINE:
            beside = True
            (folder / "data").mkdir()
            write_text(folder / "data" / "index.js", f"clarpIndex({held[0]});\n")
            for earlier, kept in enumerate(held[1:]):
                write_text(_part(folder, earlier), f"clarpPart({earlier},{kept});\n")
        if beside:
            write_text(_part(folder, number), f"clarpPart({number},{text});\n")
        else:
            held.append(text)
    inside = "" if beside else f'{{"index":{held[0]},"parts":[{",".join(held[1:])}]}}'
    path = folder / "index.html"
    write_text(path, _html(report, document, told, inside))
    return path


def _html(report: Report, document: dict[str, Any], told: dict[str, Any], inside: str) -> str:
    jinja = optional("jinja2", "The report's page")
    files = resources.files("clarp.evaluation.page")
    style, *scripts = (
        (files / name).read_text(encoding="utf-8")
        for name in ("page.css", "page.js", "findings.js", "begin.js")
    )
    script = "".join(scripts)
    environment = jinja.Environment(
        loader=jinja.FunctionLoader(lambda name: (files / name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text: str = environment.get_template("page.html.jinja").render(
        version=clarp.__version__,
        headline=headline(report),
        explanation=explanation(report),
        methods=document["methods"],
        pictured=document["pictured"],
        columns=document["columns"],
        classes=_named_classes(document),
        units=len(document["id"]),
        tables=_tables(report),
        curves=[(curve, axis(curve.name), Plot.of(curve)) for curve in report.curves],
        findings=told,
        how_to_read=HOW_TO_READ,
        width=WIDTH,
        height=HEIGHT,
        forest=FOREST,
        manifest=as_json(report.about),
        notes=report.about.get("notes", []),
        inside=inside,
        style=style,
        script=script,
        policy=_policy(style, script, beside=not inside),
    )
    return text


def _policy(style: str, script: str, *, beside: bool) -> str:
    """What the page may do; a file may not fetch, so data beside it comes as scripts of its own folder."""
    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": _hash(style),
        "script-src": _hash(script) + (" 'self'" if beside else ""),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _tables(report: Report) -> list[dict[str, Any]]:
    """Of each column and subset the title, the head, and the cells with each interval's picture."""
    groups = groupby(report.lines, key=lambda line: (line.column, line.subset))
    found = []
    for (title, (head, *cells)), (_, group) in zip(blocks(report), groups, strict=True):
        lines = list(group)
        shown = [[name, *(cell.replace("-", "−") for cell in numbers)] for name, *numbers in cells]
        found.append({"title": title, "head": head, "rows": list(zip(shown, whiskers(lines), strict=True))})
    return found


def _named_classes(document: dict[str, Any]) -> list[tuple[int, str]]:
    """The classes that units are of, by name."""
    indices = {index for label in document["label"] for index in label}
    return sorted(
        ((k, document["classes"].get(k, str(k))) for k in indices), key=lambda pair: pair[1].casefold()
    )


def _colours() -> str:
    """The colours from -1 to 1 in equal steps, then that of NaN: six hexadecimal digits each."""
    scale = [2 * step / (_STEPS - 1) - 1 for step in range(_STEPS)]
    return "".join(to_hex(colour)[1:] for colour in paint(np.array([*scale, np.nan])))


def _part(folder: Path, number: int) -> Path:
    return folder / "data" / f"part-{number:05d}.js"
