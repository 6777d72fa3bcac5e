"""Whether what would be released can be used: wheel and sdist, each in an empty environment of its own.

    python tests/release_check.py [--python python3.11] [--newest python3.13]

Builds both. The wheel is installed with the lowest PyTorch that pyproject.toml allows on ``--python``, and the sdist
with the newest that the package index offers on ``--newest``. In each: `clarp --version`, a map of the embedded
model, the time of `import clarp`, and no file of the repository on the path. Downloads gigabytes.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = 5
"""The time of an import is the median of so many."""
SMOKE = """
import json, statistics, subprocess, sys, time
from importlib.metadata import requires, version
from importlib.resources import files
import numpy, torch
import clarp

photo = files("clarp") / "assets/cat_and_coffee.jpg"
command = [sys.prefix + "/bin/clarp", "explain", str(photo), "--target", "285", "--against", "967", "--out", "maps"]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
(entry,) = json.load(open("maps/manifest.json"))["photos"]
relevance = numpy.load("maps/" + entry["explanations"][0]["relevance"]).sum(0).clip(min=0)
subprocess.run([sys.prefix + "/bin/clarp", "verify", "maps"], check=True, stdout=subprocess.DEVNULL)
times = []
for _ in range(IMPORTS):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import clarp"], check=True)
    times.append(time.perf_counter() - begin)
begin = time.perf_counter()
subprocess.run([sys.executable, "-c", "import torch"], check=True)
alone = time.perf_counter() - begin
core = [name for name in requires("clarp") if "extra ==" not in name]
print(json.dumps({
    "clarp": version("clarp"), "python": sys.version.split()[0], "torch": torch.__version__,
    "in the upper half": round(float(relevance[:112].sum() / relevance.sum()), 3),
    "import clarp, s": round(statistics.median(times), 2), "import torch, s": round(alone, 2),
    "core dependencies": len(core), "from": clarp.__file__,
}))
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, and return what it printed.

    Raises:
        SystemExit: it failed.
    """
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def environment(folder: Path, python: str) -> Path:
    """A new environment; returns its Python."""
    run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def built(folder: Path) -> tuple[Path, Path]:
    """The wheel, and the sdist."""
    python = environment(folder / "builder", sys.executable)
    run(python, "-m", "pip", "install", "-q", "build")
    run(python, "-m", "build", "--outdir", folder / "dist", ROOT)
    (wheel,), (sdist,) = ((folder / "dist").glob(kind) for kind in ("*.whl", "*.tar.gz"))
    return wheel, sdist


def checked(folder: Path, python: str, requirements: Sequence[str]) -> dict[str, object]:
    """Install into an empty environment and try."""
    begin = time.perf_counter()
    own = environment(folder / "environment", python)
    run(own, "-m", "pip", "install", "-q", *requirements)
    installed = time.perf_counter() - begin
    said = run(folder / "environment" / "bin" / "clarp", "--version", cwd=folder)
    version = re.search(r'__version__ = "(.*)"', (ROOT / "src/clarp/__init__.py").read_text())
    assert version is not None
    assert said == f"clarp {version[1]}\n", said
    smoke = SMOKE.replace("IMPORTS", str(IMPORTS))
    found: dict[str, object] = json.loads(run(own, "-c", smoke, cwd=folder).splitlines()[-1])
    assert not str(found.pop("from")).startswith(str(ROOT)), "the repository was imported, not the package"
    assert float(str(found["in the upper half"])) > 0.9, "the cat is in the upper half"
    return {**found, "installed in, s": round(installed)}


def lowest() -> list[str]:
    """PyTorch and torchvision as old as pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    several = [*project["dependencies"], *project["optional-dependencies"]["models"]]
    least = dict(name.split(">=") for name in several if ">=" in name)
    return [f"{name}=={least[name]}" for name in ("torch", "torchvision")]


def main() -> None:
    """Build, install twice, try, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="python3.11", help="for the lowest PyTorch")
    parser.add_argument("--newest", default=sys.executable, help="a Python for the newest PyTorch")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel, sdist = built(folder)
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
        assert any(part.endswith("licenses/LICENSE") for part in names)
        assert all(part.startswith(("clarp/", "clarp-")) for part in names), names
        for file in (wheel, sdist):
            sys.stdout.write(f"{file.name}: {file.stat().st_size / 1e6:.2f} MB\n")
        for kind, file, python, more in (
            ("lowest", wheel, given.python, lowest()),
            ("newest", sdist, given.newest, ["torch", "torchvision"]),
        ):
            (folder / kind).mkdir()
            found = checked(folder / kind, python, [f"clarp[models] @ {file.as_uri()}", *more])
            sys.stdout.write(f"{kind}: {json.dumps(found)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
