"""What `clarp explain` of a folder costs beside its explanations, and what a second core brings.

python benchmarks/explain_folder.py                            # 48 generated photos, both tables
python benchmarks/explain_folder.py --photos FOLDER --count 500 --options --format jpg

The first table has what one photo takes in each stage, done one after the other on one core: "before" as it was done until 0.1, a
matplotlib figure and Pillow's own PNG for each photo, "now" by the pipeline's own functions. The second has whole runs on one core and
on two, each between two runs of the explanations alone, in the same batches and on as many cores; medians.
"""

# ruff: noqa: SLF001  the stages are the pipeline's own
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
from contextlib import contextmanager, redirect_stderr, suppress
from importlib import resources
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
SIZES = ((500, 375), (375, 500), (500, 333), (640, 480), (300, 300))
BATCH = 8
STAGES = ("read", "explain", "draw", "compress and write")


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
    from clarp import cli
    from clarp.commands import explain

    asked: list[Callable[[], Any]] = []

    def run(prepare: Callable[[], Any], **others: object) -> int:
        del others
        asked.append(prepare)
        return 0

    explain.run = run
    with suppress(SystemExit):
        cli.main(["explain", str(folder), "--out", str(out), *options])
    return asked[0]()


def used() -> float:
    """Seconds of processor time of this process and of its decoders."""
    import psutil

    decoders = psutil.Process().children(recursive=True)
    return time.process_time() + sum(sum(decoder.cpu_times()[:2]) for decoder in decoders)


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Adds milliseconds of processor time."""
    before = used()
    yield
    into[name] = into.get(name, 0.0) + 1e3 * (used() - before)


def stages(run: Any) -> dict[str, dict[str, float]]:
    """Milliseconds of processor time of one photo in each stage, before and now."""
    from clarp import files
    from clarp.commands import writing
    from clarp.render import figure, rasterised

    took: dict[str, float] = {}
    write = files.write_atomically

    def written(*arguments: Any) -> None:
        with timed(took, "write"):
            write(*arguments)

    vars(writing)["write_atomically"] = written
    paths = run.paths[: 4 * BATCH]
    for part in (paths[:BATCH], paths):
        took.clear()  # the first is for warming up
        for begin in range(0, len(part), BATCH):
            with timed(took, "read"):
                photos = [run._opened(path) for path in part[begin : begin + BATCH]]
            with timed(took, "explain"):
                items = list(run._explanations(photos))
            with timed(took, "draw and write"):
                for item in items:
                    run.writer.write(item)
            with timed(took, "old draw"):
                pictures = [_as_before(run, item, figure, rasterised) for item in items]
            with timed(took, "old compress"):
                for picture in pictures:
                    picture.save(BytesIO(), format="PNG")
    took = {name: value / len(paths) for name, value in took.items()}
    now = {"read": took["read"], "explain": took["explain"], "draw": took["draw and write"] - took["write"]}
    before = {**now, "draw": took["old draw"], "compress and write": took["old compress"]}
    return {"before": before, "now": {**now, "compress and write": took["write"]}}


def _as_before(run: Any, item: Any, figure: Any, rasterised: Any) -> Any:
    heatmap = item.maps.shown[0].double().numpy()
    return rasterised(figure(heatmap, run.session.classifier.photo(item.photo.image), "title\nsmall print"))


def measured(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time."""
    before, start = used(), time.perf_counter()
    call()
    return time.perf_counter() - start, used() - before


def whole(run: Any, repeats: int) -> dict[str, float]:
    """Seconds of a whole run and of its explanations alone, and medians of their ratio."""
    import torch

    from clarp.background import batches
    from clarp.commands.explain import explain

    opened = [run._opened(path) for path in run.paths]
    parts = [torch.stack([photo.image for photo in batch]) for batch in batches(opened, run.batch_size)]
    del opened

    def explanations() -> None:
        for images in parts:
            run.explainer(images, batch_size="auto")

    run.explainer(parts[0], batch_size="auto")
    alone, complete = [measured(explanations)], []
    for _ in range(repeats):
        complete.append(measured(lambda: explain(run, report=False)))
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
