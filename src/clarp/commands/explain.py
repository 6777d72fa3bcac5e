"""``clarp explain``: photos through a classifier and an explainer, to pictures, arrays and a manifest."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from clarp.commands.notes import note, recording_as_notes
from clarp.commands.photos import PhotosElsewhere
from clarp.commands.pipeline import Pipeline, explainer_of
from clarp.commands.writing import Writer, output_stems
from clarp.data.stores import is_url
from clarp.explainer import Explainer
from clarp.exporting.explaining import FileExplainer
from clarp.files import file_sha256
from clarp.images import find_photos
from clarp.layers import resolve_layers
from clarp.manifest import bounds_of, head, look_entry, machine, percent, task_entry, write
from clarp.method import Method
from clarp.models.registry import program_file
from clarp.render import Look
from clarp.render.encoding import PIXEL_FORMATS, Format
from clarp.session import ModelOptions, Session
from clarp.text import document, printable

DEFAULT = "ssglrp"


def run(prepare: Callable[[], Pipeline], *, json: bool, elsewhere: PhotosElsewhere | None = None) -> int:
    """Explain the photos, write the files, report on standard output.

    Args:
        prepare: :func:`prepared` with its arguments.
        elsewhere: other processes that explain; None: this one.
        json: print the manifest and nothing else; whatever libraries print goes to standard error.

    Returns:
        0 if every photo was explained, else 1.

    Raises:
        ValueError, TypeError, ImportError, CaptureError: an argument does not hold, or the model can't be
            explained; nothing was written.
        OSError: the same, or a file can't be written; what was is in the manifest, if that can be.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext():
        manifest = explain(prepare(), report=not json, elsewhere=elsewhere)
    if json:
        sys.stdout.write(document(manifest) + "\n")
    return 1 if manifest["failed"] else 0


def prepared(
    photos: Sequence[Path],
    load: Callable[[], Session],
    *,
    targets: Sequence[str],
    against: Sequence[str],
    expected: str | None = None,
    method: str | None,
    composite: str | None,
    layers: Sequence[str],
    look: Look,
    pictures: bool,
    kind: str,
    out: Path,
    batch_size: int,
) -> Pipeline:
    """Check everything that can be checked before the first photo.

    ``load`` makes the session when it is needed, and ``kind`` is the format of the pictures; the other
    arguments are those of the command line.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: as of :func:`run`.
    """
    url = str(out).replace(":/", "://", 1)  # of which a Path leaves one slash
    if is_url(url):
        raise ValueError(
            f"--out is {url}, and maps are written to a folder on a disk: give one, and copy it when it is "
            "done. `clarp evaluate` writes to other file systems."
        )
    paths, format_ = find_photos(photos), _format_named(kind)
    named = Method.named(method or DEFAULT).with_composite(composite)
    session = load()
    explainer = explainer_for(session, named, asked=method or composite, layers=layers)
    chosen, rivals = session.classes(targets), session.classes(against)
    _check_rivals(explainer, rivals)
    other = None if expected is None else _expected(expected, session, named, look)
    if other is not None and (chosen or rivals):
        raise ValueError(
            "--expected contrasts the predicted class with the expected one, both ways; leave out --target "
            "and --against."
        )
    for target in chosen:
        if rivals and set(rivals) <= {target}:
            label = session.classifier.labels[target]
            raise ValueError(f"--target and --against are both {label!r}; name another class.")
    if look.style == "versus" and len(chosen) != 2:
        raise ValueError(
            f"--style versus draws two classes at once, and --target names {len(chosen)}; name two, such as "
            '--target "Egyptian cat,espresso".'
        )
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; name a folder.")
    out.mkdir(parents=True, exist_ok=True)
    writer = Writer(session, look, format_ if pictures else None, out, output_stems(paths))
    asked = {
        **_model_options(session.options),
        "targets": chosen,
        "against": rivals,
        "expected": other,
        "method": method,
        "composite": composite,
        "layers": list(layers),
        "engine": session.engine,
    }
    return Pipeline(
        paths,
        session,
        named,
        explainer,
        chosen,
        rivals,
        layers,
        batch_size,
        writer,
        asked=asked,
        expected=other,
    )


def _model_options(options: ModelOptions | None) -> dict[str, Any]:
    """The options that name the model, for the manifest; of a file of a model also its checksum."""
    if options is None:
        return {"model": None}
    file = program_file(options.model)
    return {
        "model": options.model,
        "model_file_sha256": None if file is None or not file.is_file() else file_sha256(file),
        "weights": None if options.weights is None else str(options.weights),
        "labels": None if options.labels is None else str(options.labels),
        "output": options.output,
        "task": options.task,
    }


def _expected(name: str, session: Session, method: Method, look: Look) -> int:
    """The number of the class of --expected.

    Raises:
        ValueError: it is not one class, or what explains has no rivals, or the style is that of two classes.
    """
    found, file = session.classes([name]), session.classifier.file
    if len(found) != 1:
        raise ValueError(f"--expected is {name!r}, which names {len(found)} classes; name one.")
    if file is not None:
        raise ValueError(
            f"--expected was given, and {file.path} is a program that explains by itself; name the model "
            "that it was made of."
        )
    if not method.has_rivals:
        raise ValueError(
            f"--expected was given, but the method {method.name!r} has no rivals; leave it out, or use "
            "ssglrp."
        )
    if look.style == "versus":
        raise ValueError("--expected draws the picture of both classes anyway; leave out --style versus.")
    return found[0]


def explainer_for(
    session: Session, method: Method, *, asked: str | None, layers: Sequence[str]
) -> Explainer | FileExplainer:
    """The explainer of a session's model by this method, or of its file by the file's own.

    Raises:
        ValueError: ``asked`` names a method or composite to a file that has its own, or an engine was asked
            for it, or the model has no such layer.
    """
    file = session.classifier.file
    if file is not None:
        if session.engine != "torch":
            raise ValueError(
                f"--engine is {session.engine}, and {file.path} is a program that computes by itself. Leave "
                "--engine out, or name the model that the file was made of."
            )
        if asked or layers:
            what = f"{asked} was asked" if asked else "--layers was given"
            raise ValueError(
                f"{what}, and {file.path} explains by {file.about.method} and gives the map of the pixels "
                "alone. Leave it out, or name the model that the file was made of."
            )
    explainer = explainer_of(session, method)
    if layers and isinstance(explainer, Explainer):
        shape = tuple(session.classifier.preprocess(Image.new("RGB", (320, 320))).shape)
        resolve_layers(layers, explainer.plan(shape).graph)
    return explainer


def _check_rivals(explainer: Explainer | FileExplainer, rivals: Sequence[int]) -> None:
    """Refuse rivals for what has none.

    Raises:
        ValueError: the method has no rivals, or the file does not take them.
    """
    if not rivals:
        return
    if isinstance(explainer, FileExplainer):
        if not explainer.file.about.against:
            raise ValueError(
                f"--against was given, and {explainer.file.path} was exported without rivals as an input; "
                "export it with --against."
            )
    elif not explainer.method.has_rivals:
        raise ValueError(
            f"--against was given, but the method {explainer.method.name!r} has no rivals; leave it out, or "
            "use ssglrp."
        )


def _made_by(pipeline: Pipeline) -> dict[str, Any]:
    """What the manifest says of the method."""
    if isinstance(pipeline.explainer, FileExplainer):
        about = pipeline.explainer.file.about
        source = "each image's own minima and maxima per channel" if about.low is None else "given"
        return {
            "method": {"name": about.method, "definition": about.definition},
            "composite": {"name": about.composite},
            "bounds": {"source": source, "low": about.low, "high": about.high},
            "exported": about.versions,
        }
    method = pipeline.explainer.method
    return {
        "method": {"name": method.name, "definition": repr(method)},
        "composite": {"name": method.rules.name, "definition": repr(method.rules)},
        "bounds": bounds_of(pipeline.session.classifier, method),
    }


def explain(pipeline: Pipeline, *, report: bool, elsewhere: PhotosElsewhere | None = None) -> dict[str, Any]:
    """Explain all photos and return the manifest, which is also written; arguments as of :func:`run`."""
    for assumed in pipeline.session.classifier.notes:
        note(assumed)
    try:
        with recording_as_notes():
            _run(pipeline, elsewhere, report=report)
    except KeyboardInterrupt:
        _finished(pipeline)
        done = f"{len(pipeline.entries)} of {len(pipeline.paths)} photos"
        sys.stderr.write(f"clarp: stopped after {done}; {_manifest_of(pipeline)} has those.\n")
        raise
    except OSError:
        with suppress(OSError):  # where no picture could be written, there may be no room for it either
            _finished(pipeline)
        raise
    return _finished(pipeline)


def _run(pipeline: Pipeline, elsewhere: PhotosElsewhere | None, *, report: bool) -> None:
    """Explain all photos, and say of each what came of it."""
    console = Console(stderr=True, soft_wrap=True)
    # On a terminal the report must not run into the bar, so rich prints it above; a redirected one stays as
    # it is.
    bar = Progress(
        console=console, transient=True, redirect_stdout=sys.stdout.isatty(), disable=not console.is_terminal
    )
    with bar:
        task = bar.add_task("explaining", total=len(pipeline.paths))

        def advance(done: int) -> None:
            bar.update(task, completed=done)

        run = pipeline.run(advance) if elsewhere is None else elsewhere.run(pipeline, advance)
        for entry in run:
            for assumed in entry.get("notes", ()):
                note(f"{entry['file']}: {assumed}")
            if report:
                sys.stdout.write(_summary(entry, pipeline.writer.out))


def _finished(pipeline: Pipeline) -> dict[str, Any]:
    """Name the photos that failed, and write the manifest of those that were explained."""
    failed = {path: pipeline.failed[path] for path in pipeline.paths if path in pipeline.failed}
    for path, reason in failed.items():
        sys.stderr.write(printable(f"clarp: skipped {path}: {reason.removeprefix(f'{path}: ')}") + "\n")
    writer = pipeline.writer
    manifest = {
        **circumstances(pipeline),
        "pictures": writer.format,
        "look": look_entry(writer.look) if writer.format else None,
        "photos": [pipeline.entries[path] for path in pipeline.paths if path in pipeline.entries],
        "failed": [{"file": str(path), "error": reason} for path, reason in failed.items()],
    }
    write(manifest, _manifest_of(pipeline))
    return manifest


def circumstances(pipeline: Pipeline) -> dict[str, Any]:
    """What the manifest says beside the photos: versions, model, method, options and machine."""
    return {
        **head(pipeline.session.classifier),
        "asked": pipeline.asked,
        **_made_by(pipeline),
        "device": ", ".join(sorted(pipeline.devices)) or str(pipeline.session.device),
        "machine": pipeline.machine or machine(pipeline.session.device),
        "dtype": None if pipeline.dtype is None else pipeline.dtype.removeprefix("torch."),
        "batch_size": pipeline.batch_size,
        "task": task_entry(pipeline.task),
    }


def _manifest_of(pipeline: Pipeline) -> Path:
    return pipeline.writer.out / "manifest.json"


def _format_named(name: str) -> Format:
    for known in PIXEL_FORMATS:
        if known == name:
            return known
    raise ValueError(f"--format is {name!r}, expected one of {', '.join(PIXEL_FORMATS)}.")


def _summary(entry: dict[str, Any], out: Path) -> str:
    """A photo's part of the report for people."""
    top = entry["predictions"]
    asked = [explanation["target"] for explanation in entry["explanations"]]
    rows = [(known, "") for known in top] + [(known, ", as asked") for known in asked if known not in top]
    told = [entry["file"]]
    told += [f"  {percent(p['probability']):>6}  {p['label']} ({p['class']}){how}" for p, how in rows]
    for explanation in entry["explanations"]:
        against = explanation["against"]
        rivals = (
            ", ".join(rival["label"] for rival in against)
            if isinstance(against, list)
            else against.partition(":")[0]  # the reason behind it is in the manifest
        )
        file = explanation.get("overlay", explanation["relevance"])
        told.append(f"  {explanation['target']['label']} against {rivals}: {out / file}")
    return "\n".join(map(printable, told)) + "\n"
