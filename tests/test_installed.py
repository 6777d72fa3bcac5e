"""The versions that are promised: the lowest of every library that is declared, and the newest of all on the newest Python.

Each is installed into an environment of its own, which takes minutes and gigabytes.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
EXTRAS = ("models", "eval", "serve")
NEWEST = "python3.13"
PHOTO = "src/clarp/assets/cat_and_coffee.jpg"


def declared() -> list[str]:
    """What clarp and these extras need, as declared."""
    project = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
    return [
        *project["dependencies"],
        *(one for extra in EXTRAS for one in project["optional-dependencies"][extra]),
    ]


def lowest(requirement: str) -> str:
    """The requirement at its lower bound."""
    return requirement.replace(">=", "==")


def test_every_requirement_has_a_lower_bound():
    assert all(re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", one) for one in declared())


def installed(folder: Path, python: str, requirements: list[str]) -> Path:
    """The Python of a new environment with these."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = folder / "bin" / "python"
    command = [own, "-m", "pip", "install", "--quiet", "--prefer-binary", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Could not fetch" in done.stderr:
        pytest.skip(f"these versions are not to be had here: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    return own


def works(python: Path, folder: Path) -> None:
    """Explain, evaluate, report and serve, as people do."""
    folder.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE / "src"),
        "CLARP_CACHE": "off",
        "PYTHONWARNINGS": "ignore",
    }
    photos = folder / "set" / "espresso"
    photos.mkdir(parents=True)
    for number in range(2):
        shutil.copy(HERE / PHOTO, photos / f"{number}.jpg")

    def clarp(*arguments: str) -> str:
        done = subprocess.run(
            [python, "-m", "clarp", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    for command in ("explain", "compare", "evaluate", "report", "serve", "plan"):
        assert "--" in clarp(command, "--help")
    assert "espresso" in clarp("explain", str(HERE / PHOTO), "--out", "maps")
    clarp(
        "evaluate",
        "set",
        "--methods",
        "lrp,ssglrp,gradcam",
        "--metrics",
        "patch-masking,deletion",
        "--out",
        "run",
    )
    assert "ssglrp" in clarp("report", "run", "--resamples", "100")
    command = [python, "-m", "clarp", "serve", "--port", "0"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            address = re.search(r"http://[0-9.:]+", server.stdout.readline())[0]
            asked = urllib.request.Request(f"{address}/api/predict", (HERE / PHOTO).read_bytes())
            with urllib.request.urlopen(asked, timeout=60) as answer:
                assert b"espresso" in answer.read()
        finally:
            server.kill()


@pytest.mark.slow
def test_the_lowest_versions(tmp_path):
    works(installed(tmp_path / "lowest", sys.executable, list(map(lowest, declared()))), tmp_path / "work")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(NEWEST) is None, reason=f"{NEWEST} is not here")
def test_the_newest_python(tmp_path):
    works(installed(tmp_path / "newest", NEWEST, declared()), tmp_path / "work")
