"""``clarp report``: a run's folder becomes tables, curves, findings and a page."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from clarp.data.stores import RemoteFolder, is_url
from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import sections
from clarp.evaluation.page import write_page
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report
from clarp.evaluation.writing import blocks, explanation, headline, write


def run(folder: str, reference: str, resamples: int, seed: int) -> int:
    """Print the tables and write the files below ``report`` in the run's folder, a path or a URL.

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
    with _writable(f"{folder.rstrip('/')}/report") as (out, name_of):
        written = write(report, out, findings)
        written.append(write_page(report, store, out, findings))
    for path in written:
        console.print(name_of(path), markup=False, highlight=False, soft_wrap=True)
    return 0


@contextmanager
def _writable(place: str) -> Iterator[tuple[Path, Callable[[Path], str]]]:
    """A folder on a disk to write to, and what its files are called at the place where they will be."""
    if not is_url(place):
        yield Path(place), str
        return
    with TemporaryDirectory() as name:
        root = Path(name)
        yield root, lambda path: f"{place}/{path.relative_to(root).as_posix()}"
        folder = RemoteFolder(place)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    folder.put(path.relative_to(root).as_posix(), file)
