"""The report's page of many pictures: how large it is, how long it takes to write, and how fast it is in Chromium.

    python benchmarks/report_page.py --pictures 5000 --out /tmp/page

Pictures and maps are made up; nothing is explained. Chromium (/usr/bin/chromium) and playwright are needed for the times in
the browser.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from clarp.evaluation import pictures
from clarp.evaluation.findings import Findings
from clarp.evaluation.page import write_page
from clarp.evaluation.pictures import Cells
from clarp.evaluation.store import Store
from clarp.evaluation.tables import Report

METHODS = ("lrp", "slrp", "sglrp", "ssglrp", "random", "centre")
COLUMNS = {"patch-masking/drop@9": "higher", "pointing/hit": "higher", "deletion/auc": "lower"}
PER_PART = 16


def made_up(folder: Path, count: int) -> Store:
    """A run's folder with ``count`` pictures."""
    generator = np.random.default_rng(0)
    store = Store(folder)
    about = {"samples": count, "dataset": f"made up: {count} samples", "model": "none", "notes": []}
    about |= {"classes": [f"class {k}" for k in range(1000)], "columns": COLUMNS}
    with store.locked():
        store.begin({"methods": dict.fromkeys(METHODS, "")}, about)
        ranges = [(start, min(start + PER_PART, count)) for start in range(0, count, PER_PART)]
        for start, stop in ranges:
            photos = [
                pictures.photo_bytes(
                    np.kron(generator.integers(0, 256, (28, 28, 3)), np.ones((8, 8, 1))).astype(np.uint8)
                )
                for _ in range(start, stop)
            ]
            noise = torch.from_numpy(generator.laplace(size=(stop - start, 224, 224)))
            maps = [
                [None] * (stop - start) if name in {"random", "centre"} else list(map(Cells.of, noise))
                for name in METHODS
            ]
            store.write_pictures(start, stop, pictures.columns(photos, maps), pictures.schema())
            rows = [row(number, method, generator) for number in range(start, stop) for method in METHODS]
            table = pa.Table.from_pylist(rows)
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
            store.write_part(start, stop, columns, table.schema, [])
        store.merge(ranges, [])
    return store


def row(number: int, method: str, generator: np.random.Generator) -> dict[str, object]:
    """One row of a unit."""
    kind = number % 1000
    values = dict(
        zip(COLUMNS, (generator.normal(), float(generator.random() < 0.7), generator.random()), strict=True)
    )
    about = {"id": f"{kind:04d}/{number:06d}.jpg", "label": str(kind), "method": method, "sample": number}
    about |= {
        "class": kind,
        "target": kind,
        "predicted": kind if number % 5 else 0,
        "probability": 0.5,
        "difficult": False,
    }
    return about | values


def in_browser(page: Path) -> dict[str, float]:
    """Seconds of what a reader waits for, and megabytes of the page's heap."""
    from playwright.sync_api import sync_playwright

    found = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_context(offline=True, viewport={"width": 1280, "height": 900}).new_page()

        def until(done: str) -> None:
            end = time.perf_counter() + 20
            while not tab.evaluate(done):  # the page's policy forbids wait_for_function's eval
                if time.perf_counter() > end:
                    raise TimeoutError(done)
                time.sleep(0.005)

        def timed(name: str, act: str, done: str) -> None:
            start = time.perf_counter()
            tab.evaluate(act)
            until(done)
            found[name] = round(time.perf_counter() - start, 3)

        start = time.perf_counter()
        tab.goto(page.as_uri())
        tab.wait_for_selector("#grid .card", state="attached")
        found["open"] = round(time.perf_counter() - start, 3)
        drawn = "document.querySelectorAll('#grid .card canvas').length >= 8"
        timed(
            "pictures of the first cards",
            "document.getElementById('grid').scrollIntoView({behavior: 'instant'})",
            drawn,
        )
        timed("next page", "document.getElementById('after').click()", drawn)
        timed("last page", "document.getElementById('last').click()", drawn)
        choose = "(() => {{ const e = document.getElementById('{0}'); e.value = '{1}'; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})()"
        timed(
            "order by a column",
            choose.format("order", "worst deletion/auc"),
            f"document.getElementById('page').textContent.startsWith('page 1 ') && {drawn}",
        )
        timed(
            "one class",
            choose.format("class", "7"),
            "document.getElementById('status').textContent.includes(' of ') && document.querySelectorAll('#grid > li').length <= 5",
        )
        timed(
            "all again",
            choose.format("class", ""),
            "document.querySelectorAll('#grid > li').length === 24",
        )
        for _ in range(30):
            tab.evaluate("document.getElementById('after').click()")
            until(drawn)
        found["heap, MB"] = round(tab.evaluate("performance.memory.usedJSHeapSize") / 1e6)
        browser.close()
    return found


def main() -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    store = made_up(arguments.out, arguments.pictures)
    made = time.perf_counter() - start
    report = Report.of(store, "ssglrp", resamples=200)
    start = time.perf_counter()
    page = write_page(report, store, arguments.out / "report", Findings.of(store))
    files = [page, *(arguments.out / "report" / "data").glob("*")]
    kept = sum(path.stat().st_size for path in (arguments.out / "pictures").iterdir())
    found = {
        "pictures": arguments.pictures,
        "made up in, s": round(made, 1),
        "kept by the run, kB a picture": round(kept / 1e3 / arguments.pictures, 1),
        "page written in, s": round(time.perf_counter() - start, 1),
        "page and data, MB": round(sum(path.stat().st_size for path in files) / 1e6, 1),
        "files": len(files),
        "index, MB": round((arguments.out / "report" / "data" / "index.js").stat().st_size / 1e6, 2)
        if len(files) > 1
        else 0,
    }
    print(json.dumps(found | in_browser(page), indent=1))


if __name__ == "__main__":
    main()
