"""How fast an evaluation is by processes: ``python benchmarks/evaluation_workers.py [PHOTOS [ROUNDS [MODEL]]]``.

One process with one thread, one with a thread for each core, and as many processes as cores with one thread each; in turns. Prints photos a second from the first part on (the model is loaded, the other
processes too), the whole command's seconds, and the largest process's memory. Run it on a machine that does nothing else.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

PHOTOS = Path(__file__).resolve().parents[1] / "../shared/images/imagenet"
CORES = os.cpu_count() or 1
LAYOUTS = {
    "one process, one thread": ([], 1),
    f"one process, {CORES} threads": ([], CORES),
    f"{CORES} processes, one thread each": (["--workers", str(CORES)], 1),
}


def measured(
    options: list[str], threads: int, photos: int, model: str, folder: Path
) -> tuple[float, float, float]:
    """Photos a second between the first part and the last, seconds in all, and MiB of all processes at most."""
    command = [
        sys.executable,
        "-m",
        "clarp",
        "evaluate",
        str(PHOTOS),
        "--limit",
        str(photos),
        "--model",
        model,
    ]
    command += ["--methods", "lrp,ssglrp", "--metrics", "patch-masking", "--out", str(folder), *options]
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    held, parts = 0.0, []
    while process.poll() is None:
        time.sleep(0.1)
        if len(found := list(folder.glob("parts/*.parquet"))) > len(parts):
            parts += [time.monotonic()] * (len(found) - len(parts))
        held = max(held, memory(process.pid))
    assert process.returncode == 0, command
    # The first parts of all workers end at about the same time; from then on it is even.
    skipped = CORES
    return 16 * (len(parts) - skipped) / (parts[-1] - parts[skipped - 1]), time.monotonic() - began, held


def memory(pid: int) -> float:
    """MiB of a process and all below it, what they share counted once each."""
    total = 0.0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            total += process.memory_full_info().uss / 2**20
    except psutil.Error:
        pass
    return total


def main() -> None:
    arguments = sys.argv[1:]
    photos, rounds = (
        int(arguments[k]) if len(arguments) > k else default for k, default in enumerate((256, 3))
    )
    model = arguments[2] if len(arguments) > 2 else "efficientnet-lite0"
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in LAYOUTS}
    for turn in range(rounds):
        for name, (options, threads) in LAYOUTS.items():
            with tempfile.TemporaryDirectory() as folder:
                found[name].append(measured(options, threads, photos, model, Path(folder) / "run"))
            rate, seconds, held = found[name][-1]
            print(
                f"round {turn + 1}: {name:32} {rate:6.2f} photos/s {seconds:6.0f} s {held:6.0f} MiB",
                flush=True,
            )
    first = median(rate for rate, _, _ in found[next(iter(found))])
    for name, values in found.items():
        rate, seconds, held = (median(value) for value in zip(*values, strict=True))
        print(
            f"median:  {name:32} {rate:6.2f} photos/s {rate / first:5.2f} times, {seconds:6.0f} s, {held:6.0f} MiB"
        )


if __name__ == "__main__":
    main()
