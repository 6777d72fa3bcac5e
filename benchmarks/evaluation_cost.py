"""What an evaluation costs beside its explanations and forward passes: ``python benchmarks/evaluation_cost.py [photos]``.

Both sides are measured in processor time of one thread, turn by turn, on the ResNet-34 and the photos beside the repository.
"""

import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from clarp.data.opening import open_dataset
from clarp.evaluation.run import Run, Settings
from clarp.evaluation.specs import metrics
from clarp.models import load

SHARED = Path(__file__).resolve().parents[1] / "../shared"
METHODS = ("lrp", "slrp", "sglrp", "ssglrp")
METRICS = ("patch-masking", "patch-masking:centre=window")
BATCH = 8


def main() -> None:
    torch.set_num_threads(1)
    photos = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    classifier = load(f"{SHARED}/models/imagenet_resnet34.py:build")
    dataset = open_dataset(f"{SHARED}/images/imagenet", classifier.labels)
    folder = Path(tempfile.mkdtemp()) / "run"
    settings = Settings(METHODS, metrics(METRICS), limit=photos, batch_size=BATCH)
    run = Run(dataset, classifier, settings, folder)
    images = torch.stack([run.loader.tensor(sample) for sample in run.samples])
    for method in run.attributors:  # capture, once for all
        method(images[:BATCH], torch.zeros(BATCH, dtype=torch.long), ["x"] * BATCH)

    began = time.process_time()
    run.complete()
    whole = time.process_time() - began

    explaining = forward = 0.0
    for batch in images.split(BATCH):
        targets = run.model(batch).argmax(1)
        began = time.process_time()
        for method in run.attributors:
            method(batch, targets, ["x"] * len(batch))
        explaining += time.process_time() - began
        began = time.process_time()
        with torch.no_grad():
            for _ in range(1 + len(run.attributors) * len(METRICS)):
                run.model(batch)
        forward += time.process_time() - began
    shutil.rmtree(folder.parent)
    print(
        f"{photos} photos, {len(METHODS)} methods and {len(run.attributors) - len(METHODS)} controls, {len(METRICS)} metrics"
    )
    print(f"whole evaluation  {whole:8.1f} s")
    print(f"explanations      {explaining:8.1f} s")
    print(f"forward passes    {forward:8.1f} s")
    print(f"ratio             {whole / (explaining + forward):8.2f}")


if __name__ == "__main__":
    main()
