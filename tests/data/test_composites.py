import numpy as np
import pytest
import torch
from PIL import Image

from clarp.data import (
    IMAGENET_GREY,
    AnnotationError,
    Dataset,
    Photo,
    Sample,
    UnreadableImageError,
    composites,
)

COLOURS = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]


@pytest.fixture
def cutouts(tmp_path):
    """Discs and rectangles of one colour each, in a transparent frame."""
    samples = []
    for number, colour in enumerate(COLOURS):
        image = Image.new("RGBA", (60, 40 + 30 * number), (9, 9, 9, 0))
        image.paste((*colour, 255), (5 + number, 7, 50, 35 + 10 * number))
        image.save(tmp_path / f"{number}.png")
        samples.append(Sample(f"{number}.png", Photo(f"{number}.png", tmp_path), ((number, 10 + number),)))
    return Dataset("cutouts", tuple(samples))


def test_masks_are_where_the_objects_are(cutouts):
    known = np.array([*COLOURS, IMAGENET_GREY])
    for sample in composites(cutouts, 12, side=96):
        image = np.array(sample.image()).astype(int)
        assert image.shape == (96, 96, 3)
        nearest = np.abs(image[:, :, None] - known).sum(-1).argmin(-1)
        seen = np.zeros((96, 96), dtype=bool)
        for thing in sample.objects:
            mask = thing.mask((96, 96)).numpy()
            wrong = mask != (nearest == thing.label[0])
            assert wrong.sum() <= 0.06 * mask.sum()  # soft edges: the next test looks at them
            assert not (seen & mask).any()
            seen |= mask
        assert (image[~seen] == IMAGENET_GREY).all(-1).mean() > 0.95


def test_masks_of_soft_edges(tmp_path, cutouts):
    """A pixel belongs to the object where it hides at least half of the background."""
    alpha = np.tile(np.linspace(0, 255, 200).astype(np.uint8), (50, 1))
    pixels = np.full((50, 200, 4), 255, dtype=np.uint8)
    pixels[..., 3] = alpha
    Image.fromarray(pixels).save(tmp_path / "0.png")
    for sample in composites(cutouts, 10, side=100, background=(0, 0, 0)):
        for thing in (thing for thing in sample.objects if thing.name == "0.png"):
            mask = thing.mask((100, 100)).numpy()
            left, top, right, bottom = (int(edge) for edge in thing.box)
            inside = np.array(sample.image())[top:bottom, left:right, 0]
            assert np.array_equal(mask[top:bottom, left:right], inside >= 128)


def test_boxes_are_tight_and_inside(cutouts):
    for sample in composites(cutouts, 12, side=97):
        for thing in sample.objects:
            rows, columns = thing.mask((97, 97)).nonzero().unbind(1)
            left, top, right, bottom = thing.box
            assert 0 <= left < right <= 97
            assert 0 <= top < bottom <= 97
            assert columns.min() - left <= 1
            assert right - 1 - columns.max() <= 1
            assert rows.min() - top <= 1
            assert bottom - 1 - rows.max() <= 1


def test_two_of_different_classes_in_different_halves(cutouts):
    beside = []
    for sample in composites(cutouts, 40, side=96):
        first, second = sample.objects
        assert set(first.label).isdisjoint(second.label)
        assert sample.labels == (first.label, second.label)
        across = first.box[2] <= 48 <= second.box[0]
        assert across or first.box[3] <= 48 <= second.box[1]
        beside.append(across)
    assert set(beside) == {True, False}


def test_sizes_are_between_three_quarters_and_all_of_the_half(cutouts):
    for sample in composites(cutouts, 30, side=100):
        for thing in sample.objects:
            left, top, right, bottom = thing.box
            share = (
                max((right - left) / 50, (bottom - top) / 100),
                max((right - left) / 100, (bottom - top) / 50),
            )
            assert any(0.74 <= value <= 1.01 for value in share)


def test_the_seed_decides(cutouts):
    assert composites(cutouts, 3, seed=1) == composites(cutouts, 3, seed=1)
    assert composites(cutouts, 3, seed=1) != composites(cutouts, 3, seed=2)
    assert composites(cutouts, 2).samples == composites(cutouts, 5).samples[:2]
    assert composites(cutouts, 2)[1].id == "0-00001"
    assert composites(cutouts, 1).as_is


def test_photos_behind(cutouts, tmp_path, paint):
    behind = Dataset(
        "behind",
        tuple(
            Sample(n, Photo(n, paint(tmp_path / n, 50, 90, seed=i).parent), ())
            for i, n in enumerate(("x.png", "y.png"))
        ),
    )
    made = composites(cutouts, 12, side=64, background=behind)
    used = {sample.picture.background.file for sample in made}
    assert used == {"x.png", "y.png"}
    sample = made[0]
    outside = ~(sample.objects[0].mask((64, 64)) | sample.objects[1].mask((64, 64)))
    assert torch.tensor(np.array(sample.image()))[outside].float().std() > 20
    assert len(sample.picture.files()) == 3


def test_what_is_no_cutout_is_refused(cutouts, tmp_path):
    Image.new("RGB", (5, 5)).save(tmp_path / "0.png")
    Image.new("RGBA", (5, 5), (0, 0, 0, 0)).save(tmp_path / "2.png")
    with pytest.raises(AnnotationError) as caught:
        composites(cutouts, 1)
    assert [c.file for c in caught.value.contradictions] == ["0.png", "2.png"]


def test_one_class_is_too_few(cutouts):
    with pytest.raises(ValueError, match="no two cut-outs of different classes"):
        composites(cutouts.select(lambda sample: sample.id == "0.png"), 1)


def test_damaged_cutouts(cutouts, tmp_path):
    (tmp_path / "1.png").write_text("nothing")
    with pytest.raises(UnreadableImageError, match=r"1\.png: damaged"):
        composites(cutouts, 1)
    assert len(composites(cutouts.verified(), 1)) == 1
    assert [problem.file for problem in composites(cutouts.verified(), 1).problems] == ["1.png"]
