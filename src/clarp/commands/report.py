"""``clarp report``: a run's folder becomes tables, curves, findings and a page."""

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import sections
from clarp.evaluation.page import write_page
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import blocks, explanation, headline, write


def run(folder: Path, reference: str, resamples: int, seed: int) -> int:
    """Print the tables and write the files below ``folder/report``.

    Returns:
        0.

    Raises:
        ValueError: the folder has no run, no rows yet, or no such method.
    """
    store = Store(folder)
    names = list(store.about()["fingerprint"]["methods"])
    if reference not in names and reference == "ssglrp":
        reference = names[0]  # the default, of a run without it
    report = Report.of(store, reference, resamples=resamples, seed=seed)
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 160)
    console.print(headline(report), markup=False, highlight=False)
    for title, (head, *lines) in blocks(report):
        table = Table(title=title, title_justify="left", title_style="bold")
        for place, name in enumerate(head):
            table.add_column(
                name.replace("[", r"\["), justify="left" if place == 0 else "right", no_wrap=place == 0
            )
        for line in lines:
            table.add_row(*(cell.replace("[", r"\[") for cell in line))
        console.print(table)
    console.print(explanation(report), markup=False, highlight=False)
    findings = Findings.of(store, seed=seed)
    for question, answers in sections(findings):
        console.print(f"\n{question}", style="bold", markup=False, highlight=False)
        for answer in answers:
            console.print(f"- {answer.text}", markup=False, highlight=False)
    written = write(report, folder / "report", findings)
    for path in [*written, write_page(report, store, folder / "report", findings)]:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)
    return 0
