"""What a run on a Ray cluster withstands: ``python benchmarks/cluster_kills.py [PHOTOS [ROUNDS]]``.

A head and three nodes with a CPU each, on this machine, and a run of PHOTOS small photos (2,000) by a small net.
In each of ROUNDS (10), at random moments: a worker is killed, then a node is removed (another joins), then the
process that asks; the same command goes on. Prints whether the table equals that of one process bit for bit, and
how often parts were computed.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image
from ray.cluster_utils import Cluster

MODEL = """
import os, time
from pathlib import Path
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    ).eval()

labels = ["ant", "bee", "cow", "dog"]

def preprocess(image):
    time.sleep(0.02)
    with open(Path(__file__).parent / "opened.txt", "a") as log:
        log.write(f"{os.getpid()} {image.getpixel((0, 0))} {image.getpixel((1, 1))}\\n")
    pixels = torch.frombuffer(bytearray(image.resize((24, 24)).tobytes()), dtype=torch.uint8)
    return pixels.view(24, 24, 3).permute(2, 0, 1) / 255 - 0.5
"""
SECONDS_BEFORE_A_KILL = (2, 9)


def made(folder: Path, count: int) -> list[str]:
    """The photos and the model; the command without --out."""
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / "photos" / ["ant", "bee", "cow", "dog"][number % 4] / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (26, 26, 3), dtype=np.uint8)).save(path)
    (folder / "toy.py").write_text(MODEL)
    command = [sys.executable, "-m", "clarp", "evaluate", str(folder / "photos"), "--methods", "lrp,ssglrp"]
    return [*command, "--model", f"{folder / 'toy.py'}:build", "--metrics", "patch_masking:size=5", "--out"]


def at_work(log: Path, asking: int) -> list[int]:
    """The workers' processes, once there are some."""
    while True:
        found = {int(line.split()[0]) for line in log.read_text().splitlines()[-10:]} - {asking}
        if found:
            return sorted(found)
        time.sleep(0.1)


def killed(command: list[str], cluster: Cluster, nodes: list[object], log: Path) -> tuple[int, set[int]]:
    """Run the command to its end, and kill a worker, a node and it on the way.

    Returns how many kills hit, and the processes of the command.
    """
    log.write_text("")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    hits, asking = 0, {process.pid}
    for kind in ("worker", "node", "driver"):
        at_work(log, process.pid)
        time.sleep(random.uniform(*SECONDS_BEFORE_A_KILL))
        if process.poll() is not None:
            break
        hits += 1
        if kind == "worker":
            os.kill(random.choice(at_work(log, process.pid)), signal.SIGKILL)
        elif kind == "node":
            cluster.remove_node(nodes.pop(random.randrange(len(nodes))), allow_graceful=False)
            nodes.append(cluster.add_node(num_cpus=1))
        else:
            process.kill()
            process.wait()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            asking.add(process.pid)
    assert process.wait() == 0
    return hits, asking


def main() -> None:
    photos, rounds = (
        int(sys.argv[k]) if len(sys.argv) > k else default for k, default in ((1, 2000), (2, 10))
    )
    random.seed(0)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, command = folder / "opened.txt", made(folder, photos)
        subprocess.run([*command, str(folder / "whole")], check=True, stdout=subprocess.DEVNULL)
        whole = (folder / "whole" / "rows.parquet").read_bytes()
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        nodes = [cluster.add_node(num_cpus=1) for _ in range(3)]
        equal = 0
        for turn in range(rounds):
            out = folder / f"run{turn}"
            began = time.monotonic()
            asked = [*command, str(out), "--engine", "ray", "--address", cluster.address]
            hits, asking = killed(asked, cluster, nodes, log)
            same = (out / "rows.parquet").read_bytes() == whole
            equal += same
            lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
            times = Counter(photo for process, photo in lines if int(process) not in asking)
            # Each worker opens a picture of noise, and the run's first photo, before its first part.
            counts = sorted(times.values())[:-2]
            again = sum(count - 1 for count in counts)
            print(
                f"round {turn + 1}: {hits} kills, {time.monotonic() - began:.0f} s, table "
                f"{'equal' if same else 'DIFFERENT'}, {again} photos computed again, none "
                f"more than {counts[-1]} times, parts {len(list(out.glob('parts/*.parquet')))}",
                flush=True,
            )
        cluster.shutdown()
        print(f"{equal} of {rounds} tables are equal to that of one process")


if __name__ == "__main__":
    main()
