from itertools import pairwise

import pytest
import torch

from clarp.evaluation import AOPC, Deletion, GridPointingGame, Insertion, ParameterRandomisation
from clarp.evaluation.metrics.base import region_ranks
from clarp.evaluation.metrics.perturbation import filling


def probability(model, image, target):
    return float(model(image[None]).softmax(1)[0, target].detach())


def plain_curve(model, start, end, *, heatmap, target, steps):
    """Replace pixels of ``start`` by those of ``end`` from the most relevant on, one by one."""
    order = sorted((-float(heatmap[r, c]), r, c) for r in range(24) for c in range(30))
    image, curve, done = start.clone(), [probability(model, start, target)], 0
    for step in range(1, steps + 1):
        upto = round(step * len(order) / steps)
        for _, r, c in order[done:upto]:
            image[:, r, c] = end[:, r, c]
        done = upto
        curve.append(probability(model, image, target))
    return curve


@pytest.mark.parametrize(
    "metric", [Deletion(7), Deletion(4, "blur"), Insertion(7), Insertion(4, "mean"), Deletion(720)]
)
def test_curve_equals_its_plain_twin(batch, metric):
    if metric.steps > 100:
        batch.images, batch.maps, batch.targets = batch.images[:1], batch.maps[:1], batch.targets[:1]
    batch.maps[:, 3] = 0.5  # ties
    mean_image = batch.images.mean(0) if metric.fill == "mean" else None
    rows = metric(batch.model, batch.images, batch.maps, targets=batch.targets, mean_image=mean_image)
    fill = filling(batch.images, metric.fill, mean_image)
    for i in range(len(batch.images)):
        start, end = batch.images[i], fill[i]
        if isinstance(metric, Insertion):
            start, end = end, start
        expected = plain_curve(
            batch.model, start, end, heatmap=batch.maps[i], target=int(batch.targets[i]), steps=metric.steps
        )
        got = [float(value[i]) for name, value in rows.items() if name.startswith("p@")]
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=0)
        area = sum((a + b) / 2 / metric.steps for a, b in pairwise(expected))
        assert float(rows["auc"][i]) == pytest.approx(area, abs=1e-12)


def test_curves_go_from_one_end_to_the_other(batch):
    whole = torch.tensor(
        [probability(batch.model, batch.images[i], batch.targets[i]) for i in range(5)], dtype=torch.float64
    )
    deletion = Deletion(3)(batch.model, batch.images, batch.maps, targets=batch.targets)
    insertion = Insertion(3)(batch.model, batch.images, batch.maps, targets=batch.targets)
    torch.testing.assert_close(deletion["p@0.0000"], whole)
    torch.testing.assert_close(insertion["p@1.0000"], whole)


def test_a_map_that_ranks_nothing_goes_row_by_row(batch):
    downwards = -torch.arange(720.0).view(1, 24, 30).expand(5, -1, -1)
    for metric in (Deletion(5), Insertion(5), AOPC(5, 6)):
        rows = metric(
            batch.model, batch.images, torch.full_like(batch.maps, torch.nan), targets=batch.targets
        )
        expected = metric(batch.model, batch.images, downwards, targets=batch.targets)
        headline = next(iter(metric.columns))
        torch.testing.assert_close(rows[headline], expected[headline])
        assert rows["degenerate"].tolist() == [1.0] * 5


@pytest.mark.parametrize(("size", "steps"), [(9, 12), (7, 3), (30, 1), (1, 5)])
def test_aopc_equals_its_plain_twin(batch, size, steps):
    mean_image = batch.images.mean(0)
    rows = AOPC(size, steps, chunk=5)(
        batch.model, batch.images, batch.maps, targets=batch.targets, mean_image=mean_image
    )
    for i in range(5):
        regions = []
        for top in range(0, 24, size):
            for left in range(0, 30, size):
                inside = [
                    (r, c) for r in range(top, min(top + size, 24)) for c in range(left, min(left + size, 30))
                ]
                mean = sum(float(batch.maps[i, r, c]) for r, c in inside) / len(inside)
                regions.append((-mean, len(regions), inside))
        image, target = batch.images[i].clone(), int(batch.targets[i])
        whole, drops = probability(batch.model, image, target), [0.0]
        for _, _, inside in sorted(regions)[:steps]:
            for r, c in inside:
                image[:, r, c] = mean_image[:, r, c]
            drops.append(whole - probability(batch.model, image, target))
        assert float(rows["aopc"][i]) == pytest.approx(sum(drops) / (steps + 1), abs=1e-10)
        got = [float(rows[f"drop@{k}"][i]) for k in range(1, steps + 1)]
        torch.testing.assert_close(got, drops[1:], atol=1e-10, rtol=0)


@pytest.mark.parametrize("value", [-1.0, -0.1, 0.1, 0.3, 1.0])
def test_regions_of_a_constant_map_go_row_by_row_also_where_the_border_cuts_them(batch, value):
    ranks = region_ranks(torch.full((1, 24, 30), value, dtype=torch.float64), 9)
    rows, columns = torch.arange(24)[:, None] // 9, torch.arange(30) // 9
    assert torch.equal(ranks[0], rows * 4 + columns)


def test_a_small_region_that_is_dense_comes_first():
    heatmap = torch.zeros(1, 24, 30, dtype=torch.float64)
    heatmap[0, :9, :9] = 1.0
    heatmap[0, 18:, 27:] = 1.5  # 18 pixels: by the sum it would come second
    assert region_ranks(heatmap, 9)[0, 23, 29] == 0


def test_more_steps_than_regions(batch):
    with pytest.raises(ValueError, match="have 12 regions of 9 x 9, but steps=13"):
        AOPC(9, 13)(batch.model, batch.images, batch.maps, targets=batch.targets)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Deletion(0),
        lambda: Insertion(1001),
        lambda: AOPC(steps=0),
        lambda: AOPC(size=0),
        lambda: AOPC(size=2.5),
        lambda: AOPC(steps=2.5),
        lambda: AOPC(chunk=0),
        lambda: Deletion(steps=1.5),
        lambda: Deletion(chunk=-1),
        lambda: Insertion(chunk=1.5),
        lambda: ParameterRandomisation(points=1.5),
        lambda: GridPointingGame(n=2.0),
        lambda: Deletion(fill="blurr"),
        lambda: Insertion(fill="black"),
        lambda: AOPC(fill="blurr"),
    ],
)
def test_bad_options(make):
    with pytest.raises(ValueError, match="give"):
        make()
