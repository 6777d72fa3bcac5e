"""Commands about data sets: evaluate, report, pack."""

from functools import partial
from typing import Annotated

import typer

from clarp.cli.values import checked_task, listed
from clarp.commands import options


def evaluate(
    dataset: Annotated[str, typer.Argument(help=options.DATASETS)],
    *,
    out: Annotated[
        str,
        typer.Option(
            help="Folder of the run, or a URL such as s3://bucket/run; the same command goes on where it "
            "stopped."
        ),
    ],
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
        methods=listed(methods),
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
    load = partial(classifiers.load, weights=weights, labels=labels, task=checked_task(task))
    # The machine that asks a cluster needs no GPU of its own.
    here = "cpu" if engine == "ray" else device
    code = run(
        dataset,
        partial(
            Session.load,
            weights=weights,
            labels=labels,
            task=checked_task(task),
            device=here,
            engine=placement.computing,
        ),
        settings,
        lambda name: Elsewhere(others, partial(load, name)) if others else None,
        model=model,
        weights=weights,
        metrics=listed(metrics),
        suite=suite,
        out=out,
        outside=outside,
    )
    raise typer.Exit(code)


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


def report(
    folder: Annotated[str, typer.Argument(help="What `clarp evaluate --out` wrote, a URL too.")],
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
