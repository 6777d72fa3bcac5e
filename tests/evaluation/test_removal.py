import numpy as np
import pytest
import torch

from clarp.evaluation import ROAD, SRG
from clarp.evaluation.metrics.perturbation import filling
from evaluation.plain import plain_inpainted


def logits(model, image):
    return model(image[None])[0].detach()


def ordered(parts):
    """Names of parts by their values, the greatest first; of equal ones the first."""
    return [name for _, name in sorted((-value, name) for name, value in parts)]


def test_road_equals_its_plain_twin(batch):
    batch.maps[:, 3] = 0.5  # ties
    shares = (0.3, 0.85)
    rows = ROAD(shares, noise=0.2, seed=3, chunk=4)(
        batch.model, batch.images, batch.maps, targets=batch.targets
    )
    noise = torch.randn(3, 24, 30, generator=torch.Generator().manual_seed(3))
    for i in range(5):
        target, gains = int(batch.targets[i]), []
        for share in shares:
            seen = {}
            for kind, sign in (("most", 1), ("least", -1)):
                order = ordered(
                    ((r, c), sign * float(batch.maps[i, r, c])) for r in range(24) for c in range(30)
                )
                covered = torch.zeros(24, 30, dtype=torch.bool)
                for r, c in order[: round(share * 720)]:
                    covered[r, c] = True
                image = plain_inpainted(batch.images[i], covered)
                z = logits(batch.model, torch.where(covered, image + 0.2 * noise, image))
                seen[kind] = float(z.softmax(0)[target])
                assert rows[f"{kind}@{share:g}"][i].item() == pytest.approx(seen[kind], abs=1e-6)
                assert rows[f"kept_{kind}@{share:g}"][i].item() == float(int(z.argmax()) == target)
            gains.append(seen["least"] - seen["most"])
        assert rows["road"][i].item() == pytest.approx(np.mean(gains), abs=1e-6)


@pytest.mark.parametrize(("size", "steps", "fill"), [(9, 12, "colour"), (7, 3, "mean"), (10, 4, "inpaint")])
def test_srg_equals_its_plain_twin(batch, size, steps, fill):
    batch.maps[1] = batch.maps[1].round()  # ties
    mean_image = batch.images.mean(0) if fill == "mean" else None
    rows = SRG(size, steps, fill, chunk=5)(
        batch.model, batch.images, batch.maps, targets=batch.targets, mean_image=mean_image
    )
    corners = [(top, left) for top in range(0, 24, size) for left in range(0, 30, size)]
    for i in range(5):
        target, curves = int(batch.targets[i]), {}
        for kind, sign in (("most", 1), ("least", -1)):
            means = [
                ((top, left), sign * float(batch.maps[i, top : top + size, left : left + size].mean()))
                for top, left in corners
            ]
            order, curves[kind] = ordered(means), []
            for step in range(steps + 1):
                covered = torch.zeros(24, 30, dtype=torch.bool)
                for top, left in order[: round(step * len(corners) / steps)]:
                    covered[top : top + size, left : left + size] = True
                if fill != "inpaint":
                    other = filling(batch.images[i : i + 1], fill, mean_image)[0]
                    image = torch.where(covered, other, batch.images[i])
                elif covered.all():
                    image = torch.zeros_like(batch.images[i])
                else:
                    image = plain_inpainted(batch.images[i], covered)
                z = logits(batch.model, image)
                curves[kind].append((float(z[target]), float(z.softmax(0)[target])))
        for name, place in (("srg", 0), ("srg_probability", 1)):
            most, least = ([point[place] for point in curves[kind]] for kind in ("most", "least"))
            area = np.trapezoid(np.array(least) - np.array(most), dx=1 / steps)
            assert rows[name][i].item() == pytest.approx(area, abs=1e-6)
        for kind in ("most", "least"):
            got = [float(value[i]) for name, value in rows.items() if name.startswith(f"{kind}@")]
            assert got == pytest.approx([point[0] for point in curves[kind]], abs=1e-6)


@pytest.mark.parametrize("metric", [ROAD((0.3, 0.6)), SRG(5, 6)], ids=lambda metric: metric.name)
def test_a_map_that_orders_nothing_gains_nothing(batch, metric):
    rows = metric(batch.model, batch.images, torch.full_like(batch.maps, 0.3), targets=batch.targets)
    assert rows[metric.name].tolist() == [0.0] * 5


@pytest.mark.parametrize("metric", [ROAD((0.3, 0.6), noise=0.0), SRG(5, 6)], ids=lambda metric: metric.name)
def test_the_negative_of_a_map_loses_what_the_map_gains(batch, metric):
    rows = metric(batch.model, batch.images, batch.maps, targets=batch.targets)
    other = metric(batch.model, batch.images, -batch.maps, targets=batch.targets)
    torch.testing.assert_close(rows[metric.name], -other[metric.name], atol=1e-7, rtol=0)
    assert rows[metric.name].abs().min() > 1e-6


def test_the_part_that_counts_is_found():
    """A model that lives from the upper left patch alone: removed first or last, that is all the gain."""

    def model(x):
        z = x[:, 0, :8, :8].mean((1, 2))
        return torch.stack((z, torch.zeros(len(x))), dim=1)

    heatmap = torch.zeros(1, 32, 32)
    heatmap[0, :8, :8] = 1.0
    rows = SRG(8, 16)(model, torch.ones(1, 1, 32, 32), heatmap, targets=torch.tensor([0]))
    assert rows["srg"].item() == pytest.approx(15 / 16)


def test_the_noise_is_that_of_the_seed(batch):
    asked = [
        ROAD(0.5, noise=0.5, seed=seed)(batch.model, batch.images, batch.maps, targets=batch.targets)["road"]
        for seed in (0, 0, 1)
    ]
    assert torch.equal(asked[0], asked[1])
    assert not torch.equal(asked[0], asked[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ROAD(()), "different shares"),
        (lambda: ROAD((0.5, 0.5)), "different shares"),
        (lambda: ROAD((0.5, 1.0)), "above 0, below 1"),
        (lambda: ROAD(0.0), "above 0, below 1"),
        (lambda: ROAD(noise=-1), "noise=-1"),
        (lambda: ROAD(chunk=0), "chunk=0"),
        (lambda: SRG(size=0), "size=0"),
        (lambda: SRG(steps=1), "between 2 and 1000"),
        (lambda: SRG(steps=2.5), "steps=2.5"),
        (lambda: SRG(fill="grey"), "fills mean, colour, blur, inpaint"),
    ],
)
def test_bad_options(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_fewer_patches_than_steps(batch):
    with pytest.raises(ValueError, match="24 x 30 pixels have 4 patches of 16 x 16, but steps=14"):
        SRG()(batch.model, batch.images, batch.maps, targets=batch.targets)
