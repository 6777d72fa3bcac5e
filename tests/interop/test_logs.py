"""What loggers have written, read back; and a network that learns under Lightning."""

import warnings

import numpy as np
import pytest
from PIL import Image

import clarp
from clarp.interop.logs import full_colour, pictures, to_mlflow, to_tensorboard, to_wandb
from clarp.render import Look, Scale, picture
from interop.runs import IMAGES, network, written


@pytest.fixture(scope="module")
def explanation():
    return clarp.Explainer(network(), "sglrp", bounds=(0.0, 1.0), labels=["ant", "bee", "cat"])(
        IMAGES, [[0, 1], [2, 1]]
    )


def test_one_scale_for_all(explanation) -> None:
    drawn = list(pictures(explanation, 0.01))
    assert [caption.partition(" (")[0] for caption, _ in drawn] == [
        "image 0, ant",
        "image 0, bee",
        "image 1, cat",
        "image 1, bee",
    ]
    shares = explanation.probabilities[[0, 0, 1, 1], [0, 1, 2, 1]]
    assert [caption.partition(" (")[2] for caption, _ in drawn] == [f"{share:.1%})" for share in shares]
    photo = (IMAGES[1] * 255).round().byte().permute(1, 2, 0).numpy()
    heatmap, look = explanation.heatmap[1, 0].double().numpy(), Look(caption=False)
    expected = picture(heatmap, photo, "", look, scale=Scale(0.01, "", ""))
    np.testing.assert_allclose(drawn[2][1], np.asarray(expected), atol=2)  # the photo is rounded otherwise
    fainter = list(pictures(explanation, 1.0))[2][1]
    assert np.ptp(fainter.mean(2)) < np.ptp(drawn[2][1].mean(2))


def test_the_scale_is_that_of_all_maps(explanation) -> None:
    expected = np.percentile(np.abs(explanation.heatmap.double().numpy()), 99.5)
    assert full_colour(explanation) == pytest.approx(expected, rel=1e-6)
    assert full_colour(explanation, explanation) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("limit", [0.0, -1.0, float("nan")])
def test_no_scale(explanation, limit) -> None:
    with pytest.raises(ValueError, match="expected relevance above zero"):
        list(pictures(explanation, limit))


def test_tensorboard(explanation, tmp_path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    limit = full_colour(explanation)
    with SummaryWriter(tmp_path) as writer:
        to_tensorboard(writer, "relevance", explanation, 7, limit=limit)
    for number, (_, drawn) in enumerate(pictures(explanation, limit)):
        ((step, pixels),) = written(tmp_path, f"relevance/{number}")
        assert step == 7
        np.testing.assert_array_equal(pixels, drawn)


def test_wandb(explanation, tmp_path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is 80 MB, so CI does without")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="maps", dir=tmp_path) as run:
        to_wandb(run, "relevance", explanation, 3, limit=full_colour(explanation))
    found = sorted(tmp_path.rglob("media/images/*.png"))
    assert len(found) == 4
    drawn = {pixels.tobytes() for _, pixels in pictures(explanation, full_colour(explanation))}
    assert {np.asarray(Image.open(one).convert("RGB")).tobytes() for one in found} == drawn


def test_mlflow(explanation, tmp_path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow brings a server, so CI does without")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of files as its store
        client = mlflow.MlflowClient(f"file:{tmp_path}")
        run = client.create_run(client.create_experiment("maps"))
        to_mlflow(client, run.info.run_id, "relevance", explanation, 3, limit=full_colour(explanation))
    found = [one for one in tmp_path.rglob("images/*.png") if "timestamp" in one.name]
    assert len(found) == 4
