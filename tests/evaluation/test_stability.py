import math

import pytest
import torch

from clarp.evaluation import MaxSensitivity


def squares(images, targets=None):
    return images.square()


def test_equals_its_plain_twin(batch):
    maps = squares(batch.images)
    rows = MaxSensitivity(radius=0.3, samples=4, seed=5)(
        None, batch.images, maps, targets=batch.targets, explain=squares
    )
    generator = torch.Generator().manual_seed(5)
    noises = [torch.rand(3, 24, 30, generator=generator).double() * 2 - 1 for _ in range(4)]
    for i in range(5):
        heat = maps[i].sum(0)
        changes = []
        for noise in noises:
            near = (batch.images[i] + 0.3 * noise).square().sum(0)
            length = math.sqrt(sum(float(value) ** 2 for value in (near - heat).flatten()))
            changes.append(length / math.sqrt(sum(float(value) ** 2 for value in heat.flatten())))
        assert rows["sensitivity"][i].item() == pytest.approx(max(changes), rel=1e-9)


def test_the_greatest_and_not_the_last(batch):
    """More samples can only raise it, for the first are the same."""
    found = [
        MaxSensitivity(samples=samples)(None, batch.images, squares(batch.images), explain=squares)[
            "sensitivity"
        ]
        for samples in (1, 5, 20)
    ]
    assert (found[0] <= found[1]).all()
    assert (found[1] <= found[2]).all()
    assert (found[0] < found[2]).any()


def test_the_noise_stays_in_its_radius(batch):
    seen = []

    def explain(images, targets):
        seen.append((images - batch.images).abs())
        return images.sum(1)

    MaxSensitivity(radius=0.05, samples=6)(None, batch.images, batch.maps, explain=explain)
    assert len(seen) == 6
    assert 0.049 < max(float(one.max()) for one in seen) <= 0.05 + 1e-12


def test_a_map_that_does_not_look_is_not_moved(batch):
    rows = MaxSensitivity()(None, batch.images, batch.maps, explain=lambda images, targets: batch.maps)
    assert rows["sensitivity"].tolist() == [0.0] * 5


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf])
def test_without_a_map_the_question_does_not_arise(batch, value):
    broken = torch.full_like(batch.maps, value)
    before = MaxSensitivity()(None, batch.images, broken, explain=squares)
    after = MaxSensitivity()(None, batch.images, batch.maps, explain=lambda images, targets: broken)
    assert all(math.isnan(one) for one in before["sensitivity"])
    assert all(math.isnan(one) for one in after["sensitivity"])


@pytest.mark.parametrize(
    "options", [{"radius": 0}, {"radius": -1.0}, {"radius": math.nan}, {"radius": math.inf}, {"samples": 0}]
)
def test_bad_options(options):
    with pytest.raises(ValueError, match="give"):
        MaxSensitivity(**options)
