"""Write a page that explains photos in the browser, without a server behind it: a folder of static files.

python examples/browser/build.py --out FOLDER
python -m http.server --directory FOLDER
"""

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image

import clarp
from clarp.exporting.preprocessing import written
from clarp.models import load
from clarp.render.palette import paint

PAGE = Path(__file__).parent / "page"
RUNTIME = "onnxruntime-web@1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of its tarball, as the registry publishes it."""
TAKEN = {"ort.wasm.bundle.min.mjs": "ort.js", "ort-wasm-simd-threaded.wasm": "ort.wasm"}
"""The smallest of its builds: WebAssembly alone. Not every server knows that .mjs is JavaScript."""
COLOURS = 511


def build(out: Path, model: str, method: str, tarball: Path | None = None) -> None:
    """Write the page.

    Args:
        out: the folder, which is made if it is missing.
        model: the name of a classifier, see ``clarp.models.load``.
        method: the name of a method.
        tarball: ONNX Runtime Web as npm packs it; None: npm fetches it.

    Raises:
        ValueError: the page can't show this model, or the tarball is another one.
        FileNotFoundError: npm is not installed.
        RuntimeError: npm can't fetch the tarball.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_runtime(out / "runtime", tarball)
    write_model(out, model, method)
    shutil.copytree(PAGE, out, dirs_exist_ok=True)
    with as_file(files("clarp") / "assets/cat_and_coffee.jpg") as sample:
        shutil.copy(sample, out / "sample.jpg")
    write_keeper(out)


def write_model(out: Path, name: str, method: str) -> None:
    """The classifier and its explanation, what it says of itself, and what the page needs to know."""
    classifier = load(name)
    explainer = clarp.Explainer(
        classifier.module, method=method, bounds=classifier.bounds, labels=classifier.labels
    )
    image = classifier.preprocess(Image.new("RGB", (300, 300), "grey"))
    preprocessing, task = written(classifier.preprocess), explainer(image[None]).task
    kind = "code of its own" if preprocessing is None else preprocessing["kind"]
    if kind != "colours" or task != "multiclass":
        raise ValueError(
            f"{name} is a {task} model, its preprocessing {kind}: this page is for photos in colour and "
            "models that choose one of several classes."
        )
    file = out / "model.onnx"
    against = explainer.method.has_rivals
    about = clarp.export(explainer, file, tuple(image.shape), against=against, classifier=classifier)
    (out / "about.json").write_text(about.to_json(), encoding="utf-8")
    colours = paint(np.linspace(-1, 1, COLOURS)).astype(float).round(4).tolist()
    page = {"model": {"file": file.name, "bytes": file.stat().st_size}, "colours": colours}
    (out / "page.json").write_text(json.dumps(page), encoding="utf-8")


def write_runtime(out: Path, tarball: Path | None) -> None:
    """ONNX Runtime Web, the files that are needed."""
    with tempfile.TemporaryDirectory() as folder:
        found = tarball or fetched(Path(folder))
        digest = hashlib.sha512(found.read_bytes()).digest()
        if base64.b64encode(digest).decode() != INTEGRITY:
            raise ValueError(f"{found} is not {RUNTIME} as it was published: its SHA-512 is another.")
        out.mkdir(exist_ok=True)
        with tarfile.open(found) as archive:
            for name, own in TAKEN.items():
                member = archive.extractfile(f"package/dist/{name}")
                assert member is not None
                (out / own).write_bytes(member.read())


def fetched(folder: Path) -> Path:
    """The tarball, from the registry of npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            f"npm is not installed, which fetches {RUNTIME}: install Node.js, or give its tarball "
            "(--runtime FILE)."
        )
    done = subprocess.run(
        [npm, "pack", RUNTIME, "--pack-destination", str(folder), "--silent"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"npm can't fetch {RUNTIME}: {done.stderr.strip()}")
    return next(folder.glob("*.tgz"))


def write_keeper(out: Path) -> None:
    """The service worker, which has to know all files; another version where one of them is another."""
    keeper = out / "keep.js"
    names = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and p != keeper)
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name} {hashlib.sha256((out / name).read_bytes()).hexdigest()}\n".encode())
    head = f"const FILES = {json.dumps(['./', *names])};\nconst VERSION = {digest.hexdigest()[:16]!r};\n"
    keeper.write_text(head + (PAGE / "keep.js").read_text(encoding="utf-8"), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, required=True, help="the folder")
    parser.add_argument("--model", default="efficientnet-lite0", help="the name of a classifier")
    parser.add_argument("--method", default="ssglrp", help="the name of a method")
    parser.add_argument("--runtime", type=Path, help=f"the tarball of {RUNTIME}, where npm can't fetch it")
    given = parser.parse_args(arguments)
    build(given.out, given.model, given.method, given.runtime)
    for file in sorted(given.out.rglob("*")):
        if file.is_file():
            print(f"{file.stat().st_size / 1e6:8.3f} MB  {file.relative_to(given.out)}")


if __name__ == "__main__":
    main()
