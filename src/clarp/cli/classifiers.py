"""Commands about a classifier: what there is, its plan, and what runs it elsewhere."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clarp.cli.values import checked_task, without_collection
from clarp.commands import options


def models(json: options.Json = False) -> None:
    """List the models by name."""
    from clarp.commands import listing

    listing.models(json=json)


def methods(json: options.Json = False) -> None:
    """List the methods: when to take each, and its seed, selection and rules."""
    from clarp.commands import listing

    listing.methods(json=json)


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

    listing.plan(model, weights, labels, method, composite, output=output, task=checked_task(task), json=json)


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
    with without_collection():
        from clarp.commands.export import run
        from clarp.session import Session

    load = partial(Session.load, model, weights, labels, output, task=checked_task(task), device="cpu")
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
        task=checked_task(task),
    )
