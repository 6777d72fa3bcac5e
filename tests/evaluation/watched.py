"""A toy model whose preprocessing writes down what each worker opens; runs and maps of it that are compared."""

import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from clarp.cli import main
from evaluation.toys import ENVIRONMENT, METRICS, parts_of, toy_model, toy_photos

MORE = """
import hashlib, multiprocessing, os, signal, sys
from pathlib import Path

here = Path(__file__).parent
working = multiprocessing.parent_process() is not None or sys.argv[0].endswith("default_worker.py")  # Ray's
whole = preprocess

def preprocess(image):
    if working and image.size == (26, 26):  # a photo
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        with (here / "opened.txt").open("a") as file:
            file.write(f"{os.getpid()} {digest}\\n")
        poison = here / "poison"
        if poison.exists() and poison.read_text() == digest:
            os.kill(os.getpid(), signal.SIGKILL)
    return whole(image)

def other():
    model = build()
    if working:
        with torch.no_grad():
            model[0].weight.mul_(2)
    return model

def dying():
    if working:
        os.kill(os.getpid(), signal.SIGKILL)
    return build()

def wrong():
    model = build()
    model.register_forward_pre_hook(refuse if working else lambda *_: None)
    return model

def refuse(*_):
    raise RuntimeError("no room for it")
"""


def watched_model(folder):
    """The model's name; its preprocessing takes a while."""
    model = toy_model(folder, 0.02)
    (folder / "toy.py").write_text((folder / "toy.py").read_text() + MORE)
    return model


@contextmanager
def caching(folder):
    """CLARP_CACHE and one thread are set for all processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        for environment in (os.environ, ENVIRONMENT):
            patch.setitem(environment, "CLARP_CACHE", str(folder / "cache"))
        yield


@contextmanager
def watched_toys(folder):
    """The folder, and the arguments of a run of 4 parts up to --out; ``whole`` in it is the run by one process.

    The model is captured already, and CLARP_CACHE and one thread are set for all processes.
    """
    model = watched_model(folder)
    toy_photos(folder / "photos", 60)
    arguments = ["evaluate", folder / "photos", "--model", model, "--methods", "lrp,ssglrp"]
    arguments += ["--metrics", METRICS, "--batch-size", "4", "--out"]
    with caching(folder):
        assert evaluated(*arguments, folder / "whole") == 0
        assert len(parts_of(folder / "whole")) == 4
        yield folder, arguments


@contextmanager
def watched_photos(folder):
    """The folder, and the arguments of ``clarp explain`` up to --out for 61 photos, a piece for each 16.

    The sixth can't be read. ``whole`` is what one process makes of them.
    """
    model = watched_model(folder)
    toy_photos(folder / "photos", 60)
    for path in (folder / "photos").glob("*/*.png"):
        path.rename(folder / "photos" / path.name)  # a folder of photos has no folders in it
    (folder / "photos" / "004b.png").write_text("no photo")
    arguments = ["explain", folder / "photos", "--model", model, "--batch-size", "4", "--out"]
    with caching(folder):
        assert evaluated(*arguments, folder / "whole") == 1
        assert len(names_of(folder / "whole")) == 60
        yield folder, arguments


def evaluated(*arguments):
    """The exit code of the command line, run in this process."""
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    return ending.value.code or 0


def opened(folder):
    """Of each worker's process the digests of what it opened, and the log is begun anew."""
    log = folder / "opened.txt"
    lines = [line.split() for line in log.read_text().splitlines()] if log.exists() else []
    log.unlink(missing_ok=True)
    return [(int(process), digest) for process, digest in lines]


def same_table(folder, out):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert (out / "rows.parquet").read_bytes() == (folder / "whole" / "rows.parquet").read_bytes()
    assert parts_of(out) == parts_of(folder / "whole")
    for path in (folder / "whole" / "pictures").glob("*.parquet"):
        assert parquet.read_table(out / "pictures" / path.name).equals(parquet.read_table(path))


def stored_rows(url):
    """The bytes of the one table of a run in an object store."""
    system, path = pytest.importorskip("fsspec").core.url_to_fs(url)
    system.invalidate_cache()
    (name,) = (name for name in system.ls(path, detail=False) if "/rows." in name)
    return system.cat_file(name)


def manifest_of(out):
    """What the manifest says of photos, without what differs from process to process."""
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["command"], manifest["finished"]
    manifest["model"]["preprocessing"] = manifest["model"]["preprocessing"].partition(" at ")[0]  # an address
    return manifest


def names_of(out):
    """The photos that the manifest has an entry of."""
    return [Path(photo["file"]).name for photo in manifest_of(out)["photos"]]


def files_of(out):
    """The files of a folder of maps, and their bytes; what a killed process was writing is hidden."""
    found = (path for path in out.iterdir() if not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in found if path.name != "manifest.json"}


def check_manifest_has_what_is_there(out):
    """Every file belongs to an entry of the manifest, and every entry has its files."""
    explained = [entry for photo in manifest_of(out)["photos"] for entry in photo["explanations"]]
    named = {entry[kind] for entry in explained for kind in ("relevance", "overlay")}
    assert {path.name for path in out.iterdir()} - {"manifest.json"} == named


def same_maps(folder, out):
    assert manifest_of(out) == manifest_of(folder / "whole")
    assert files_of(out) == files_of(folder / "whole")
