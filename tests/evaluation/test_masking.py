import math

import pytest
import torch

from clarp.evaluation import PatchMasking, probabilities
from clarp.evaluation.metrics.base import Heatmaps
from clarp.evaluation.metrics.perturbation import filling


def probability(model, image, target):
    return float(model(image[None]).softmax(1)[0, target].detach())


def plain_place(heatmap, size, centre):
    """(top, left, height, width) of the patch, found one place at a time."""
    height, width = len(heatmap), len(heatmap[0])
    if centre == "pixel":
        tall, wide, shift = 1, 1, size // 2
    else:
        tall, wide, shift = min(size, height), min(size, width), 0
    best, at = -float("inf"), (0, 0)
    for r in range(height - tall + 1):
        for c in range(width - wide + 1):
            total = sum(sum(line[c : c + wide]) for line in heatmap[r : r + tall])
            if total > best:
                best, at = total, (r, c)
    return (at[0] - shift, at[1] - shift, size, size) if centre == "pixel" else (*at, tall, wide)


def plain(batch, size, fill, centre):
    """Maximal patch masking with one image, one pixel, one forward pass at a time."""
    drops = []
    for i in range(5):
        top, left, tall, wide = plain_place(batch.maps[i].tolist(), size, centre)
        masked = batch.images[i].clone()
        for r in range(max(top, 0), min(top + tall, 24)):
            for c in range(max(left, 0), min(left + wide, 30)):
                masked[:, r, c] = fill[i, :, r, c]
        target = int(batch.targets[i])
        drops.append(
            probability(batch.model, batch.images[i], target) - probability(batch.model, masked, target)
        )
    return torch.tensor(drops, dtype=torch.float64)


@pytest.mark.parametrize("centre", ["pixel", "window"])
@pytest.mark.parametrize("fill", ["mean", "colour", "blur"])
def test_equals_its_plain_twin(batch, centre, fill):
    sizes = (1, 2, 5, 9, 25)  # an even one, and one that is wider than the image is high
    mean_image = batch.images.mean(0) if fill == "mean" else None
    rows = PatchMasking(sizes, fill, centre, chunk=6)(
        batch.model, batch.images, batch.maps, targets=batch.targets, mean_image=mean_image
    )
    for size in sizes:
        expected = plain(batch, size, filling(batch.images, fill, mean_image), centre)
        torch.testing.assert_close(rows[f"drop@{size}"], expected, atol=1e-10, rtol=0)
        assert expected.abs().min() > 1e-9
        odds = [
            math.log(y / (1 - y)) - math.log((y - drop) / (1 - (y - drop)))
            for y, drop in zip(rows["before"].tolist(), expected.tolist(), strict=True)
        ]
        assert rows[f"odds@{size}"].tolist() == pytest.approx(odds, abs=1e-8)
    torch.testing.assert_close(rows["before"], probabilities(batch.model, batch.images, batch.targets))


def count_covered(metric, heatmap):
    """How many pixels the metric covers: a model whose first probability tells the sum of the image."""
    seen = []

    def model(images):
        seen.append(images.flatten(1).sum(1))
        return torch.zeros(len(images), 2)

    metric(model, torch.ones(1, 1, *heatmap.shape), heatmap[None], targets=torch.tensor([0]))
    return int(seen[0] - seen[1])


def test_the_patch_is_cut_off_at_the_border_never_left_out():
    heatmap = torch.zeros(20, 20)
    heatmap[0, 0] = 1.0
    assert count_covered(PatchMasking(9), heatmap) == 25
    assert count_covered(PatchMasking(9, centre="window"), heatmap) == 81
    heatmap[10, 10] = 2.0
    assert count_covered(PatchMasking(9), heatmap) == 81


def test_a_tie_goes_to_the_first_row_by_row(batch):
    maps = torch.zeros_like(batch.maps)
    maps[:, 7, 20] = maps[:, 12, 3] = 1.0
    first = torch.zeros_like(batch.maps)
    first[:, 7, 20] = 1.0
    for centre in ("pixel", "window"):
        metric = PatchMasking(5, centre=centre)
        rows = metric(batch.model, batch.images, maps, targets=batch.targets)
        alone = metric(batch.model, batch.images, first, targets=batch.targets)
        torch.testing.assert_close(rows["drop@5"], alone["drop@5"])


def test_the_first_of_equal_windows_row_by_row():
    heatmap = torch.zeros(1, 12, 12)
    heatmap[0, 6, 6] = 7.0
    boxes = PatchMasking(3, centre="window")._patches(Heatmaps.of(heatmap), 3)
    assert boxes.tolist() == [[4, 4, 7, 7]]


@pytest.mark.parametrize("value", [0.0, 3.0, torch.nan, torch.inf])
@pytest.mark.parametrize("centre", ["pixel", "window"])
def test_a_map_that_names_no_place_drops_nothing(batch, value, centre):
    maps = torch.full_like(batch.maps, value)
    rows = PatchMasking((3, 9), centre=centre)(batch.model, batch.images, maps, targets=batch.targets)
    assert rows["drop@3"].tolist() == [0.0] * 5
    assert rows["drop@9"].tolist() == [0.0] * 5
    assert rows["odds@9"].tolist() == [0.0] * 5
    assert rows["degenerate"].tolist() == [1.0] * 5


def test_sure_predictions_have_finite_log_odds():
    """A probability that rounds to 1, and falls to one that rounds to 0, moves by the two limits."""

    def model(x):
        return torch.stack((2000 * x[:, 0, 0, 0] - 1000, torch.zeros(len(x))), dim=1)

    image = torch.zeros(1, 3, 4, 4)
    image[0, 0, 0, 0] = 1.0
    rows = PatchMasking(1)(model, image, image[:, 0], targets=torch.tensor([0]))
    assert float(rows["drop@1"]) == 1.0
    assert float(rows["odds@1"]) == pytest.approx(2 * math.log(1e7), rel=1e-6)


def test_targets_by_default_are_the_predictions(batch):
    predictions = batch.model(batch.images).argmax(1)
    metric = PatchMasking(5)
    rows = metric(batch.model, batch.images, batch.maps)
    expected = metric(batch.model, batch.images, batch.maps, targets=predictions)
    torch.testing.assert_close(rows["drop@5"], expected["drop@5"])


def test_known_probabilities_spare_a_forward_pass(batch):
    calls = []

    def model(images):
        calls.append(len(images))
        return batch.model(images)

    before = probabilities(batch.model, batch.images, batch.targets)
    rows = PatchMasking(5)(model, batch.images, batch.maps, targets=batch.targets, before=before)
    assert calls == [5]
    torch.testing.assert_close(rows["before"], before)
    expected = PatchMasking(5)(batch.model, batch.images, batch.maps, targets=batch.targets)
    torch.testing.assert_close(rows["drop@5"], expected["drop@5"])


def test_maps_of_another_size(batch):
    with pytest.raises(ValueError, match="in the size of the model's input"):
        PatchMasking()(batch.model, batch.images, torch.zeros(5, 7, 7), targets=batch.targets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size=0: give a whole number of at least 1"),
        ({"size": (9, 5.5)}, "size=5.5: give a whole number"),
        ({"size": 5.5}, "size=5.5: give a whole number"),
        ({"chunk": 0}, "chunk=0: give a whole number of at least 1"),
        ({"chunk": -1}, "chunk=-1"),
        ({"chunk": 2.0}, "chunk=2.0"),
        ({"chunk": True}, "chunk=True"),
        ({"size": ()}, "size"),
        ({"size": (9, 9)}, "different"),
        ({"fill": "grey"}, "fill='grey': give one of the fills mean, colour, blur"),
        ({"centre": "middle"}, "centres"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        PatchMasking(**options)
