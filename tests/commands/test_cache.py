"""Every command that explains takes the graph that another left on disk."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clarp import network
from clarp.cli import main
from clarp.commands import serve
from clarp.serve.limits import Limits
from evaluation.toys import toy_model, toy_photos


def clarp(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ending:
        main([str(argument) for argument in arguments])
    assert not ending.value.code


def explain(model: str, photo: Path, out: Path) -> None:
    clarp("explain", photo, "--model", model, "--out", out)


def compare(model: str, photo: Path, out: Path) -> None:
    clarp("compare", photo, "--model", model, "--methods", "lrp,sglrp", "--out", out / "sheet.png")


def evaluate(model: str, photo: Path, out: Path) -> None:
    metrics = ("--metrics", "patch-masking:size=5")
    clarp("evaluate", photo.parents[1], "--model", model, "--methods", "lrp", *metrics, "--out", out)


def served(model: str, photo: Path, out: Path) -> None:
    del photo, out
    serve.load([model], Limits())


@pytest.mark.parametrize("command", [explain, compare, evaluate, served])
def test_nothing_is_captured_twice(
    command: Callable[[str, Path, Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for extra in ("pyarrow", "scipy", "filelock", "fastapi"):
        pytest.importorskip(extra)
    cache, model = tmp_path / "cache", toy_model(tmp_path)
    photos = toy_photos(tmp_path / "photos", 4)
    monkeypatch.setenv("CLARP_CACHE", str(cache))
    clarp("plan", model)
    (left,) = cache.glob("*.graph")
    captured = []
    monkeypatch.setattr(network, "capture_module", lambda *given, **_: captured.append(given))
    command(model, next(photos.rglob("*.png")), tmp_path / "out")
    assert not captured
    assert list(cache.glob("*.graph")) == [left]
