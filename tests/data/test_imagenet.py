import pytest

from clarp.data import AnnotationError, imagenet

MAPPING = "n00000001 first, one\nn00000003 third\nn00000002 second, two\n"


@pytest.fixture
def folders(tmp_path, paint):
    for file in ("n00000002/b.JPEG", "n00000001/a.JPEG", "n00000003/c.JPEG"):
        paint(tmp_path / "val" / file)
    return tmp_path


class TestFolders:
    def test_the_mapping_numbers_the_synsets(self, folders):
        (folders / "LOC_synset_mapping.txt").write_text(MAPPING)
        dataset = imagenet(folders)
        assert [(s.id, s.labels) for s in dataset] == [
            ("n00000001/a.JPEG", ((0,),)),
            ("n00000002/b.JPEG", ((2,),)),
            ("n00000003/c.JPEG", ((1,),)),
        ]
        assert dataset.classes == ("first, one", "third", "second, two")
        assert dataset.name == "imagenet-val"

    def test_without_a_mapping_a_part_is_refused(self, folders):
        with pytest.raises(ValueError, match=r"has 3 synset folders.*LOC_synset_mapping"):
            imagenet(folders)

    def test_without_a_mapping_all_thousand_are_numbered_by_name(self, tmp_path, paint):
        for number in range(1000):
            (tmp_path / "val" / f"n{number * 7:08d}").mkdir(parents=True)
        paint(tmp_path / "val" / "n00000070" / "x.JPEG")
        dataset = imagenet(tmp_path)
        assert dataset[0].labels == ((10,),)
        assert len(dataset.classes) == 1000

    def test_the_folder_itself(self, folders):
        (folders / "val" / "synset_words.txt").write_text(MAPPING)
        assert len(imagenet(folders / "val")) == 3

    def test_an_unknown_synset(self, folders):
        (folders / "LOC_synset_mapping.txt").write_text("n00000001 first\n")
        with pytest.raises(ValueError, match="n00000002"):
            imagenet(folders)

    def test_a_synset_that_is_there_twice_would_move_the_numbers(self, folders):
        (folders / "LOC_synset_mapping.txt").write_text(
            "n00000001 first\n\nn00000001 first\nn00000002 second\n"
        )
        with pytest.raises(AnnotationError, match=r"LOC_synset_mapping\.txt:3: n00000001 is there twice"):
            imagenet(folders)


@pytest.fixture
def kaggle(tmp_path, paint):
    (tmp_path / "LOC_synset_mapping.txt").write_text(MAPPING)
    for name in ("v2", "v1"):
        paint(tmp_path / "ILSVRC/Data/CLS-LOC/val" / f"{name}.JPEG", 20, 30)

    def write(*lines):
        (tmp_path / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines, ""]))
        return tmp_path

    return write


class TestKaggle:
    def test_labels_and_boxes(self, kaggle):
        dataset = imagenet(kaggle("v2,n00000002 1 2 11 12 n00000002 15 2 30 20 ", "v1,n00000003 0 0 30 20 "))
        assert [(s.id, s.labels) for s in dataset] == [("v1.JPEG", ((1,),)), ("v2.JPEG", ((2,),))]
        assert [thing.box for thing in dataset[1].objects] == [(1, 2, 11, 12), (15, 2, 30, 20)]

    def test_contradictions_have_lines(self, kaggle):
        root = kaggle("v1,n00000002 1 2 99 12", "v2,n99999999 1 2 3 4")
        with pytest.raises(AnnotationError) as caught:
            imagenet(root)
        found = [(c.file, c.line) for c in caught.value.contradictions]
        assert found == [("LOC_val_solution.csv", 2), ("LOC_val_solution.csv", 3)]
        assert "leaves the image of 30 x 20" in str(caught.value)
        assert "'n99999999' is not in the mapping" in str(caught.value)

    def test_missing_photos_are_named(self, kaggle):
        dataset = imagenet(kaggle("v1,n00000002 1 2 3 4", "v9,n00000001 1 2 3 4"))
        assert [str(problem) for problem in dataset.problems] == ["v9.JPEG: missing (no such file)"]

    def test_words_that_are_no_boxes(self, kaggle):
        with pytest.raises(AnnotationError, match="4 words"):
            imagenet(kaggle("v1,n00000002 1 2 3"))

    def test_edges_that_are_no_numbers(self, kaggle):
        with pytest.raises(AnnotationError, match=r"solution\.csv:2: '1 a 9 9' are not four numbers"):
            imagenet(kaggle("v1,n00000002 1 a 9 9"))

    def test_a_photo_that_is_listed_twice(self, kaggle):
        with pytest.raises(AnnotationError, match=r"solution\.csv:3: v1 is listed twice"):
            imagenet(kaggle("v1,n00000002 1 2 3 4", "v1,n00000001 1 2 3 4"))

    def test_rows_without_all_cells(self, kaggle):
        with pytest.raises(AnnotationError, match=r"solution\.csv:3: 1 cells, expected 2"):
            imagenet(kaggle("v1,n00000002 1 2 3 4", "v2"))

    def test_another_header(self, kaggle):
        root = kaggle("v1,n00000002 1 2 3 4")
        path = root / "LOC_val_solution.csv"
        path.write_text(path.read_text().replace("PredictionString", "Prediction"))
        with pytest.raises(
            ValueError, match="no column 'PredictionString'; it has ImageId, Prediction: give"
        ):
            imagenet(root)

    def test_without_a_mapping(self, kaggle):
        root = kaggle("v1,n00000002 1 2 3 4")
        (root / "LOC_synset_mapping.txt").unlink()
        with pytest.raises(ValueError, match="needs LOC_synset_mapping"):
            imagenet(root)


def test_nothing_found(tmp_path):
    with pytest.raises(ValueError, match="found no ImageNet below"):
        imagenet(tmp_path)
