"""What examples/browser/build.py refuses."""

import pytest
import torch

from clarp.models.classifier import Classifier


def test_another_tarball(builder, tmp_path):
    (tmp_path / "other.tgz").write_bytes(b"something else")
    with pytest.raises(ValueError, match="its SHA-512 is another"):
        builder.write_runtime(tmp_path / "runtime", tmp_path / "other.tgz")
    assert not (tmp_path / "runtime").exists()


def test_without_npm(builder, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="npm is not installed"):
        builder.write_runtime(tmp_path / "runtime", None)


def test_a_model_whose_photos_the_page_can_t_prepare(builder, tmp_path, monkeypatch):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()
    own = Classifier("own", module, ("a", "b", "c"), lambda photo: torch.ones(3, 2, 2))
    monkeypatch.setattr(builder, "load", lambda name: own)
    with pytest.raises(
        ValueError, match="own is a multiclass model, its preprocessing code of its own: this"
    ):
        builder.write_model(tmp_path, "own", "lrp")
    assert not list(tmp_path.iterdir())


def test_another_file_makes_another_version(builder, tmp_path):
    def version():
        builder.write_keeper(tmp_path)
        return (tmp_path / "keep.js").read_text().splitlines()[:2]

    (tmp_path / "about.json").write_text("{}")
    files, first = version()
    assert files == 'const FILES = ["./", "about.json"];'
    assert version() == [files, first]
    (tmp_path / "about.json").write_text("[]")
    assert version()[1] != first
