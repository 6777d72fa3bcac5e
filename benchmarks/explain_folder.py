"""What `clarp explain` of a folder costs beside its explanations, and what a second core brings.

python benchmarks/explain_folder.py                            # 48 generated photos, both tables
python benchmarks/explain_folder.py --photos FOLDER --count 500 --options --format jpg

The first table has what one photo takes in each stage, done one after the other on one core: "before" as it was done until 0.1, a
matplotlib figure and Pillow's own PNG for each photo, "now" by the pipeline's own functions. The second has whole runs on one core and
on two, each between two runs of the explanations alone, in the same batches and on as many cores; medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from importlib import resources
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480), (300, 300))
BATCH = 8
STAGES = ("decode", "preprocess", "explain", "draw", "compress and write")


def photos(folder: Path, count: int) -> None:
    """Photos of usual sizes: parts of the one that comes with the package, mirrored and brightened, each a file of its own."""
    import numpy as np
    from PIL import Image, ImageEnhance, ImageOps

    random = np.random.default_rng(0)
    with Image.open(DEMO) as demo:
        for number in range(count):
            share = random.uniform(0.6, 1.0)
            width, height = (int(side * share) for side in demo.size)
            left, top = (
                int(random.integers(0, side - part + 1))
                for side, part in zip(demo.size, (width, height), strict=True)
            )
            photo = demo.crop((left, top, left + width, top + height)).resize(SIZES[number % len(SIZES)])
            photo = ImageOps.mirror(photo) if random.random() < 0.5 else photo
            photo = ImageEnhance.Brightness(photo).enhance(random.uniform(0.7, 1.2))
            photo.save(folder / f"{number:04}.jpg", quality=90)


def prepared(folder: Path, out: Path, options: list[str]) -> Any:
    """A run of the command, as far as it goes before the first photo."""
    from clarp.commands.explain import Request, Run

    given = argparse.ArgumentParser()
    given.add_argument("--style", default="overlay")
    given.add_argument("--format", default="png")
    given.add_argument("--no-pictures", dest="pictures", action="store_false")
    given.add_argument("--method", default="ssglrp")
    given.add_argument("--model", default="efficientnet-lite0")
    given.add_argument("--batch-size", type=int, default=BATCH)
    found = given.parse_args(options)
    request = Request(
        photos=(folder,), weights=None, labels=None, output=None, task=None, targets=(), against=(), composite=None,
        layers=(), out=out, device="cpu", **vars(found),
    )  # fmt: skip
    return Run.prepared(request)


def used() -> float:
    """Seconds of processor time of this process and those that it started."""
    import psutil

    me = psutil.Process()
    return sum(sum(one.cpu_times()[:2]) for one in (me, *me.children(recursive=True)))


@contextmanager
def timed(into: dict[str, list[float]], name: str) -> Iterator[None]:
    """Adds milliseconds of processor time."""
    before = used()
    yield
    into.setdefault(name, []).append(1e3 * (used() - before))


def stages(run: Any) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time of one photo in each stage, before and now."""
    import torch

    from clarp.commands import writing
    from clarp.images import open_photo
    from clarp.render import figure, rasterised

    paths = run.paths[:BATCH]
    now: dict[str, list[float]] = {}
    before: dict[str, list[float]] = {}
    for repeat in range(4):
        with timed(now, "decode"):
            opened = [open_photo(path) for path in paths]
        with timed(now, "preprocess"):
            images = torch.stack([run.classifier.preprocess(photo) for photo in opened])
        with timed(now, "explain"):
            explanation = run.explainer(images, batch_size="auto")
        items = writing.Explained.of(
            [writing.Opened(path, image, (), "") for path, image in zip(paths, images, strict=True)],
            explanation,
        )
        stems = {path: path.stem for path in paths}
        with tempfile.TemporaryDirectory() as out:
            writer = writing.Writer(run.classifier, (), run.style, run.format, Path(out), stems)
            with timed(now, "all"):
                for item in items:
                    writer.write(item)
            with timed(now, "write"):
                for item in items:
                    replace(writer, format=None).write(item)
            heatmaps = [heatmap.double().numpy() for heatmap in explanation.shown]
            seen = [run.classifier.photo(image) for image in images]
            with timed(now, "draw"):
                pictures = [
                    writing.drawn(photo, heatmap, "title\nprint", run.style)
                    for photo, heatmap in zip(seen, heatmaps, strict=True)
                ]
            with timed(before, "draw"):
                pictures = [
                    rasterised(figure(heatmap, photo, "title\nprint", style=run.style))
                    for photo, heatmap in zip(seen, heatmaps, strict=True)
                ]
            with timed(before, "compress"):
                for picture in pictures:
                    picture.save(BytesIO(), format="PNG")
        if repeat == 0:
            now, before = {}, {}
    each = {name: statistics.median(values) / BATCH for name, values in now.items()}
    old = {name: statistics.median(values) / BATCH for name, values in before.items()}
    shared = {name: each[name] for name in ("decode", "preprocess", "explain")}
    return {
        "before": {**shared, "draw": old["draw"], "compress and write": old["compress"] + each["write"]},
        "now": {
            **shared,
            "draw": each["draw"] if run.format else 0.0,
            "compress and write": each["all"] - (each["draw"] if run.format else 0.0),
        },
    }


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    before, start = used(), time.perf_counter()
    call()
    return time.perf_counter() - start, used() - before


def whole(run: Any, repeats: int) -> dict[str, float]:
    """Seconds of a whole run and of its explanations alone, and medians of their ratio."""
    import torch

    from clarp.background import batches
    from clarp.commands.writing import Opened
    from clarp.images import open_photo

    opened = [Opened(path, run.classifier.preprocess(open_photo(path)), (), "") for path in run.paths]
    parts = [
        torch.stack([photo.image for photo in batch]) for batch in batches(opened, run.request.batch_size)
    ]

    def explanations() -> None:
        for images in parts:
            run.explainer(images, batch_size="auto")

    explanations() if len(parts) < 4 else run.explainer(parts[0], batch_size="auto")
    alone, complete = [measured(explanations)], []
    for _ in range(repeats):
        complete.append(measured(lambda: run.explain(report=False)))
        alone.append(measured(explanations))
    ratios = [
        [2 * complete[k][kind] / (alone[k][kind] + alone[k + 1][kind]) for k in range(repeats)]
        for kind in (0, 1)
    ]
    return {
        "whole": statistics.median(wall for wall, _ in complete),
        "explanations": statistics.median(wall for wall, _ in alone),
        "ratio": statistics.median(ratios[0]),
        "CPU ratio": statistics.median(ratios[1]),
    }


def child(what: str, folder: Path, repeats: int, options: list[str]) -> None:
    """What a process of its own measures, as JSON."""
    import torch

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as out, redirect_stderr(StringIO()):
        run = prepared(folder, Path(out), options)
        assert torch.get_num_threads() <= len(os.sched_getaffinity(0))
        found = stages(run) if what == "stages" else whole(run, repeats)
    print(json.dumps(found))


def ask(what: str, folder: Path, cores: int, repeats: int, options: list[str]) -> Any:
    """Measure in a process on so many cores."""
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    command = [
        sys.executable,
        __file__,
        "--child",
        what,
        "--photos",
        str(folder),
        "--repeats",
        str(repeats),
        "--options",
        *options,
    ]
    done = subprocess.run(
        command,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={"OMP_WAIT_POLICY": "PASSIVE", **{k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}},
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a folder; generated ones if left out")
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", choices=("stages", "whole"), help=argparse.SUPPRESS)
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="of clarp explain; the last option"
    )
    given = parser.parse_args()
    if given.child:
        child(given.child, given.photos, given.repeats, given.options)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.photos:
            for path in sorted(given.photos.iterdir())[: given.count]:
                if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
                    (folder / path.name).symlink_to(path.resolve())
        else:
            photos(folder, given.count)
        found = ask("stages", folder, 1, 1, given.options)
        print(
            f"load {os.getloadavg()[0]:.1f}\n| ms of processor time a photo | before | share | now | share |\n|---|---|---|---|---|"
        )
        sums = {when: sum(found[when].values()) for when in found}
        for stage in STAGES:
            cells = [
                f"{found[when][stage]:.1f} | {found[when][stage] / sums[when]:.0%}"
                for when in ("before", "now")
            ]
            print(f"| {stage} | {' | '.join(cells)} |")
        print(f"| all | {sums['before']:.1f} | | {sums['now']:.1f} | |\n")
        print("| cores | photos a minute | whole / explanations | by processor time |\n|---|---|---|---|")
        for cores in (1, 2):
            one = ask("whole", folder, cores, given.repeats, given.options)
            speed = 60 * len(list(folder.iterdir())) / one["whole"]
            print(f"| {cores} | {speed:.0f} | {one['ratio']:.2f} | {one['CPU ratio']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
