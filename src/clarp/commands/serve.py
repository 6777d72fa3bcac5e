"""``clarp serve``: models loaded and tried out, then the page and its API until Ctrl-C."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from clarp import models
from clarp.arguments import EngineName
from clarp.cache import default_folder
from clarp.commands.notes import lost_as_notes, lost_in_silence, note, recording_as_notes
from clarp.serve.app import application
from clarp.serve.engine import Engine
from clarp.serve.guard import Hosts
from clarp.serve.limits import Limits
from clarp.serve.server import Address, run, token_for

_STOPPED = 130
"""The exit code after Ctrl-C."""


def serve(
    specs: Sequence[str],
    address: Address,
    *,
    token: bool | None,
    engine: EngineName = "torch",
    **options: Path | str | None,
) -> None:
    """Load the models, and serve until the process is told to stop.

    Args:
        specs: what ``--model`` named.
        address: where to listen.
        token: whether requests need one; None: unless only this machine can reach the server.
        engine: what computes explanations.
        **options: weights, labels, output and task of the model, as of :func:`clarp.models.load`.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: a model can't be loaded or explained, or
            the address can't be listened at.
    """
    secret = token_for(address, token)
    with address.listen() as listening, lost_in_silence(), recording_as_notes():
        engines = load(specs, Limits(), computing=engine, **options)
        if not address.local and secret is None:
            note(f"everybody who can reach {address.host} can use this server; --token makes it ask for one.")
        app = application(engines, Hosts.of(address.host), secret)
        url = address.url(listening.getsockname()[1], secret)
        sys.stdout.write(
            f"clarp serves {', '.join(engine.name for engine in engines)} at {url} (Ctrl-C ends it)\n"
        )
        sys.stdout.flush()
        try:
            run(app, listening)
        finally:
            if app.busy():
                # A map that is being computed can't be interrupted, and Python would wait for its thread.
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(_STOPPED)


def load(
    specs: Sequence[str],
    limits: Limits,
    *,
    computing: EngineName = "torch",
    **options: Path | str | None,
) -> list[Engine]:
    """The models, each tried out on the demo's photo with the default method.

    Args:
        specs: what ``--model`` named.
        limits: see :class:`Limits`.
        computing: what computes explanations.
        **options: weights, labels, output and task of the model, where it is one.

    Raises:
        ValueError: a model is named twice, or there are several and options; or as `clarp.models.load` and
            :class:`~clarp.explainer.Explainer`.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    if given and len(specs) > 1:
        raise ValueError(
            f"--{' and --'.join(given)} would be for one model, and --model names {len(specs)}: serve each "
            "by itself."
        )
    engines: list[Engine] = []
    for spec in specs:
        # Of a file the name alone: where it lies is nobody's business.
        name = Path(spec).name
        if any(engine.name == name for engine in engines):
            raise ValueError(f"--model {spec}: a model called {name} is served already; name each once.")
        engine = Engine(
            name,
            spec,
            models.load(spec, **given),
            limits,
            cache=default_folder(),
            options=given,
            computing=computing,
        )
        with lost_as_notes(partial(_sample, engine), option="`clarp explain --composite {}`"):
            engine.try_out("ssglrp")
        for assumed in engine.notes:  # of the task too, which the sample photo has told
            note(assumed)
        engines.append(engine)
    return engines


def _sample(engine: Engine, _: int, index: int) -> str:
    return f"the sample photo, {engine.classifier.labels[index]}"
