"""The options that several commands have, with what ``--help`` says of them."""

from pathlib import Path
from typing import Annotated

import typer

PROGRAMS = "A .pt2 file, an ultralytics file or a Python file can execute code when it is loaded."

DATASETS = (
    "A folder (class folders, labels.csv, boxes.json, ImageNet, VOC, COCO, shards), a URL such as "
    "s3://bucket/photos, mosaics:FOLDER, or composites:FOLDER."
)

ModelSpec = Annotated[
    str,
    typer.Option(
        help="A name from `clarp models`, timm:NAME, hf:REPO, ultralytics:FILE, a .pt2 file, or "
        "file.py:function (returns an nn.Module in eval mode). " + PROGRAMS
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights for the model: safetensors, a state dict, or a checkpoint; nothing in it is executed."
    ),
]
Labels = Annotated[Path | None, typer.Option(help="A text file with one class name a line.")]
Output = Annotated[
    str | None,
    typer.Option(
        help="Which of several results of a model of file.py:function are its logits: a key, or a number."
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        help="What the last layer means: multiclass, binary or multilabel; seen by how the model ends if "
        "left out."
    ),
]
MethodName = Annotated[str, typer.Option(help="A name from `clarp methods`.")]
CompositeName = Annotated[
    str | None,
    typer.Option(help="Rules in place of the method's own, such as epsilon-plus; a wrong name lists all."),
]
Style = Annotated[
    str,
    typer.Option(
        help="How maps are drawn: overlay, pixels (the raw map), heatmap, contours, signs, region, or versus "
        "(two classes at once)."
    ),
]
Colours = Annotated[str, typer.Option(help="vik (red for, blue against) or bam (green for, pink against).")]
Smoothing = Annotated[
    float | None,
    typer.Option(
        help="Sigma of the Gaussian over maps, as a share of their longer side; 0 for none; the style's own "
        "if left out (overlay: 0.01)."
    ),
]
Opacity = Annotated[float, typer.Option(help="How much of the photo the strongest relevance hides, 0 to 1.")]
Side = Annotated[
    int | None,
    typer.Option(
        help="Pixels of the drawn photo's longer side; its own if left out, at least 448 and at most 1024."
    ),
]
Caption = Annotated[
    bool,
    typer.Option(
        "--caption/--no-caption",
        help="With the photo, a colour bar and words; without, the map alone over its photo.",
    ),
]
Device = Annotated[
    str | None, typer.Option(help="Where to compute; the GPU if left out and there is one, else the CPU.")
]
Outside = Annotated[
    bool,
    typer.Option(
        "--outside",
        help="Photos and tables may lie outside of the data set's folder: links, ../, absolute paths.",
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        help="What computes: torch, in this machine's processes; onnxruntime, likewise, in less time for one "
        "target of one photo, and up to a minute once for each model, method and size; or ray: PyTorch on a "
        "Ray cluster (not of serve)."
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes, each with the model and one thread; the GPUs in turn where there are some. With "
        "--engine ray: parts at once.",
        show_default="this process alone, with all threads; of a cluster: all",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="Of the cluster: auto, HOST:PORT, or ray://HOST:PORT.",
        show_default="RAY_ADDRESS, or else a cluster of this machine alone",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="That Ray reserves for each part, such as 0.5.",
        show_default="one where the cluster has any",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
