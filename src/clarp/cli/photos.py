"""Commands about photos: explain, verify, compare."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clarp.cli.values import checked_task, listed, without_collection
from clarp.commands import options


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
    with without_collection():
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
        task=checked_task(task),
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
        layers=listed(layers),
        look=Look(style, colours, smoothing, opacity, size, caption),  # type: ignore[arg-type]  # checked
        pictures=pictures,
        kind=format_,
        out=out,
        batch_size=batch_size,
    )
    elsewhere = PhotosElsewhere(others, load) if others else None
    raise typer.Exit(run(work, json=json, elsewhere=elsewhere))


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
    with without_collection():
        from clarp.decoding import prepare

        prepare()
        from clarp.commands.verify import run
        from clarp.session import ModelOptions, Session

    if model is None and not (weights is None and labels is None and output is None and task is None):
        raise ValueError("--weights, --labels, --output and --task belong to a model: name it with --model.")
    given = None if model is None else ModelOptions(model, weights, labels, output, checked_task(task))
    code = run(folder, Session.of_options, given, photos=photos, device=device, json=json)
    raise typer.Exit(code)


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
    with without_collection():
        from clarp.commands.compare import run
        from clarp.render import Look
        from clarp.session import Session

    code = run(
        photo,
        partial(Session.load, model, weights, labels, output, task=checked_task(task), device=device),
        methods=listed(methods),
        targets=target or (),
        against=against or (),
        composite=composite,
        boxes=boxes or (),
        look=Look(style, colours, smoothing, opacity),  # type: ignore[arg-type]  # checked
        out=out,
        json=json,
    )
    raise typer.Exit(code)
