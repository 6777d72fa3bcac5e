"""Memory over a large data set: ``python benchmarks/many_photos.py [PHOTOS [WORKERS]] [--packed]``.

Makes PHOTOS (100,000) photos of 32 x 32 pixels, evaluates them with a tiny net, kills the command (``kill -9``)
half-way, and gives it again. Prints the resident memory of the command's process as the run proceeds: after the
listing it should not grow with the photos that are done. With ``--packed`` the photos are packed into shards
first, and the run is over these; it also prints what packing and opening take, of folder and shards.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4),
    ).eval()

labels = ["ant", "bee", "cow", "dog"]

def preprocess(image):
    pixels = torch.frombuffer(bytearray(image.resize((32, 32)).tobytes()), dtype=torch.uint8)
    return pixels.view(32, 32, 3).permute(2, 0, 1) / 255 - 0.5
"""
STEPS = 10
OPENED = """
import sys, time
import psutil, pyarrow
import clarp.data.opening, pyarrow.compute, pyarrow.parquet
pyarrow.array([1])
held = psutil.Process().memory_info().rss
began = time.monotonic()
found = clarp.data.opening.open_dataset(sys.argv[1], ["ant", "bee", "cow", "dog"])
opened = time.monotonic()
size = (psutil.Process().memory_info().rss - held) / 2**20
found.fingerprint()
print(f"{found}: opened in {opened - began:.2f} s, {size:.0f} MiB; fingerprint {time.monotonic() - opened:.2f} s")
"""


def made(folder: Path, count: int) -> list[str]:
    """The photos and the model, and the command."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / "photos" / ["ant", "bee", "cow", "dog"][number % 4] / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    (folder / "toy.py").write_text(MODEL)
    command = [sys.executable, "-m", "clarp", "evaluate", str(folder / "photos"), "--methods", "ssglrp"]
    command += ["--model", f"{folder / 'toy.py'}:build", "--metrics", "patch_masking:size=5:fill=colour"]
    return [*command, "--batch-size", "64", "--no-pictures", "--out", str(folder / "run")]


def watched(command: list[str], parts: Path, total: int, *, until: float = 1.0) -> None:
    """Run it, and print its memory as parts appear; killed at a share of them."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    told = 0
    while process.poll() is None:
        time.sleep(0.5)
        done = len(list(parts.glob("*.parquet"))) / total
        try:
            held = psutil.Process(process.pid).memory_info().rss / 2**20
        except psutil.Error:
            continue
        if done * STEPS >= told:
            told = int(done * STEPS) + 1
            print(f"{time.monotonic() - began:6.0f} s  {done:4.0%} done  {held:6.0f} MiB", flush=True)
        if done >= until:
            process.kill()
            process.wait()
            print("killed", flush=True)
            return
    print(f"{time.monotonic() - began:6.0f} s  exit code {process.returncode}", flush=True)


def packed(command: list[str], folder: Path) -> None:
    """Pack the photos, and change the command to the shards."""
    began = time.monotonic()
    subprocess.run([*command[:3], "pack", command[4], "--out", str(folder / "shards")], check=True)
    print(f"packed in {time.monotonic() - began:.0f} s", flush=True)
    for name in ("photos", "shards"):
        subprocess.run([sys.executable, "-c", OPENED, str(folder / name)], check=True)
    command[4] = str(folder / "shards")


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    photos, workers = (*numbers, *(100_000, 2)[len(numbers) :])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command, total = made(folder, photos), -(-photos // 64)
        if "--packed" in sys.argv:
            packed(command, folder)
        command += ["--workers", str(workers)]
        watched(command, folder / "run" / "parts", total, until=0.5)
        watched(command, folder / "run" / "parts", total, until=2)


if __name__ == "__main__":
    main()
