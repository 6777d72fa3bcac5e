"""What a million photos take, stage by stage: ``python benchmarks/plan.py [PHOTOS]``, with OMP_NUM_THREADS=1.

Makes PHOTOS (32) crops of clarp's demo photo, packs and evaluates them (EfficientNet-Lite0, ``ssglrp`` and the two
controls), and prints for one photo, and multiplied for a million and a hundred million: processor time of decoding, of
preprocessing and of an explanation (metrics: benchmarks/evaluation_cost.py); bytes that are read and written; requests
to an object store; bytes of maps as cells, in float16 and in float32; and what the command's process holds in memory.
"""

import hashlib
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import torch
from pyarrow import parquet
from storage import command, photos, weight

import clarp
from clarp.data.opening import open_dataset
from clarp.evaluation.store import Store, _PartSaid
from clarp.models import load

DAYS = 86_400
MODEL, METHOD = "efficientnet-lite0", "ssglrp"


def processor(work: Callable[[], object], count: int) -> float:
    """Seconds of this process for each of so many."""
    work()
    began = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - began) / count


def seconds(name: str, each: float) -> None:
    print(
        f"{name:52} {each * 1000:9.1f} ms {each * 1e6 / DAYS:9.2f} days {each * 1e8 / DAYS:11,.0f} days",
        flush=True,
    )


def size(name: str, each: float) -> None:
    print(f"{name:52} {each:9,.0f} B {each * 1e6 / 1e9:12.2f} GB {each * 1e8 / 1e12:13.2f} TB", flush=True)


def requests(name: str, each: float) -> None:
    print(f"{name:52} {each:9.3f} {each * 1e6:17,.0f} {each * 1e8:18,.0f}", flush=True)


def computed(root: Path, count: int) -> None:
    classifier = load(MODEL)
    opened = open_dataset(str(root / "photos"))
    images = [sample.image() for sample in opened]
    batch = torch.stack([classifier.preprocess(image) for image in images[:8]])
    explainer = clarp.Explainer(classifier.module, METHOD)
    seconds(
        "decode (in this process)",
        processor(lambda: [clarp.images.open_photo(s.picture.path) for s in opened], 2) / count,
    )
    seconds("preprocess", processor(lambda: [classifier.preprocess(image) for image in images], 2) / count)
    seconds(f"explain, {METHOD}, batches of 8", processor(lambda: explainer(batch), 3) / len(batch))


def evaluated(root: Path, count: int) -> None:
    options = ["--model", MODEL, "--methods", METHOD, "--metrics", "sparseness", "--device", "cpu"]
    command("evaluate", root / "shards", *options, "--out", root / "run")
    print()
    size("read: the photo, from a shard", weight(root / "photos", "*.jpg") / count)
    size("written: rows", weight(root / "run", "parts/*.parquet") / count)
    size("written: a small picture and a map in cells", weight(root / "run", "pictures/*.parquet") / count)
    table = parquet.read_table(next((root / "run").glob("pictures/*.parquet")))
    cells = [len(codes) for codes in table["codes"].to_pylist() if codes is not None]
    size("a map in cells of one byte", sum(cells) / len(cells))
    pixels = 224 * 224
    size("a map in float16, a value for each pixel", 2 * pixels)
    size("relevance in float32, three channels (explain)", 4 * 3 * pixels)
    print()
    requests("GET, a photo of a shard", 1)
    requests("PUT, parts of 16 photos: rows and pictures", 2 / 16)
    requests("PUT, parts of 256 photos", 2 / 256)
    print()
    size("memory: index of shards (benchmarks/storage.py)", 240)
    size("memory: digest of each photo", held(lambda k: hashlib.sha256(str(k).encode()).digest()))
    size("memory: what is known of parts of 16 photos", held(known) / 16)
    assert Store(root / "run").complete


def known(number: int) -> object:
    return (
        f"parts/{number:08d}-{number + 16:08d}.parquet",
        _PartSaid(16, (), ()),
        f"parts/{number:08d}.{'0' * 64}.parquet",
    )


def held(make: Callable[[int], object], count: int = 10_000) -> float:
    """Bytes for each of so many objects in a list."""
    tracemalloc.start()
    kept = [make(number) for number in range(count)]
    found = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return found


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 32
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        photos(root / "photos", count)
        table = "".join(
            f"{path.relative_to(root / 'photos')},{281}\n"
            for path in sorted((root / "photos").rglob("*.jpg"))
        )
        (root / "photos" / "labels.csv").write_text(f"file,class\n{table}")
        command("pack", root / "photos", "--out", root / "shards")
        print(f"{'':52} {'a photo':>12} {'a million':>14} {'a hundred million':>16}")
        computed(root, count)
        evaluated(root, count)


if __name__ == "__main__":
    main()
