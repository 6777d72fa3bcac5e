"""The same numbers as clarp's own rows give, however they are split over batches and processes."""

import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import multiprocessing, nn

import clarp
from clarp.evaluation import PatchMasking, PointingGame, Sparseness, mean_over_classes

pytest.importorskip("clarp.models._torchvision")
pytest.importorskip("torchmetrics")

from torchmetrics import MetricCollection

from clarp.interop.torchmetrics import MapMetric

DRAW = torch.Generator().manual_seed(0)
MAPS = torch.randn(12, 8, 8, generator=DRAW)
IMAGES = torch.rand(12, 3, 8, 8, generator=DRAW)
MASKS = torch.rand(12, 8, 8, generator=DRAW) < 0.4
MASKS[4] = False  # the image without its class is not counted
CLASSES = torch.tensor([0, 0, 0, 0, 0, 0, 2, 2, 2, 1, 1, 2])
POINTING = PointingGame(tolerance=1)


def batches(*sizes: int):
    start = 0
    for size in sizes:
        yield slice(start, start + size)
        start += size


def pointed(num_classes: int | None, *sizes: int) -> MapMetric:
    metric = MapMetric(POINTING, num_classes)
    for part in batches(*sizes):
        metric.update(None, None, MAPS[part], CLASSES[part], masks=MASKS[part])
    return metric


def test_pointing_is_the_mean_over_images_that_count() -> None:
    rows = POINTING(None, None, MAPS, masks=MASKS)
    metric = pointed(None, 5, 4, 3)
    found = metric.compute()
    assert list(found) == list(POINTING.columns)
    for name, value in found.items():
        torch.testing.assert_close(value, rows[name].nanmean(), equal_nan=True, rtol=1e-12, atol=0)
    assert 0 < found["hit"] < 1
    assert metric.count[0].tolist() == [11]


def test_pointing_over_classes_is_torchrays_accuracy() -> None:
    rows = POINTING(None, None, MAPS, masks=MASKS)
    found = pointed(4, 7, 5).compute()["hit"]  # class 3 has no image
    assert float(found) == pytest.approx(mean_over_classes(rows["hit"], CLASSES.tolist()), rel=1e-12)
    assert float(found) != pytest.approx(float(rows["hit"].nanmean()), rel=1e-3)


def test_patch_masking() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    explainer, own = clarp.Explainer(model, "sglrp"), PatchMasking(size=(3, 5), fill="colour")
    metric = MapMetric(own)
    for part in batches(6, 6):
        e = explainer(IMAGES[part])
        batch = metric(explainer, IMAGES[part], e.heatmap, e.target)
        rows = own(explainer, IMAGES[part], e.heatmap, targets=e.target)
        assert float(batch["drop@3"]) == pytest.approx(float(rows["drop@3"].mean()), rel=1e-12)
    e = explainer(IMAGES)
    rows = own(explainer, IMAGES, e.heatmap, targets=e.target)
    for name, value in metric.compute().items():
        assert float(value) == pytest.approx(float(rows[name].mean()), rel=1e-5), (
            name
        )  # batches round otherwise


def test_reset_and_pickle() -> None:
    metric = pickle.loads(pickle.dumps(pointed(None, 12)))
    assert metric.compute()["hit"] == pointed(None, 12).compute()["hit"]
    metric.reset()
    metric.update(None, None, MAPS[:3], masks=MASKS[:3])
    assert metric.compute()["hit"] == pointed(None, 3).compute()["hit"]


def test_a_collection() -> None:
    """Two that agree on the first batch stay two: torchmetrics merges what looks equal once."""
    near, at = PointingGame(tolerance=4), PointingGame(tolerance=0)
    found = MetricCollection({"near": MapMetric(near), "at": MapMetric(at), "few": MapMetric(Sparseness())})
    hits = {one: one(None, None, MAPS, masks=MASKS)["hit"] for one in (near, at)}
    agreed = (hits[near] == hits[at]).nonzero()[:2, 0]
    assert len(agreed) == 2
    order = torch.cat([agreed, torch.tensor([i for i in range(12) if i not in agreed.tolist()])])
    for part in (order[:2], order[2:]):
        found.update(None, None, MAPS[part], masks=MASKS[part])
    values = found.compute()
    assert float(values["near_hit"]) == pytest.approx(float(hits[near].nanmean()))
    assert float(values["at_hit"]) == pytest.approx(float(hits[at].nanmean()))
    assert values["near_hit"] != values["at_hit"]
    assert float(values["few_gini"]) == pytest.approx(float(Sparseness()(None, None, MAPS)["gini"].mean()))


@pytest.mark.parametrize("targets", [None, torch.tensor([0, 3])])
def test_classes_that_are_none(targets) -> None:
    with pytest.raises(ValueError, match="expected the class of each image, from 0 to 2"):
        MapMetric(POINTING, 3).update(None, None, MAPS[:2], targets, masks=MASKS[:2])


def one_of_two(rank: int, folder: str) -> None:
    """A process with its part of the images; the number that both come to goes to a file."""
    os.environ.update(OMP_NUM_THREADS="1")
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    metric = MapMetric(POINTING, 3)
    part = list(batches(5, 7))[rank]
    metric.update(None, None, MAPS[part], CLASSES[part], masks=MASKS[part])
    Path(folder, f"{rank}").write_text(repr(float(metric.compute()["hit"])))
    torch.distributed.destroy_process_group()


def test_two_processes_come_to_the_number_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=one_of_two, args=(rank, str(tmp_path))) for rank in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # from Python 3.12 on: of forks beside threads
        for worker in workers:
            worker.start()
    for worker in workers:
        worker.join(60)
        worker.kill()
    expected = float(pointed(3, 12).compute()["hit"])
    assert [float((tmp_path / f"{rank}").read_text()) for rank in range(2)] == [pytest.approx(expected)] * 2
