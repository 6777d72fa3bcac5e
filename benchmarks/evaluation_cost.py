"""What an evaluation costs beside its explanations and forward passes: ``python benchmarks/evaluation_cost.py [photos] [suite]``.

Processor time of one thread on the ResNet-34 and the photos beside the repository. Explanations and forward passes are timed where
the run asks for them; the rest is decoding, the metrics' own work (fills, inpainting, statistics) and writing. A suite that is
played on mosaics makes as many mosaics as photos are asked for, of all photos.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from clarp.data.opening import open_dataset
from clarp.evaluation.attribution import Control, Pooled
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.evaluation.suites import Suite
from clarp.models import load
from clarp.models.logits import Logits

SHARED = Path(__file__).resolve().parents[1] / "../shared"
METHODS = ("lrp", "slrp", "sglrp", "ssglrp")
METRICS = ("patch-masking", "patch-masking:centre=window")
BATCH = 8


def timed(kind: type, name: str, spent: Counter) -> None:
    """Add the processor time of every call of a class to ``spent``."""
    asked = kind.__call__

    def call(self: object, *arguments: object, **options: object) -> object:
        began = time.process_time()
        try:
            return asked(self, *arguments, **options)
        finally:
            spent[name] += time.process_time() - began

    kind.__call__ = call


def main() -> None:
    torch.set_num_threads(1)
    photos = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    suite = Suite.named(sys.argv[2]) if len(sys.argv) > 2 else None
    methods, asked = (suite.methods, (*suite.metrics, *suite.located)) if suite else (METHODS, METRICS)
    grids = suite.grids if suite else None
    classifier = load(f"{SHARED}/models/imagenet_resnet34.py:build")
    dataset = open_dataset(
        f"mosaics:{SHARED}/images/imagenet" if grids else f"{SHARED}/images/imagenet",
        classifier.labels,
        count=photos,
        cells=grids.n if grids else 2,
    )
    if not any(sample.objects for sample in dataset):
        asked = suite.metrics if suite else METRICS
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(methods, metrics(asked), limit=photos, batch_size=BATCH)
        run = Run(dataset, classifier, settings, Path(folder) / "run")
        image = torch.stack([run.loader.tensor(run.samples[0])])
        for method in run.attributors:  # capture, once for all
            method(image, torch.tensor([0]), ["x"])
        spent = Counter()
        for kind in {type(method) for method in run.attributors if not isinstance(method, Control | Pooled)}:
            timed(kind, "explanations", spent)
        timed(Logits, "forward passes", spent)
        began = time.process_time()
        run.complete()
        whole = time.process_time() - began
    print(f"{photos} pictures, {len(run.attributors)} methods and controls, {len(asked)} metrics")
    print(f"{'whole evaluation':16} {whole:8.1f} s")
    for name, seconds in spent.items():
        print(f"{name:16} {seconds:8.1f} s")
    print(f"{'ratio':16} {whole / sum(spent.values()):8.2f}")


if __name__ == "__main__":
    main()
