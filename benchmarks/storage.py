"""What a large data set and its run take on disks: ``python benchmarks/storage.py [PHOTOS [SAMPLES]]``.

Packs PHOTOS (1,000) crops of clarp's demo photo, evaluates them with a tiny net, and prints bytes for each photo:
of the photo, of what a shard and the index add, and of a run's rows with three methods and two controls. Then
makes an index of SAMPLES (1,000,000) without photos, and prints what opening it takes.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute
from many_photos import MODEL
from PIL import Image
from pyarrow import parquet

import clarp
from clarp.data.opening import open_dataset
from clarp.data.packed import ABOUT, VERSION, index_schema
from clarp.files import write_summed

CLASSES = ["ant", "bee", "cow", "dog"]
PER_SHARD = 1000


def weight(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def command(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "clarp", *map(str, arguments)], check=True, capture_output=True)


def photos(folder: Path, count: int) -> None:
    whole = Image.open(Path(clarp.__file__).parent / "assets" / "cat_and_coffee.jpg").convert("RGB")
    chance = np.random.default_rng(0)
    for number in range(count):
        side = int(chance.integers(200, min(whole.size)))
        left, top = (int(chance.integers(0, size - side + 1)) for size in whole.size)
        path = folder / CLASSES[number % 4] / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        crop = whole.crop((left, top, left + side, top + side)).resize((400, 400))
        crop.save(path, quality=90)


def of_a_run(folder: Path, count: int) -> None:
    photos(folder / "photos", count)
    (folder / "toy.py").write_text(MODEL)
    command("pack", folder / "photos", "--out", folder / "shards")
    options = ["--model", f"{folder / 'toy.py'}:build", "--methods", "lrp,sglrp,ssglrp"]
    options += ["--metrics", "patch_masking:size=5:fill=colour", "--no-pictures"]
    command("evaluate", folder / "shards", *options, "--out", folder / "run")
    run, shards = folder / "run", folder / "shards"
    taken = {
        "photo": weight(folder / "photos", "*.jpg"),
        "photo in a shard, beyond its bytes": weight(shards, "*.tar") - weight(folder / "photos", "*.jpg"),
        "row of the index": weight(shards, "index.parquet"),
        "rows of a run in parts, 5 methods": weight(run, "parts/*"),
        "the same in rows.parquet": weight(run, "rows.parquet"),
    }
    for name, total in taken.items():
        print(f"{name:45} {total / count:10,.0f} bytes", flush=True)


def of_an_index(folder: Path, count: int) -> None:
    lengths = {f"{k:06d}.tar": PER_SHARD * 4096 for k in range(-(-count // PER_SHARD))}
    folder.mkdir()
    for name, length in lengths.items():
        with (folder / name).open("wb") as file:
            file.truncate(length)  # sparse: nothing of it is on the disk
    with parquet.ParquetWriter(folder / "made", index_schema()) as writer:
        for shard in range(len(lengths)):
            numbers = range(shard * PER_SHARD, min(count, (shard + 1) * PER_SHARD))
            writer.write_table(pa.Table.from_pylist([row(number) for number in numbers], index_schema()))
        about = {
            "version": VERSION,
            "name": "photos",
            "classes": CLASSES,
            "own_classes": True,
            "as_is": False,
        }
        writer.add_key_value_metadata({ABOUT: json.dumps(about | {"shards": lengths})})
    content = (folder / "made").read_bytes()
    (folder / "made").unlink()
    write_summed(folder / "index.parquet", lambda file: file.write(content))
    before, began, used = psutil.Process().memory_info().rss, time.monotonic(), time.process_time()
    found = open_dataset(str(folder), CLASSES)
    took, used = time.monotonic() - began, time.process_time() - used
    held = psutil.Process().memory_info().rss - before
    print(
        f"{len(found):,} samples opened in {took:.1f} s ({used:.1f} s of processor time), {held / 2**20:.0f} MiB"
    )


def row(number: int) -> dict[str, object]:
    file, digest = f"{CLASSES[number % 4]}/{number:08d}.jpg", hashlib.sha256(str(number).encode()).digest()
    place = {
        "shard": f"{number // PER_SHARD:06d}.tar",
        "offset": number % PER_SHARD * 4096 + 512,
        "size": 2000,
    }
    return place | {
        "id": file,
        "member": f"{number:08d}.jpg",
        "sha256": digest,
        "ends": hashlib.sha256(digest).digest(),
        "file": file,
        "as_stored": False,
        "labels": [[number % 4]],
        "objects": None,
    }


def main() -> None:
    numbers = [int(argument) for argument in sys.argv[1:]]
    count, samples = (*numbers, *(1000, 1_000_000)[len(numbers) :])
    with tempfile.TemporaryDirectory() as name:
        of_a_run(Path(name), count)
        of_an_index(Path(name) / "index", samples)


if __name__ == "__main__":
    main()
