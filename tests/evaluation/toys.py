"""A tiny model in a file, tiny photos, and the command line in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

TOY = """
import time
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    ).eval()

def likely():
    return nn.Sequential(build(), nn.Softmax(1)).eval()

labels = ["ant", "bee", "cow", "dog"]

def preprocess(image):
    time.sleep(DELAY)
    pixels = torch.frombuffer(bytearray(image.resize((24, 24)).tobytes()), dtype=torch.uint8)
    return pixels.view(24, 24, 3).permute(2, 0, 1) / 255 - 0.5
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
METRICS = "patch_masking:size=5+9,deletion:steps=4"


def toy_model(folder, delay=0.0):
    path = folder / "toy.py"
    path.write_text(TOY.replace("DELAY", str(delay)))
    return f"{path}:build"


def toy_photos(folder, count=40):
    """Class folders ant, bee, cow, dog with noise of 26 x 26 pixels."""
    generator = np.random.default_rng(7)
    for number in range(count):
        path = folder / ["ant", "bee", "cow", "dog"][number % 4] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (26, 26, 3), dtype=np.uint8)).save(path)
    return folder


def toy_boxes(folder, count=12):
    """boxes.json with two objects in each photo."""
    generator = np.random.default_rng(8)
    folder.mkdir(parents=True)
    table = {}
    for number in range(count):
        name = f"{number:03d}.png"
        Image.fromarray(generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / name)
        objects = [
            {"label": "ant", "classes": [0, 1], "box": [2, 2, 14, 14]},
            {"label": "dog", "classes": [3], "box": [20, 10, 46, 38]},
        ]
        table[name] = {"width": 48, "height": 40, "objects": objects}
    (folder / "boxes.json").write_text(json.dumps(table))
    return folder


def command(*arguments):
    return [sys.executable, "-m", "clarp", *map(str, arguments)]


def started(*arguments):
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def until(holds, process=None, seconds=240):
    """Wait for what other processes do; fail where that process has ended without it, or it takes too long."""
    ends = time.monotonic() + seconds
    while not holds():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < ends, f"nothing in {seconds} s"
        time.sleep(0.01)


def finished(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=ENVIRONMENT)


def lines_of(file: Path):
    return file.read_text().splitlines() if file.exists() else []


def parts_of(folder: Path):
    return sorted(path.name for path in folder.glob("parts/*.parquet"))
