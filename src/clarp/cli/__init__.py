"""The command line: arguments in, exit codes out; the work is done in `clarp.commands`.

Exit codes: 0 everything done, 1 some photos could not be explained, 2 nothing could be done as asked.
"""

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from clarp.allocation import keep_freed_memory
from clarp.cli import classifiers, datasets, photos

app = typer.Typer(
    help="Explain an image classifier: which pixels made it say this class, and not that one.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# In the order of --help.
for command in (
    photos.explain,
    photos.verify,
    photos.compare,
    classifiers.export,
    classifiers.models,
    classifiers.methods,
    classifiers.plan,
    datasets.evaluate,
    datasets.pack,
    datasets.report,
    classifiers.serve,
):
    app.command()(command)


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
