import numpy as np
import pytest
from PIL import Image

from clarp.data import Dataset, Photo, Sample, mosaics
from clarp.data.draws import below, draw
from clarp.data.mosaics import _deal
from clarp.evaluation import GridPointingGame


@pytest.fixture
def photos(tmp_path, paint):
    samples = []
    for number in range(11):
        paint(tmp_path / f"{number}.png", 40 + number, 50, seed=number)
        samples.append(
            Sample(
                f"{number}.png",
                Photo(f"{number}.png", tmp_path),
                ((number % 6, 100),) if number == 9 else ((number % 6,),),
            )
        )
    return Dataset("photos", tuple(samples), tuple("abcdef"))


def test_each_photo_once_before_any_comes_twice(photos):
    made = mosaics(photos, 2, cell=8)
    used = [file.file for sample in made for file in sample.picture.files()]
    assert len(made) == 2
    assert len(set(used)) == len(used) == 8


def test_more_than_one_dealing(photos):
    made = mosaics(photos, 2, count=9, cell=8)
    assert len(made) == 9
    assert [sample.id for sample in made][:2] == ["0-00000", "0-00001"]
    assert len({sample.picture for sample in made}) == 9


def test_classes_in_a_mosaic_are_different(photos):
    for sample in mosaics(photos, 2, count=20, cell=8):
        ids = [index for label in sample.labels for index in label]
        assert len(set(ids)) == len(ids)
        assert tuple(thing.label for thing in sample.objects) == sample.labels


def test_the_seed_decides(photos):
    assert mosaics(photos, 2, cell=8, seed=3) == mosaics(photos, 2, cell=8, seed=3)
    assert mosaics(photos, 2, cell=8, seed=3) != mosaics(photos, 2, cell=8, seed=4)
    assert mosaics(photos, 2, count=1, cell=8).samples == mosaics(photos, 2, count=5, cell=8).samples[:1]


def test_cells_lie_where_the_objects_say(photos):
    made = mosaics(photos, 2, cell=16)[0]
    image = np.array(made.image())
    assert image.shape == (32, 32, 3)
    assert made.size == (32, 32)
    for number, thing in enumerate(made.objects):
        left, top, right, bottom = (int(edge) for edge in thing.box)
        alone = made.picture.__class__((made.picture.photos[number],), 1, 16).open()
        assert np.array_equal(image[top:bottom, left:right], np.array(alone))
        heatmap = made.truth(thing.label).mask.double()[None]
        assert GridPointingGame(2)(None, None, heatmap, cells=[number])["energy"].item() == 1.0


def test_a_cell_is_the_middle_square_scaled(tmp_path, photos):
    wide = np.zeros((20, 60, 3), dtype=np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(tmp_path / "0.png")
    made = mosaics(photos, 2, count=30, cell=10)
    sample = next(sample for sample in made if any(thing.name == "0.png" for thing in sample.objects))
    number = [thing.name for thing in sample.objects].index("0.png")
    left, top, right, bottom = (int(edge) for edge in sample.objects[number].box)
    assert (np.array(sample.image())[top:bottom, left + 1 : right - 1] == 200).all()  # its border is smoothed


def test_pictures_are_used_as_they_are(photos):
    assert mosaics(photos, 2, cell=8).as_is


def test_too_few_classes(photos):
    with pytest.raises(ValueError, match="7 classes can't fill 3 x 3 cells"):
        mosaics(photos, 3)


def test_samples_with_several_labels(photos):
    several = Dataset("x", (Sample("a", photos[0].picture, ((1,), (2,))),))
    with pytest.raises(ValueError, match="a has 2 labels"):
        mosaics(several, 1)


@pytest.mark.parametrize("count", [None, 1])
def test_labels_that_all_overlap(tmp_path, count):
    """Four different labels, no two of which can be in one mosaic: another dealing changes nothing."""
    samples = tuple(Sample(str(n), Photo(f"{n}.png", tmp_path), ((0, n + 1),)) for n in range(4))
    with pytest.raises(ValueError, match="4 classes can't fill 2 x 2 cells with different ones"):
        mosaics(Dataset("x", samples), 2, count=count)


def looked_through(photos, cells, seed):
    """The dealing as it is described: the first that are waiting and fit."""
    waiting = sorted(photos, key=lambda sample: draw(*seed, sample.id))
    while True:
        chosen = []
        for sample in waiting:
            if len(chosen) < cells and all(set(sample.labels[0]).isdisjoint(c.labels[0]) for c in chosen):
                chosen.append(sample)
        if len(chosen) < cells:
            return
        yield chosen
        waiting = [sample for sample in waiting if sample not in chosen]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cells", [1, 4, 9])
def test_dealing_by_label_deals_the_same(tmp_path, seed, cells):
    def label(n):
        first = below(25, seed, n, "first")
        return (first, (first + 1) % 25) if n % 3 == 0 else (first,)

    samples = tuple(Sample(str(n), Photo("a.png", tmp_path), (label(n),)) for n in range(60))
    photos = Dataset("x", samples)
    expected = list(looked_through(photos, cells, (seed, 0)))
    assert list(_deal(photos, cells, (seed, 0))) == expected
    assert expected
