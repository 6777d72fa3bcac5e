"""The command line: arguments in, exit codes out; the work is done in `clarp.commands`.

Exit codes: 0 everything done, 1 some photos could not be explained, 2 nothing could be done as asked.
"""

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clarp.allocation import keep_freed_memory
from clarp.commands import options

if TYPE_CHECKING:
    from clarp.task import TaskName

app = typer.Typer(
    help="Explain an image classifier: which pixels made it say this class, and not that one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command()
def explain(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    *,
    model: options.ModelSpec = "efficientnet-lite0",
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Class to explain, by name or number, several with commas; the top class if left out."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Classes to contrast it with, several with commas; all others if left out."),
    ] = None,
    expected: Annotated[
        str | None,
        typer.Option(
            help="Class that the photos should have: the predicted one is explained against it, and it "
            "against that."
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="A name from `clarp methods`.", show_default="ssglrp, or the file's own"),
    ] = None,
    composite: options.CompositeName = None,
    layers: Annotated[
        str | None,
        typer.Option(help="Modules whose relevance to write too, with commas, such as layer4,features.29."),
    ] = None,
    style: options.Style = "overlay",
    colours: options.Colours = "vik",
    smoothing: options.Smoothing = None,
    opacity: options.Opacity = 1.0,
    size: options.Side = None,
    caption: options.Caption = True,
    pictures: Annotated[
        bool,
        typer.Option("--pictures/--no-pictures", help="Draw each map; without, arrays and manifest only."),
    ] = True,
    format_: Annotated[
        str, typer.Option("--format", help="Of the pictures: png, jpg (smaller), or webp (small and exact).")
    ] = "png",
    out: Annotated[
        Path, typer.Option(help="Folder for the pictures, the raw relevance, and manifest.json.")
    ] = Path("clarp-out"),
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that are opened at once.")] = 8,
    device: options.Device = None,
    engine: options.Engine = "torch",
    workers: options.Workers = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    json: options.Json = False,
) -> None:
    """Explain photos: a heatmap over each, and the top predictions."""
    with _importing():
        if workers is None and engine != "ray":
            from clarp.decoding import prepare

            prepare()
        from clarp.commands.explain import prepared, run
        from clarp.commands.photos import PhotosElsewhere
        from clarp.commands.placement import Placement
        from clarp.render import Look
        from clarp.session import Session

    placement = Placement(engine, workers, address, gpus_per_worker)
    load = partial(
        Session.load,
        model,
        weights,
        labels,
        output,
        task=_task(task),
        files=True,
        engine=placement.computing,
    )
    others = placement.workers_for(device)
    work = partial(
        prepared,
        photos,
        # What only asks others needs no GPU of its own.
        partial(load, device="cpu" if others else device),
        targets=target or (),
        against=against or (),
        expected=expected,
        method=method,
        composite=composite,
        layers=_listed(layers),
        look=Look(style, colours, smoothing, opacity, size, caption),  # type: ignore[arg-type]  # checked
        pictures=pictures,
        kind=format_,
        out=out,
        batch_size=batch_size,
    )
    elsewhere = PhotosElsewhere(others, load) if others else None
    raise typer.Exit(run(work, json=json, elsewhere=elsewhere))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="What `clarp explain --out` wrote.")],
    *,
    photos: Annotated[
        Path | None, typer.Option(help="The folder where the photos are now; where they were if left out.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The model on this machine, as of `clarp explain`; needed unless the manifest names one of "
            f"`clarp models` or timm without weights of its own. {options.PROGRAMS}"
        ),
    ] = None,
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Make the maps of a folder again, and say whether they are the same, and what has changed."""
    with _importing():
        from clarp.decoding import prepare

        prepare()
        from clarp.commands.verify import run
        from clarp.session import ModelOptions, Session

    if model is None and not (weights is None and labels is None and output is None and task is None):
        raise ValueError("--weights, --labels, --output and --task belong to a model: name it with --model.")
    given = None if model is None else ModelOptions(model, weights, labels, output, _task(task))
    code = run(folder, Session.of_options, given, photos=photos, device=device, json=json)
    raise typer.Exit(code)


@app.command()
def compare(
    photo: Annotated[Path, typer.Argument(help="A photo.")],
    *,
    model: options.ModelSpec = "efficientnet-lite0",
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    methods: Annotated[
        str, typer.Option(help="With commas, a row each: as of `clarp evaluate`.")
    ] = "lrp,slrp,sglrp,ssglrp",
    target: Annotated[
        list[str] | None,
        typer.Option(help="Classes, a column each, by name or number; the two top classes if left out."),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Classes to contrast them with, several with commas; all others if left out."),
    ] = None,
    composite: options.CompositeName = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(help="Where things are: CLASS:left,top,right,bottom in pixels, or a boxes.json."),
    ] = None,
    style: options.Style = "overlay",
    colours: options.Colours = "vik",
    smoothing: options.Smoothing = None,
    opacity: options.Opacity = 1.0,
    out: Annotated[
        Path, typer.Option(help="The sheet, .png, .svg or .pdf; its manifest goes beside it.")
    ] = Path("comparison.png"),
    device: options.Device = None,
    json: options.Json = False,
) -> None:
    """Draw several methods and classes of one photo on one sheet."""
    with _importing():
        from clarp.commands.compare import run
        from clarp.render import Look
        from clarp.session import Session

    code = run(
        photo,
        partial(Session.load, model, weights, labels, output, task=_task(task), device=device),
        methods=_listed(methods),
        targets=target or (),
        against=against or (),
        composite=composite,
        boxes=boxes or (),
        look=Look(style, colours, smoothing, opacity),  # type: ignore[arg-type]  # checked
        out=out,
        json=json,
    )
    raise typer.Exit(code)


@app.command()
def export(
    *,
    model: options.ModelSpec = "efficientnet-lite0",
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    method: options.MethodName = "ssglrp",
    composite: options.CompositeName = None,
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Pixels of the images' sides; those of the preprocessing if left out."),
    ] = None,
    targets: Annotated[
        int | None,
        typer.Option(min=1, help="Explain so many classes of an image at once: target is (B, K)."),
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Take the rivals as a third input, a mask (B, classes).")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Store the weights in float16, for half the size.")
    ] = False,
    out: Annotated[
        Path, typer.Option(help="The file: .onnx for ONNX Runtime and browsers, .pt2 for PyTorch.")
    ] = Path("explain.onnx"),
    json: options.Json = False,
) -> None:
    """Write a classifier and its explanation as one program, which runs without clarp."""
    with _importing():
        from clarp.commands.export import run
        from clarp.session import Session

    load = partial(Session.load, model, weights, labels, output, task=_task(task), device="cpu")
    raise typer.Exit(
        run(
            load,
            method=method,
            composite=composite,
            size=size,
            targets=targets,
            against=against,
            half=half,
            out=out,
            json=json,
        )
    )


@app.command()
def models(json: options.Json = False) -> None:
    """List the models by name."""
    from clarp.commands import listing

    listing.models(json=json)


@app.command()
def methods(json: options.Json = False) -> None:
    """List the methods: when to take each, and its seed, selection and rules."""
    from clarp.commands import listing

    listing.methods(json=json)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help=f"As --model of `clarp explain`. {options.PROGRAMS}")],
    *,
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    method: options.MethodName = "ssglrp",
    composite: options.CompositeName = None,
    json: options.Json = False,
) -> None:
    """Print which rule every operation of a model gets."""
    from clarp.commands import listing

    listing.plan(model, weights, labels, method, composite, output=output, task=_task(task), json=json)


@app.command()
def evaluate(
    dataset: Annotated[str, typer.Argument(help=options.DATASETS)],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on where it stopped.")],
    model: Annotated[
        str | None,
        typer.Option(
            help=f"As of `clarp explain`; efficientnet-lite0, or the suite's models. {options.PROGRAMS}"
        ),
    ] = None,
    weights: options.Weights = None,
    labels: options.Labels = None,
    task: options.TaskName = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="With commas: names from `clarp methods`, lrp@COMPOSITE, gradcam, gradcam@LAYER, ..."
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="With commas: patch-masking, pointing:smoothing=0.02, deletion, ...")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="A named protocol: ssglrp-paper, torchray, grids, grids-3x3, difull, srg, signs, "
            "resnet-vgg or transformers."
        ),
    ] = None,
    composite: options.CompositeName = None,
    target: Annotated[
        str, typer.Option(help="Explain each `label` of a photo, or the class `predicted` for it.")
    ] = "label",
    limit: Annotated[int | None, typer.Option(min=1, help="So many photos, evenly spread.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Photos that are explained at once.")] = 8,
    device: options.Device = None,
    seed: Annotated[int, typer.Option(help="Of mosaics and composites.")] = 0,
    workers: options.Workers = None,
    engine: options.Engine = "torch",
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    pictures: Annotated[
        bool, typer.Option(help="Keep a small picture of each photo and map, for the report's page.")
    ] = True,
    outside: options.Outside = False,
) -> None:
    """Measure how good heatmaps are, on a data set; stop it and go on as you like."""
    from clarp import models as classifiers
    from clarp.commands.evaluate import run
    from clarp.commands.placement import Placement
    from clarp.evaluation.settings import Settings
    from clarp.evaluation.work import Elsewhere
    from clarp.session import Session

    if target not in {"label", "predicted"}:
        raise ValueError(f"--target is {target!r}, expected label or predicted.")
    # The word that was torch's here before there was one list for all commands.
    placement = Placement("torch" if engine == "local" else engine, workers, address, gpus_per_worker)
    settings = Settings(
        methods=_listed(methods),
        metrics={},
        composite=composite,
        target="label" if target == "label" else "predicted",
        limit=limit,
        batch_size=batch_size,
        seed=seed,
        pictures=pictures,
        engine=placement.computing,
    )
    others = placement.workers_for(device)
    load = partial(classifiers.load, weights=weights, labels=labels, task=_task(task))
    # The machine that asks a cluster needs no GPU of its own.
    here = "cpu" if engine == "ray" else device
    code = run(
        dataset,
        partial(
            Session.load,
            weights=weights,
            labels=labels,
            task=_task(task),
            device=here,
            engine=placement.computing,
        ),
        settings,
        lambda name: Elsewhere(others, partial(load, name)) if others else None,
        model=model,
        weights=weights,
        metrics=_listed(metrics),
        suite=suite,
        out=out,
        outside=outside,
    )
    raise typer.Exit(code)


@app.command()
def pack(
    dataset: Annotated[str, typer.Argument(help=options.DATASETS)],
    *,
    out: Annotated[
        str,
        typer.Option(help="An empty or a new folder for the shards, or a URL such as s3://bucket/shards."),
    ],
    labels: options.Labels = None,
    photos_per_shard: Annotated[int, typer.Option(min=1, help="As many as a tar file has.")] = 1000,
    outside: options.Outside = False,
) -> None:
    """Pack a data set into WebDataset shards with an index, for many photos and for many machines."""
    from clarp.commands.pack import run

    raise typer.Exit(run(dataset, out, labels, photos_per_shard, outside=outside))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="What `clarp evaluate --out` wrote.")],
    *,
    reference: Annotated[
        str, typer.Option(help="The method that the others are compared with, image by image.")
    ] = "ssglrp",
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and the test.")] = 9999,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the test.")] = 0,
) -> None:
    """Make tables, curves and a page to browse of a run: terminal, CSV, Markdown, LaTeX, PNG, HTML."""
    from clarp.commands.report import run

    raise typer.Exit(run(folder, reference, resamples, seed))


@app.command()
def serve(
    *,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="As of `clarp explain`; several by repeating it, the first is the default. "
            f"{options.PROGRAMS}"
        ),
    ] = None,
    weights: options.Weights = None,
    labels: options.Labels = None,
    output: options.Output = None,
    task: options.TaskName = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 is every address of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    token: Annotated[
        bool | None,
        typer.Option(
            "--token/--no-token",
            help="Whether requests need a token ($CLARP_TOKEN, or a new one); only on loopback they need "
            "none if left out.",
        ),
    ] = None,
    engine: options.Engine = "torch",
) -> None:
    """Serve a web page for photos, and an HTTP API, until Ctrl-C."""
    from clarp.commands.placement import served_by
    from clarp.commands.serve import serve as run
    from clarp.serve.server import Address

    run(
        model or ["efficientnet-lite0"],
        Address(host, port),
        token=token,
        engine=served_by(engine),
        weights=weights,
        labels=labels,
        output=output,
        task=_task(task),
    )


def _task(name: str | None) -> "TaskName | None":
    from clarp.task import checked_task

    return checked_task(name)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _version(wanted: bool) -> None:
    if wanted:
        from clarp import __version__

        typer.echo(f"clarp {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


@contextmanager
def _importing() -> Iterator[None]:
    """Without garbage collection, which takes a fifth of the time of importing PyTorch."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; what can't be done as asked becomes one sentence and exit code 2.

    Args:
        arguments: without the program's name; None for those of the process.
    """
    # PyTorch's threads read it once, when it is imported. Those that wait would spin otherwise, and on a
    # machine that is busy with other work too, that takes several times as long as the explanation.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    from clarp.errors import CaptureError
    from clarp.text import lines

    if isinstance(sys.stdout, TextIOWrapper):  # a name that the terminal can't show is no reason to stop
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(None if arguments is None else list(arguments))
    except (ValueError, TypeError, OSError, ImportError, CaptureError) as error:
        typer.echo(lines(f"clarp: {error}"), err=True)
        sys.exit(2)
