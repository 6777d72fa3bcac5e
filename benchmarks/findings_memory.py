"""Whether the memory of a report's findings stays flat: ``python benchmarks/findings_memory.py --photos 100000``.

Makes up a run's folder of so many photos, without explaining anything: 100 classes, two methods, maps of 56 x 56 cells, boxes in
every fifth photo. One class has a mark at the bottom left in half of its photos. Then it computes the findings of a tenth, of a half
and of all of it, each in a process of its own, and prints seconds and the most memory that each held.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import torch

from clarp.evaluation import pictures
from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import write_findings
from clarp.evaluation.pictures import CELLS, Cells
from clarp.evaluation.store import Store

METHODS = ("ssglrp", "lrp")
CLASSES = 100
MARKED = 7
PER_PART = 16
MIB = 2**20


def made_up(folder: Path, count: int) -> None:
    """A run's folder; maps are shifted copies of a few, so that it takes minutes and not hours."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:CELLS, :CELLS] / CELLS
    stock = []
    for _ in range(400):
        down, right = generator.uniform(0.15, 0.85, 2)
        peak = np.exp(-((y - down) ** 2 + (x - right) ** 2) / 0.01)
        stock.append(Cells.of(torch.from_numpy(peak + generator.normal(0, 0.05, peak.shape))))
    mark = Cells.of(torch.from_numpy(np.exp(-((y - 0.88) ** 2 + (x - 0.12) ** 2) / 0.003)))
    photo = pictures.photo_bytes(generator.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    store = Store(folder)
    about = {"samples": count, "dataset": f"made up: {count} samples", "model": "none", "notes": []}
    about |= {"classes": [f"class {k}" for k in range(CLASSES)], "columns": {"masking/drop": "higher"}}
    ranges = [(start, min(start + PER_PART, count)) for start in range(0, count, PER_PART)]
    with store.locked():
        store.begin({"methods": dict.fromkeys((*METHODS, "random"), "")}, about)
        for start, stop in ranges:
            own = range(start, stop)
            kinds = {n: n * CLASSES // count for n in own}
            cells: list[list[Cells | None]] = [
                [
                    mark if kinds[n] == MARKED and n % 2 else stock[int(generator.integers(len(stock)))]
                    for n in own
                ]
                for _ in METHODS
            ]
            boxes = [[(0.2, 0.2, 0.8, 0.7)] if n % 5 == 0 else [] for n in own]
            shown = pictures.columns([photo for _ in own], [*cells, [None for _ in own]], boxes)
            store.write_pictures(start, stop, shown, pictures.schema())
            table = pa.Table.from_pylist(
                [row(n, kinds[n], method) for n in own for method in (*METHODS, "random")]
            )
            columns = {name: table.column(name).to_pylist() for name in table.column_names}
            store.write_part(start, stop, columns, table.schema, [])
        store.merge(ranges, [])


def row(number: int, kind: int, method: str) -> dict[str, object]:
    told = (kind + 1) % CLASSES if number % 10 == 0 else kind
    about = {"id": f"{kind:03d}/{number:07d}.jpg", "label": str(kind), "method": method, "sample": number}
    about |= {"class": kind, "target": kind, "predicted": told, "probability": 0.5, "difficult": None}
    return about | {"masking/drop": 0.0}


def measure(folder: Path) -> None:
    """Compute the findings, and print what it took as JSON."""
    process = psutil.Process()
    before = process.memory_info().rss
    start = time.perf_counter()
    findings = Findings.of(Store(folder))
    seconds = time.perf_counter() - start
    path = write_findings(findings, folder)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {
        "photos": len(findings.asked),
        "seconds": round(seconds, 1),
        "held before, MiB": round(before / MIB),
        "held at most, MiB": round(most / MIB),
        "maps kept, MiB": round(sum(frames.nbytes for _, frames in findings.gathered.kept.values()) / MIB),
        "findings.json, MB": round(path.stat().st_size / 1e6, 1),
        "marks": [f"{one.name}, {one.method}, {one.place}, {one.share:.2f}" for one in findings.places],
        "clusters": len(findings.clusters),
    }
    print(json.dumps(found), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measure:
        measure(arguments.measure)
        return
    for count in (arguments.photos // 10, arguments.photos // 2, arguments.photos):
        folder = arguments.out / str(count)
        if not (folder / "rows.parquet").exists():
            made_up(folder, count)
        command = [sys.executable, __file__, "--out", str(arguments.out), "--measure", str(folder)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
