"""Memory of a listing: ``python benchmarks/listing.py [FILES [FOLDERS]]``.

Makes FILES (100,000) empty files in FOLDERS (100) class folders, opens the data set as a folder and as a URL
(``file://``, which is read by fsspec as an object store is), and prints for each, in a process of its own, the time
and the resident memory: what the data set holds, and the peak while it was opened.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

OPENED = """
import resource, sys, time
import psutil
import fsspec, clarp.data.opening
list(fsspec.filesystem("file").ls("/"))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
held = psutil.Process().memory_info().rss / 2**20
began, used = time.monotonic(), time.process_time()
found = clarp.data.opening.open_dataset(sys.argv[1])
took, used = time.monotonic() - began, time.process_time() - used
size = psutil.Process().memory_info().rss / 2**20 - held
print(f"{len(found):,} samples: {took:.1f} s ({used:.1f} s of processor time), "
      f"holds {size:.0f} MiB, peak {peak() - held:.0f} MiB")
"""


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:]]
    files, folders = (*numbers, *(100_000, 100)[len(numbers) :])
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "photos"
        for number in range(folders):
            (root / f"class{number:04d}").mkdir(parents=True)
        for number in range(files):
            (root / f"class{number % folders:04d}" / f"{number:08d}.jpg").touch()
        for place in (str(root), f"file://{root}"):
            print(place.partition("://")[0].replace(str(root), "folder"), end=": ", flush=True)
            subprocess.run([sys.executable, "-c", OPENED, place], check=True)


if __name__ == "__main__":
    main()
