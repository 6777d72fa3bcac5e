"""The cure in a process of its own, because an import happens once."""

import subprocess
import sys

import pytest


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sick():
    """Whether torchvision's own import fails here for want of its compiled operations."""
    plain = python("import torchvision")
    if plain.returncode and "torchvision::nms does not exist" not in plain.stderr:
        pytest.skip("torchvision is not installed")
    return plain.returncode != 0


def test_the_import_works_and_only_declares_what_is_missing(sick):
    cured = python(
        "from clarp.models import _torchvision as t; import torch\n"
        "assert len(t.torchvision.models.list_models()) > 70\n"
        "assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms\n"
        "import gc; gc.collect(); torch.ops.torchvision.nms.default\n"
        "print(hasattr(t, '_declarations'))"
    )
    assert cured.returncode == 0, cured.stderr
    assert cured.stdout.split() == [str(sick)]


def test_it_also_works_after_somebody_elses_import_failed(sick):
    code = "import contextlib\nwith contextlib.suppress(RuntimeError):\n    import torchvision\n"
    cured = python(code + "from clarp.models._torchvision import torchvision as t; t.transforms.Resize(3)")
    assert cured.returncode == 0, cured.stderr


def test_other_failures_are_not_swallowed(tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('something else')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import clarp.models._torchvision"
    broken = python(code)
    assert broken.returncode == 1
    assert "RuntimeError: something else" in broken.stderr
