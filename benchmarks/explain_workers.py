"""How fast a folder is explained by processes: ``python benchmarks/explain_workers.py [PHOTOS [ROUNDS [MODEL]]]``.

One process with one thread, one with a thread for each core, and as many processes as cores with one thread each; in turns. Prints photos a second, counted by the arrays that are there, from the first 32 on (the model is
loaded, the other processes too); the whole command's seconds; and the memory of all processes at most. Says whether the files of one process with one thread and those of several are the same. Run it on a machine that
does nothing else.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from evaluation_workers import CORES, LAYOUTS, PHOTOS, memory

SKIPPED = 16 * CORES


def measured(
    options: list[str], threads: int, photos: Path, model: str, out: Path
) -> tuple[float, float, float]:
    """Photos a second between the first and the last, seconds in all, and MiB of all processes at most."""
    command = [sys.executable, "-m", "clarp", "explain", str(photos), "--model", model, "--out", str(out)]
    began = time.monotonic()
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    held, seen, first, last = 0.0, 0, (0, 0.0), (0, 0.0)
    while process.poll() is None:
        time.sleep(0.1)
        found = len(list(out.glob("*.npy")))
        if found > seen:
            seen, last = found, (found, time.monotonic())
            first = last if first[0] < SKIPPED else first
        held = max(held, memory(process.pid))
    assert process.returncode == 0, command
    return (last[0] - first[0]) / (last[1] - first[1]), time.monotonic() - began, held


def files(out: Path) -> dict[str, bytes]:
    """All but the manifest, which has times."""
    return {path.name: path.read_bytes() for path in out.iterdir() if path.name != "manifest.json"}


def main() -> None:
    arguments = sys.argv[1:]
    count, rounds = (
        int(arguments[k]) if len(arguments) > k else default for k, default in enumerate((256, 3))
    )
    model = arguments[2] if len(arguments) > 2 else "efficientnet-lite0"
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LAYOUTS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photos").mkdir()
        for number, path in enumerate(sorted(PHOTOS.glob("*.jpg"))[:count]):
            (folder / "photos" / f"{number:05}.jpg").symlink_to(path.resolve())
        for turn in range(rounds):
            for place, (layout, (options, threads)) in enumerate(LAYOUTS.items()):
                out = folder / f"{turn}-{place}"
                found[layout].append(measured(options, threads, folder / "photos", model, out))
                rate, seconds, held = found[layout][-1]
                print(
                    f"round {turn + 1}: {layout:32} {rate:6.2f} photos/s {seconds:6.0f} s {held:6.0f} MiB",
                    flush=True,
                )
            one, several = files(folder / f"{turn}-0"), files(folder / f"{turn}-{len(LAYOUTS) - 1}")
            print(f"round {turn + 1}: {len(one)} files, {'all the same' if one == several else 'DIFFERENT'}")
    first = median(rate for rate, _, _ in found[next(iter(found))])
    for layout, values in found.items():
        rate, seconds, held = (median(value) for value in zip(*values, strict=True))
        print(
            f"median:  {layout:32} {rate:6.2f} photos/s {rate / first:5.2f} times, {seconds:6.0f} s, {held:6.0f} MiB"
        )


if __name__ == "__main__":
    main()
