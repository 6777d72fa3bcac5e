import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from clarp.data import (
    AnnotationError,
    Contradiction,
    Dataset,
    Object,
    Photo,
    Problem,
    Sample,
    UnreadableImageError,
)
from clarp.data.draws import below, draw
from clarp.data.sample import checked_box, unique


@pytest.fixture
def photo(tmp_path, paint):
    paint(tmp_path / "sub" / "a.png", 20, 30)
    return Photo("sub/a.png", tmp_path)


class TestPhoto:
    def test_size_and_pixels(self, photo):
        assert photo.size() == (20, 30)
        with Image.open(photo.path) as image:
            assert np.array_equal(np.array(photo.open()), np.array(image))
        assert photo.files() == (photo,)

    @pytest.mark.parametrize("as_stored", [False, True])
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("ending", ["tif", "jpg"])
    def test_the_size_is_that_of_what_is_opened(self, tmp_path, ending, orientation, as_stored):
        """Pillow turns a TIFF by itself."""
        exif = Image.Exif()
        exif[274] = orientation
        Image.new("RGB", (40, 20)).save(tmp_path / f"a.{ending}", exif=exif)
        photo = Photo(f"a.{ending}", tmp_path, as_stored)
        assert photo.size() == photo.open().size[::-1]

    def test_repr_has_no_folder(self, photo, tmp_path):
        assert str(tmp_path) not in repr(photo)

    @pytest.mark.parametrize("as_stored", [False, True])
    def test_missing(self, tmp_path, as_stored):
        photo = Photo("no.jpg", tmp_path, as_stored)
        for action in (photo.size, photo.open, photo.open_with_alpha):
            with pytest.raises(UnreadableImageError) as caught:
                action()
            assert caught.value.problem == Problem("missing", "no.jpg", "no such file")

    @pytest.mark.parametrize("as_stored", [False, True])
    def test_not_an_image(self, tmp_path, as_stored):
        (tmp_path / "a.jpg").write_text("no image")
        photo = Photo("a.jpg", tmp_path, as_stored)
        for action in (photo.size, photo.open):
            with pytest.raises(UnreadableImageError) as caught:
                action()
            assert caught.value.problem.kind == "damaged"
            assert caught.value.problem.file == "a.jpg"

    @pytest.mark.parametrize("as_stored", [False, True])
    @pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
    def test_cut_off(self, tmp_path, paint, break_file, ending, as_stored):
        break_file(paint(tmp_path / f"a.{ending}", 200, 300))
        photo = Photo(f"a.{ending}", tmp_path, as_stored)
        if as_stored or ending != "png":  # a png's rotation tag may come after its pixels
            assert photo.size() == (200, 300)
        with pytest.raises(UnreadableImageError, match=rf"^a\.{ending}: damaged \(.*\)$"):
            photo.open()

    def test_errors_survive_pickling(self, tmp_path):
        error = UnreadableImageError(Problem("missing", "a.jpg", "no such file"))
        copy = pickle.loads(pickle.dumps(error))
        assert copy.problem == error.problem
        assert str(copy) == str(error)

    def test_rotation_tags(self, tmp_path):
        image = Image.new("RGB", (30, 20))
        image.putpixel((29, 0), (255, 255, 255))
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by a quarter clockwise
        image.save(tmp_path / "a.png", exif=exif)
        upright, stored = Photo("a.png", tmp_path), Photo("a.png", tmp_path, as_stored=True)
        assert upright.size() == (30, 20) == upright.open().size[::-1]
        assert stored.size() == (20, 30) == stored.open().size[::-1]
        assert upright.open().getpixel((19, 29)) == (255, 255, 255)
        assert stored.open().getpixel((29, 0)) == (255, 255, 255)

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
    def test_modes_become_rgb(self, tmp_path, mode):
        name = "a.jpg" if mode == "CMYK" else "a.png"
        Image.new("RGB", (5, 4), (200, 200, 200)).convert(mode).save(tmp_path / name)
        for as_stored in (False, True):
            assert Photo(name, tmp_path, as_stored).open().mode == "RGB"

    def test_sixteen_bits_are_scaled_and_not_cut_off(self, tmp_path):
        Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(tmp_path / "a.png")
        for as_stored in (False, True):
            assert np.asarray(Photo("a.png", tmp_path, as_stored).open())[0, :, 0].tolist() == [0, 128, 255]


def boxed(label, box, *, difficult=False):
    return Object(label, str(label), box, difficult)


@pytest.fixture
def sample(photo):
    objects = (
        boxed((3,), (0, 0, 10, 5)),
        boxed((7,), (0, 0, 30, 20)),
        boxed((3,), (5, 0, 12, 4), difficult=True),
    )
    return Sample("a", photo, ((3,), (7,)), objects)


class TestTruth:
    def test_the_union_of_the_labels_boxes(self, sample):
        expected = torch.zeros(20, 30, dtype=torch.bool)
        expected[:5, :10] = expected[:4, 5:12] = True
        assert torch.equal(sample.truth((3,)).mask, expected)

    def test_difficult_is_small_beside_another_class(self, sample):
        assert sample.truth((3,)).difficult
        assert not sample.truth((7,)).difficult
        alone = replace(sample, objects=sample.objects[::2])
        assert not alone.truth((3,)).difficult

    def test_a_quarter_is_not_small(self, sample):
        for width, difficult in ((30, False), (29, True)):
            objects = (boxed((3,), (0, 0, width, 5)), sample.objects[1])
            assert replace(sample, objects=objects).truth((3,)).difficult == difficult

    def test_skip_only_if_all_are_flagged(self, sample):
        assert not sample.truth((3,)).skip
        flagged = tuple(replace(thing, difficult=True) for thing in sample.objects[::2])
        assert replace(sample, objects=flagged).truth((3,)).skip

    def test_a_label_without_objects(self, sample):
        truth = sample.truth((99,))
        assert not truth.mask.any()
        assert not truth.skip

    def test_a_box_covers_the_pixels_whose_centre_it_covers(self):
        mask = boxed((1,), (1.4, 0.6, 3.5, 2.51)).mask((4, 5))
        assert mask.nonzero().tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]

    def test_no_box_no_mask(self):
        assert not boxed((1,), None).mask((4, 5)).any()


class TestCheckedBox:
    def test_rounding_is_forgiven(self):
        assert checked_box((-0.5, -1, 30.7, 21), (20, 30)) == (0, 0, 30, 20)

    @pytest.mark.parametrize("box", [(-2, 0, 5, 5), (0, -1.5, 5, 5), (0, 0, 32, 5), (0, 0, 5, 21.5)])
    def test_outside(self, box):
        assert "leaves the image of 30 x 20 pixels" in checked_box(box, (20, 30))

    @pytest.mark.parametrize(
        "box", [(5, 0, 5, 5), (5, 0, 4, 5), (0, 7, 5, 7), (0, float("nan"), 5, 7), (0, 0, float("inf"), 7)]
    )
    def test_no_area(self, box):
        assert "no area" in checked_box(box, (20, 30))


class TestDataset:
    @pytest.fixture
    def dataset(self, tmp_path, paint):
        for name in "abc":
            paint(tmp_path / f"{name}.png", 100, 100, seed=ord(name))
        samples = tuple(Sample(name, Photo(f"{name}.png", tmp_path), ((i,),)) for i, name in enumerate("abc"))
        return Dataset("letters", samples, ("a", "b", "c"))

    def test_sequence(self, dataset):
        assert len(dataset) == 3
        assert [sample.id for sample in dataset] == ["a", "b", "c"]
        assert dataset[1].id == "b"
        assert pickle.loads(pickle.dumps(dataset)) == dataset

    def test_ids_are_unique(self, dataset):
        with pytest.raises(ValueError, match="letters has 1 ids more than once: 'a'; an id belongs to one"):
            replace(dataset, samples=(*dataset.samples, dataset[0]))

    def test_select(self, dataset):
        assert [sample.id for sample in dataset.select(lambda sample: sample.labels[0][0] % 2 == 0)] == [
            "a",
            "c",
        ]

    def test_verified_names_and_counts_what_is_broken(self, dataset, tmp_path, break_file):
        break_file(tmp_path / "b.png")
        (tmp_path / "c.png").unlink()
        verified = dataset.verified()
        assert [sample.id for sample in verified] == ["a"]
        assert [(problem.kind, problem.file) for problem in verified.problems] == [
            ("damaged", "b.png"),
            ("missing", "c.png"),
        ]
        assert str(verified) == "letters: 1 samples, 1 damaged, 1 missing"

    def test_fingerprint_follows_content_not_place(self, dataset, tmp_path, paint):
        fingerprint = dataset.fingerprint()
        assert fingerprint == dataset.fingerprint()
        copy = tmp_path.parent / f"{tmp_path.name}-copy"
        shutil.copytree(tmp_path, copy)
        moved = replace(
            dataset, samples=tuple(replace(s, picture=replace(s.picture, root=copy)) for s in dataset)
        )
        assert moved.fingerprint() == fingerprint
        paint(copy / "b.png", 100, 100, seed=5)
        assert moved.fingerprint() != fingerprint

    def test_fingerprint_follows_labels_and_objects(self, dataset):
        fingerprints = {
            dataset.fingerprint(),
            replace(
                dataset, samples=(replace(dataset[0], labels=((5,),)), *dataset.samples[1:])
            ).fingerprint(),
            replace(
                dataset,
                samples=(replace(dataset[0], objects=(boxed((0,), (0, 0, 1, 1)),)), *dataset.samples[1:]),
            ).fingerprint(),
            replace(dataset, samples=dataset.samples[::-1]).fingerprint(),
            replace(dataset, classes=("x",)).fingerprint(),
            dataset.select(lambda sample: sample.id != "b").fingerprint(),
        }
        assert len(fingerprints) == 6

    def test_fingerprint_of_a_missing_file(self, dataset, tmp_path):
        fingerprint = dataset.fingerprint()
        (tmp_path / "c.png").unlink()
        assert dataset.fingerprint() != fingerprint


def test_an_annotation_error_lists_all_with_lines():
    error = AnnotationError(Contradiction("a.xml", i, f"reason {i}") for i in range(1, 31))
    assert "30 annotations can't be true" in str(error)
    assert "a.xml:1: reason 1\n" in str(error)
    assert "... and 10 more" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_labels_once_in_order():
    assert unique([(3,), (1, 2), (3,)]) == ((3,), (1, 2))


class TestDraw:
    def test_range_and_spread(self):
        values = [draw(0, i) for i in range(2000)]
        assert 0 <= min(values) < 0.01
        assert 0.99 < max(values) < 1
        assert sum(values) / 2000 == pytest.approx(0.5, abs=0.03)

    def test_known_values(self):
        """The numbers that data sets are made of must never change."""
        assert draw(0, "a") == 0.08015219585559397
        assert [below(10, 0, i) for i in range(8)] == [6, 6, 1, 1, 9, 5, 5, 7]
