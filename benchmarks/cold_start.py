"""What a command costs from a cold process to its end: medians of wall and CPU seconds, the commands interleaved.

python benchmarks/cold_start.py --repeats 5
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

PHOTO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
FORWARD = """
import torch
from clarp import models
classifier = models.load("efficientnet-lite0")
with torch.inference_mode():
    classifier.module(torch.zeros(1, 3, 224, 224))
"""


def commands(folder: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """By its name the command and its environment."""
    clarp = [sys.executable, "-m", "clarp"]
    explain = [*clarp, "explain", str(PHOTO), "--out", str(folder / "out")]
    return {
        "import torch": ([sys.executable, "-c", "import torch"], {}),
        "import torch, load the model, one forward": ([sys.executable, "-c", FORWARD], {}),
        "clarp --help": ([*clarp, "--help"], {}),
        "clarp explain --help": ([*clarp, "explain", "--help"], {}),
        "clarp methods": ([*clarp, "methods"], {}),
        "clarp explain, no cache": (explain, {"CLARP_CACHE": "off"}),
        "clarp explain, warm cache": (explain, {"CLARP_CACHE": str(folder / "cache")}),
    }


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of one process."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(
        command,
        check=True,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wall, after = time.perf_counter() - start, os.times()
    used = (after.children_user - before.children_user) + (after.children_system - before.children_system)
    return wall, used


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        asked = commands(Path(name))
        timed(*asked["clarp explain, warm cache"])  # warms it
        found: dict[str, list[tuple[float, float]]] = {label: [] for label in asked}
        for _ in range(repeats):
            for label, command in asked.items():
                found[label].append(timed(*command))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {repeats} repeats")
    print("| command | wall, s | CPU, s |\n|---|---|---|")
    for label, times in found.items():
        walls, used = zip(*times, strict=True)
        print(f"| `{label}` | {statistics.median(walls):.2f} | {statistics.median(used):.2f} |")


if __name__ == "__main__":
    main()
