"""``clarp verify``: the maps of a folder made again, and whether they are the same."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePath
from typing import Any

import torch

from clarp import decoding
from clarp.arguments import EngineName, checked_engine
from clarp.background import cores
from clarp.commands.comparing import (
    ORDER,
    PROBABILITY,
    ROUNDING,
    ROUNDING_SELECTED,
    SAME,
    VerifiedPhoto,
    compared,
)
from clarp.commands.explain import circumstances, explainer_for
from clarp.commands.notes import note, recording_as_notes
from clarp.commands.pipeline import Pipeline
from clarp.commands.recorded import RecordedPhoto, RecordedRun
from clarp.commands.writing import Writer, output_stems
from clarp.exporting.explaining import FileExplainer
from clarp.files import file_sha256
from clarp.method import Method
from clarp.models import registry
from clarp.render import Look
from clarp.session import ModelOptions, Session, device_named
from clarp.task import checked_task
from clarp.text import document, printable

_WORDS = {
    "same": "the same",
    "rounding": "the same but for rounding",
    "different": "different",
    "unchecked": "not checked",
}
_SHOWN = 80  # letters of a value in the report


def run(
    folder: Path,
    load: Callable[[ModelOptions, str, EngineName], Session],
    given: ModelOptions | None,
    *,
    photos: Path | None,
    device: str | None,
    json: bool,
) -> int:
    """Make the maps of a folder again, compare, and report on standard output.

    Args:
        folder: that ``clarp explain`` wrote.
        load: makes a session from options, device and engine.
        given: the model as the user names it; None: a model by name that the manifest names.
        photos: where the photos are now; None: where they were.
        device: where to compute; None: where it was computed, if this machine has that.
        json: print one JSON document and nothing else.

    Returns:
        0 if every map is the same, or the same but for rounding, else 1.

    Raises:
        ValueError, TypeError, OSError, ImportError, CaptureError: the manifest, or what it says, can't be
            used, or an argument does not hold.
    """
    with redirect_stdout(sys.stderr) if json else nullcontext():
        recorded = RecordedRun.read(folder)
        options = recorded.options
        named = model_options(recorded, given)
        torch.set_num_threads(_threads(recorded))
        check = Verification(
            recorded, load(named, _device(options.device, device), checked_engine(options.engine))
        )
        found = check.run(photos, report=not json, labels=options.labels is None or named.labels is not None)
    if json:
        sys.stdout.write(document(found) + "\n")
    return 0 if all(photo["verdict"] in ORDER[:2] for photo in found["photos"]) else 1


def model_options(recorded: RecordedRun, given: ModelOptions | None) -> ModelOptions:
    """The model to load: the user's, or the manifest's where it is known by name and is no file.

    Raises:
        ValueError: the manifest names files, which the user has to name too: it may be a stranger's.
    """
    options = recorded.options
    task = checked_task(options.task)
    if given is not None:
        return ModelOptions(
            given.model, given.weights, given.labels, given.output or options.output, given.task or task
        )
    if registry.program_file(options.model) is not None or not registry.has(options.model):
        more = " Loading it can execute code." if registry.program_file(options.model) else ""
        raise ValueError(
            f"the manifest names the model {options.model!r}, which is no model by name, and a manifest may "
            f"be a stranger's.{more} Name the model yourself: --model, and --weights and --labels where it "
            "needs them."
        )
    if options.weights is not None:
        raise ValueError(
            f"the manifest names the file of weights {options.weights!r} for {options.model}. Name the model "
            f"and the file yourself: --model {options.model} --weights FILE."
        )
    return ModelOptions(options.model, task=task)


def _threads(recorded: RecordedRun) -> int:
    """As many as were used, where there are as many processors: the order of sums depends on it."""
    machine = recorded.content.get("machine")
    threads = machine.get("threads") if isinstance(machine, dict) else None
    if isinstance(threads, int) and 1 <= threads <= cores():
        return int(threads)
    return torch.get_num_threads()


def _device(recorded: str, asked: str | None) -> str:
    """The device that was asked for, else the recorded one, else the CPU where this machine lacks that."""
    if asked is not None:
        return asked
    try:
        device_named(recorded)
    except ValueError:
        return "cpu"
    return recorded


@dataclass(frozen=True, eq=False)
class _InMemory(Writer):
    """Keeps the arrays of each photo, instead of writing them."""

    arrays: dict[str, bytes] = field(default_factory=dict)

    def store(self, name: str, data: bytes) -> None:
        self.arrays[name] = data


class Verification:
    """Makes the maps of a manifest again.

    Args:
        recorded: the manifest.
        session: with the model.

    Raises:
        ValueError: a method, composite, layer or class that the manifest names is not there.
    """

    def __init__(self, recorded: RecordedRun, session: Session) -> None:
        self.recorded, self.session = recorded, session
        options = recorded.options
        file = session.classifier.file is not None
        method, composite = (
            (None, None) if file and not recorded.complete else (options.method, options.composite)
        )
        named = Method.named(method or "ssglrp").with_composite(composite)
        self._method = named
        self._explainer = explainer_for(session, named, asked=method or composite, layers=options.layers)
        classes = (
            *options.targets,
            *options.against,
            *([] if options.expected is None else [options.expected]),
        )
        beyond = sorted({index for index in classes if index >= len(session.classifier.labels)})
        selects = isinstance(self._explainer, FileExplainer) or bool(self._explainer.method.selections)
        self._rounding = ROUNDING_SELECTED if selects else ROUNDING
        if not recorded.has_weights(session.classifier.weights_sha256()):
            self._rounding = SAME  # what differs then has a cause that is known
        if beyond:
            raise ValueError(
                f"the manifest explains the classes {beyond}, and {session.classifier.name} has "
                f"{len(session.classifier.labels)}. Name the model that made the maps: --model."
            )

    def run(self, photos: Path | None, *, report: bool, labels: bool) -> dict[str, Any]:
        """Compare all photos, and return what was found; with ``report`` it is printed too.

        Args:
            photos: where they are now.
            report: whether to print.
            labels: whether the names of classes are compared.
        """
        recorded, options = self.recorded, self.recorded.options
        places = [_located(photo, photos) for photo in recorded.photos]
        paths = list(dict.fromkeys(place for place in places if isinstance(place, Path)))
        writer = _InMemory(self.session, Look(), None, recorded.folder, output_stems(paths))
        pipeline = Pipeline(
            paths,
            self.session,
            self._method,
            self._explainer,
            options.targets,
            options.against,
            options.layers,
            options.batch_size,
            writer,
            asked={"engine": self.session.engine, **_file_sum(self.session.options)},
            expected=options.expected,
        )
        for assumed in self.session.classifier.notes:
            note(assumed)
        for_place: dict[Path, list[RecordedPhoto]] = {}
        found: list[VerifiedPhoto] = []
        for photo, place in zip(recorded.photos, places, strict=True):
            if isinstance(place, Path):
                for_place.setdefault(place, []).append(photo)
            else:
                found.append(VerifiedPhoto(str(photo.file), "unchecked", reasons=[place]))
        with recording_as_notes():
            for one in self._again(pipeline, for_place, writer, labels=labels):
                found.append(one)
                if report:
                    sys.stdout.write(_line(one))
        for path, reason in pipeline.failed.items():
            found += [
                VerifiedPhoto(str(photo.file), "unchecked", reasons=[reason]) for photo in for_place[path]
            ]
        answer = self._answer(pipeline, found)
        if report:
            sys.stdout.write("".join(map(_line, (one for one in found if one.verdict == "unchecked"))))
            sys.stdout.write(_summary(answer))
        return answer

    def _again(
        self, pipeline: Pipeline, photos: dict[Path, list[RecordedPhoto]], writer: _InMemory, *, labels: bool
    ) -> Iterator[VerifiedPhoto]:
        """Each photo that could be made again, compared."""
        for entry in pipeline.run(lambda _: None):
            names = [
                name
                for one in entry["explanations"]
                for name in (one["relevance"], *one.get("layers", {}).values())
            ]
            arrays = {name: writer.arrays.pop(name) for name in names}
            for photo in photos[Path(entry["file"])]:
                yield compared(
                    self.recorded.folder, photo, entry, arrays, labels=labels, rounding=self._rounding
                )

    def _answer(self, pipeline: Pipeline, found: list[VerifiedPhoto]) -> dict[str, Any]:
        recorded = self.recorded
        changed, unknown = recorded.changes(circumstances(pipeline))
        if not recorded.complete:
            unknown.append("the options of the command")
        if any(one.sha256 is None for photo in recorded.photos for one in photo.maps):
            unknown.append("whether the files are those that were written")
        if any(photo.input_sha256 is None for photo in recorded.photos):
            unknown.append("what the preprocessing made of each photo")
        order = {str(photo.file): place for place, photo in enumerate(recorded.photos)}
        found.sort(key=lambda one: order[one.file])
        return {
            "manifest": str(recorded.folder / "manifest.json"),
            "sha256": recorded.sha256,
            "rounding": asdict(self._rounding),
            "probability": PROBABILITY,
            "photos": [asdict(one) for one in found],
            "changed": changed,
            "unknown": unknown,
        }


def _file_sum(options: ModelOptions | None) -> dict[str, str | None]:
    file = None if options is None else registry.program_file(options.model)
    return {"model_file_sha256": None if file is None else file_sha256(file)}


def _located(photo: RecordedPhoto, folder: Path | None) -> Path | str:
    """Where a photo is now, or why it can't be compared.

    In a folder it may lie under its name, or under any end of its old path. Only a file with the recorded
    checksum is decoded.
    """
    parts = [part for part in PurePath(photo.file).parts if part not in {"..", PurePath(photo.file).anchor}]
    places = [photo.file] if folder is None else [folder.joinpath(*parts[k:]) for k in range(len(parts))]
    others = []
    for place in places:
        try:
            if not place.is_file():
                continue
            decoding.check_regular(place)
            digest = file_sha256(place)
        except (OSError, ValueError) as error:
            return f"the photo can't be read: {error}"
        if digest == photo.sha256:
            return place
        others.append(digest)
    if others:
        return f"the photo has changed: its SHA-256 is {others[0]}, and was {photo.sha256}"
    return "the photo is not there; --photos names the folder where it is now"


def _line(photo: VerifiedPhoto) -> str:
    """A photo's part of the report for people."""
    told = f"{photo.file}: {_WORDS[photo.verdict]}"
    if photo.difference and photo.difference != SAME:
        largest, total = photo.difference.largest, photo.difference.total
        told += f", the largest difference is {largest:.1e} of the peak, all together {total:.1e} of the sum"
    return "\n".join(map(printable, (told, *(f"  {reason}" for reason in photo.reasons)))) + "\n"


def _summary(answer: dict[str, Any]) -> str:
    counts = Counter(photo["verdict"] for photo in answer["photos"])
    told = ", ".join(f"{counts[verdict]} {_WORDS[verdict]}" for verdict in ORDER if counts[verdict])
    count = len(answer["photos"])
    lines = [f"{count} {'photo' if count == 1 else 'photos'}: {told}"]
    if counts["rounding"]:
        limit = answer["rounding"]
        lines.append(
            f"up to {limit['largest']:.0e} of a map's peak, and {limit['total']:.0e} of its sum, counts as "
            "rounding"
        )
    lines += [
        f"changed: {one['what']} is {_short(one['now'])}, was {_short(one['was'])}"
        for one in answer["changed"]
    ]
    if answer["unknown"]:
        lines.append(f"not recorded, so not checked: {', '.join(answer['unknown'])}")
    lines.append(f"{answer['manifest']} has the SHA-256 {answer['sha256']}")
    return "\n".join(map(printable, lines)) + "\n"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
