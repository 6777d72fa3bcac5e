"""The real photos beside the repository."""

from clarp.data import boxed_photos, composites, image_table, mosaics


def test_photos(shared):
    dataset = image_table(shared / "images" / "imagenet")
    assert len(dataset) == 500
    assert not dataset.problems
    assert [sample.labels for sample in dataset] == [((index,),) for index in range(0, 1000, 2)]
    assert dataset[0].image().size == dataset[0].size[::-1]


def test_mosaics_use_every_photo_once(shared):
    made = mosaics(image_table(shared / "images" / "imagenet"), 2, cell=32)
    assert len({file for sample in made for file in sample.picture.files()}) == 500
    assert made[7].image().size == (64, 64)


def test_cutouts(shared):
    cutouts = image_table(shared / "images" / "cutouts", class_column="classes")
    assert len(cutouts) == 65
    assert cutouts[0].labels == ((32, 30, 31),)
    made = composites(cutouts, 4, side=128)
    for sample in made:
        for thing in sample.objects:
            assert int(thing.mask((128, 128)).sum()) > 100


def test_pairs(shared):
    pairs = boxed_photos(shared / "images" / "pairs")
    assert [sample.id for sample in pairs] == [
        "dog_cat_a.jpg",
        "zebra_elephant_a.jpg",
        "zebra_elephant_b.jpg",
    ]
    assert all(len(sample.objects) == 2 for sample in pairs)
    assert not pairs.problems
