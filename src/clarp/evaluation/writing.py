"""A report as files: CSV for machines, Markdown and LaTeX for papers, curves as pictures."""

import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import markdown as findings_markdown
from clarp.evaluation.findings.writing import write_findings
from clarp.evaluation.statistics import LEAST_PICTURES
from clarp.evaluation.tables import RATIO_TO, ClassLine, Curve, Estimate, Report, TableLine
from clarp.files import write_atomically
from clarp.text import cell, printable

DASH = "–"
_COLOURS = ("#0072b2", "#b54a00", "#00785a", "#a3487a", "#7a6200", "#9c1c3c", "#55575c", "#8a3ffc")
"""Those of the page; the marks tell the lines apart without them."""
_MARKS = "osD^vPX*"
_FEW = 12  # points of a curve that are shown as such
_LATEX = {"_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", DASH: "--", "±": r"$\pm$"}

_OF_TASK = {
    "binary": " The model's task is binary: one question with two answers, whose maps by clarp's methods are "
    "each other's negatives.",
    "multilabel": " The model's task is multilabel: each class is a question of its own, with its own "
    "probability and without rivals.",
}


def write(report: Report, folder: Path, findings: Findings) -> list[Path]:
    """Write all files of a report.

    Args:
        report: what to write.
        folder: made if it isn't there; files of an earlier report are replaced.
        findings: of the same run.

    Returns:
        What was written: ``summary.csv``, ``summary.md``, ``summary.tex``, ``classes.csv``,
        ``findings.json`` and the curves.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, text in (
        ("summary.csv", _csv([_flat(line) for line in report.lines])),
        ("summary.md", f"{markdown(report)}\n{findings_markdown(findings)}"),
        ("summary.tex", latex(report)),
        ("classes.csv", _csv([_class_row(line) for line in report.classes])),
    ):
        path = folder / name
        write_text(path, text)
        written.append(path)
    written.append(write_findings(findings, folder))
    for curve in report.curves:
        path = folder / f"{re.sub(r'[^a-zA-Z0-9=.+-]+', '-', curve.name)}.png"
        canvas = FigureCanvasAgg(drawn(curve))
        write_atomically(path, canvas.print_png)
        written.append(path)
    return written


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def blocks(report: Report) -> Iterator[tuple[str, list[list[str]]]]:
    """For each column and subset a title, and a table: the head, then one line per method."""
    for (column, subset, better), group in groupby(
        report.lines, key=lambda line: (line.column, line.subset, line.better)
    ):
        lines = list(group)
        title = f"{column}, {better} is better" + ("" if subset == "all" else f", {subset} subset")
        head = ["method", "n", "mean [95 %]", "over classes", f"ratio to {RATIO_TO}"]
        head += [f"{report.reference} minus it [95 %]", "p (Holm)"]
        yield title, [head, *(_cells(line) for line in lines)]


def headline(report: Report) -> str:
    """What the tables are of, in a sentence or two."""
    text = printable(
        f"{report.pictures} pictures of {report.about['dataset']}; model {Path(report.about['model']).name}."
    )
    if not report.complete:
        text += f" The run is not complete: {report.about['samples']} pictures belong to it."
    if report.problems:
        text += f" {report.problems} files gave no rows: problems.json."
    if report.damaged:
        names = ", ".join(report.damaged)
        text += f" Damaged, and not used: {names}; the same `clarp evaluate` makes them anew."
    if report.lost:
        text += f" With {', '.join(report.lost)} more than half of the relevance never reached the pixels."
    return text


def explanation(report: Report) -> str:
    """How to read the tables."""
    return (
        f"Intervals: percentile bootstrap over pictures, 95 %, from {LEAST_PICTURES} pictures on. "
        "Differences are paired, picture by picture; p: sign-flip test, two-sided, Holm-corrected over all "
        f"tests of this report. The ratio stands only where the interval of {RATIO_TO} lies above zero. "
        f"The reference is {report.reference}." + _OF_TASK.get(str(report.about.get("task")), "")
    )


def markdown(report: Report) -> str:
    """All tables as Markdown."""
    parts = [headline(report), explanation(report)]
    for title, (head, *lines) in blocks(report):
        rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
        parts.append(f"**{title}**\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows))
    return "\n\n".join(parts) + "\n"


def latex(report: Report) -> str:
    """All tables as LaTeX, for the package booktabs."""
    parts: list[str] = [f"% {headline(report)}\n% {explanation(report)}"]
    for title, (head, *lines) in blocks(report):
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_escaped(title)}}}\n\\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}\n\\toprule\n"
            + _latex_row(head)
            + "\\midrule\n"
            + "".join(map(_latex_row, lines))
            + "\\bottomrule\n\\end{tabular}\n\\end{table}"
        )
    return "\n\n".join(parts) + "\n"


def drawn(curve: Curve) -> Figure:
    """A curve as a figure: one line per method."""
    figure = Figure(figsize=(6.4, 4.2), dpi=200, layout="constrained")
    axes = figure.subplots()
    few = len(curve.at) <= _FEW
    for place, (method, values) in enumerate(curve.values.items()):
        axes.plot(
            curve.at,
            values,
            color=_COLOURS[place % len(_COLOURS)],
            marker=_MARKS[place % len(_MARKS)] if few else None,
            markersize=4,
            label=method,
        )
    if few:
        axes.set_xticks(curve.at)
    axes.set_xlabel(axis(curve.name))
    axes.set_ylabel(curve.name)
    axes.grid(visible=True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize="small", frameon=False)
    return figure


def axis(name: str) -> str:
    """What a curve is drawn over."""
    metric, _, column = name.partition("/")
    kind = metric.partition(":")[0]
    known = {"patch-masking": "side of the patch, pixels", "aopc": "regions filled"}
    return known.get(kind, "share of the pixels" if column == "p" else "")


def _cells(line: TableLine) -> list[str]:
    p = DASH if math.isnan(line.p_holm) else "<0.001" if line.p_holm < 0.001 else f"{line.p_holm:.3f}"
    ratio = DASH if math.isnan(line.ratio) else f"{line.ratio:.3f}"
    counted = f"{line.n}" + (f" (+{line.absent} not asked)" if line.absent else "")
    intervals = _interval(line.value), _interval(line.classes)
    return [line.method, counted, *intervals, ratio, _interval(line.difference, sign=True), p]


def _interval(value: Estimate, *, sign: bool = False) -> str:
    if math.isnan(value.mean):
        return DASH
    form = "+.4f" if sign else ".4f"
    if math.isnan(value.low):
        return f"{value.mean:{form}}"
    return f"{value.mean:{form}} [{value.low:{form}}, {value.high:{form}}]"


def _flat(line: TableLine) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in asdict(line).items():
        if isinstance(value, dict):
            found |= {name if end == "mean" else f"{name}_{end}": number for end, number in value.items()}
        else:
            found[name] = value
    return found


def _class_row(line: ClassLine) -> dict[str, Any]:
    return {"column": line.column, "class": line.index, "name": line.name, "n": line.n, **line.values}


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """With an empty field where there is no number; nothing without rows."""
    file = io.StringIO()
    if rows:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _csv_cell(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return cell(value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_escaped, cells)) + " \\\\\n"


def _escaped(text: str) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    return re.sub(r"(?<![\w{])<", "$<$", escaped)
