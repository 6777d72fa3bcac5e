"""Whether the memory of an evaluation stays flat: ``python benchmarks/evaluation_memory.py [MODEL [COPIES]]``.

The 500 photos beside the repository, ten times over, by ``lrp`` and patch masking, with pictures; prints what the process holds
after every 500 photos, and its growth since the first 500.
"""

import csv
import sys
import tempfile
from pathlib import Path

import psutil
import torch

from clarp.data.opening import open_dataset
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.models import load

PHOTOS = Path(__file__).resolve().parents[1] / "../shared/images/imagenet"
MIB = 2**20


def copied(folder: Path, copies: int) -> int:
    """A folder of links to the photos, each under several names; how many photos there are."""
    with (PHOTOS / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for copy in range(copies):
            for row in rows:
                name = f"{copy}_{row['file']}"
                (folder / name).symlink_to((PHOTOS / row["file"]).resolve())
                writer.writerow({**row, "file": name})
    return len(rows)


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else "efficientnet-lite0"
    copies = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    torch.set_num_threads(1)
    classifier, process = load(model), psutil.Process()
    held: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as name:
        photos = Path(name) / "photos"
        photos.mkdir()
        step = copied(photos, copies)
        settings = Settings(("lrp",), metrics(["patch-masking"]))
        run = Run(open_dataset(str(photos), classifier.labels), classifier, settings, Path(name) / "run")

        def look(done: int, total: int) -> None:
            reached = done // step * step
            if reached and reached not in held:
                held[reached] = process.memory_info().rss / MIB
                print(f"{reached:6} of {total} photos  {held[reached]:7.0f} MiB", flush=True)

        run.complete(look)
    first, *later = held.values()
    print(f"growth since the first {step}: {max(later) / first - 1:+.1%}")


if __name__ == "__main__":
    main()
