import pytest

from clarp.data import AnnotationError, image_folder, image_table


@pytest.fixture
def tree(tmp_path, paint):
    for file in ("dog/b.jpg", "dog/a.png", "cat/deep/er/c.JPEG", "cat/.hidden.jpg", ".git/x.jpg"):
        paint(tmp_path / file)
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    paint(tmp_path / "loose.jpg")
    return tmp_path


class TestImageFolder:
    def test_folders_are_classes_in_order_of_their_names(self, tree):
        dataset = image_folder(tree)
        assert [(sample.id, sample.labels) for sample in dataset] == [
            ("cat/deep/er/c.JPEG", ((0,),)),
            ("dog/a.png", ((1,),)),
            ("dog/b.jpg", ((1,),)),
        ]
        assert dataset.classes == ("cat", "dog")
        assert dataset[0].size == (20, 30)
        assert dataset[0].image().mode == "RGB"

    def test_other_files_are_named(self, tree):
        found = {(problem.kind, problem.file) for problem in image_folder(tree).problems}
        assert found == {("not an image", "cat/notes.txt"), ("unlabelled", "loose.jpg")}

    def test_classes_of_the_model(self, tree):
        dataset = image_folder(tree, classes=["ape", "dog", "bee", "cat"])
        assert [sample.labels for sample in dataset] == [((3,),), ((1,),), ((1,),)]

    def test_unknown_folders_are_named_with_what_is_near(self, tree):
        with pytest.raises(
            ValueError,
            match=r"2 folder names are no class of the model: 'cat' \(nearest: 'cats'\); 'dog'\. Rename",
        ):
            image_folder(tree, classes=["cats", "bird"])

    def test_no_class_folders(self, tmp_path, paint):
        paint(tmp_path / "a.jpg")
        with pytest.raises(ValueError, match="no class folders"):
            image_folder(tmp_path)

    def test_links_are_followed_but_not_in_circles(self, tree, tmp_path_factory, paint):
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        paint(elsewhere / "bees" / "deep" / "z.png")
        (tree / "bee").symlink_to(elsewhere / "bees")
        (elsewhere / "bees" / "deep" / "round").symlink_to(elsewhere / "bees")
        paint(elsewhere / "more" / "z.png")
        (tree / "cat" / "more").symlink_to(elsewhere / "more")
        (tree / "dog" / "everything").symlink_to(tree / "dog")
        (tree / "dog" / "itself").symlink_to(tree / "dog" / "itself")
        inside = image_folder(tree)
        assert {p.file for p in inside.problems if p.kind == "outside"} == {"bee", "cat/more"}
        assert [sample.id for sample in inside] == ["cat/deep/er/c.JPEG", "dog/a.png", "dog/b.jpg"]
        dataset = image_folder(tree, outside=True)
        assert dataset.classes == ("bee", "cat", "dog")
        assert [(sample.id, sample.labels) for sample in dataset] == [
            ("bee/deep/z.png", ((0,),)),
            ("cat/deep/er/c.JPEG", ((1,),)),
            ("cat/more/z.png", ((1,),)),
            ("dog/a.png", ((2,),)),
            ("dog/b.jpg", ((2,),)),
        ]
        assert ("missing", "dog/itself") in {(p.kind, p.file) for p in dataset.problems}

    def test_a_folder_that_can_not_be_listed_is_named(self, tree, lock):
        lock(tree / "dog")
        dataset = image_folder(tree)
        assert len(dataset) == 1
        assert "dog: damaged (the folder can't be listed: Permission denied)" in map(str, dataset.problems)

    def test_a_name_that_two_classes_have(self, tree):
        with pytest.raises(
            ValueError, match=r"'dog' is the name of the classes 0 and 2: a folder's name .*csv"
        ):
            image_folder(tree, classes=["dog", "cat", "dog"])
        dataset = image_folder(tree, classes=["ape", "cat", "ape", "dog"])
        assert [sample.labels for sample in dataset] == [((1,),), ((3,),), ((3,),)]

    def test_no_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is not a folder"):
            image_folder(tmp_path / "nothing")


@pytest.fixture
def table(tmp_path, paint):
    for name in "abcd":
        paint(tmp_path / f"{name}.jpg")

    def write(text, name="labels.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


class TestImageTable:
    def test_indices_several_indices_and_names(self, table):
        dataset = image_table(
            table("file,class\nb.jpg,2\na.jpg,1 0\nc.jpg,dog\n"), classes=["cat", "tiger", "dog"]
        )
        assert [(sample.id, sample.labels) for sample in dataset] == [
            ("b.jpg", ((2,),)),
            ("a.jpg", ((1, 0),)),
            ("c.jpg", ((2,),)),
        ]
        assert [(problem.kind, problem.file) for problem in dataset.problems] == [("unlabelled", "d.jpg")]

    def test_missing_files_are_named_with_their_line(self, table):
        dataset = image_table(table("file,class\na.jpg,1\nx.jpg,2\n"))
        assert str(dataset.problems[0]) == "x.jpg: missing (listed in labels.csv, line 3)"
        assert len(dataset) == 1

    def test_other_columns_and_byte_order_mark(self, table):
        root = table("\ufeffname,wnid,path\nx,3,a.jpg\n", "t.csv")
        dataset = image_table(root, "t.csv", file_column="path", class_column="wnid")
        assert dataset[0].labels == ((3,),)

    def test_everything_wrong_is_refused_at_once_with_lines(self, table):
        root = table("file,class\na.jpg,catt\nb.jpg,7\nc.jpg,\nd.jpg,1\nd.jpg,1\n")
        with pytest.raises(AnnotationError) as caught:
            image_table(root, classes=["cat", "dog"])
        lines = [(c.line, c.reason) for c in caught.value.contradictions]
        assert [line for line, _ in lines] == [2, 3, 4, 6]
        assert lines[0][1] == "class 'catt' (nearest: 'cat') is none of the 2 class names"
        assert "class 7 does not exist" in lines[1][1]
        assert "listed twice" in lines[3][1]

    def test_no_column(self, table):
        with pytest.raises(ValueError, match="no column 'class'; it has file, label"):
            image_table(table("file,label\n"))

    def test_no_table(self, table):
        with pytest.raises(ValueError, match="does not exist: give a CSV table"):
            image_table(table("", "other.csv"))

    def test_negative_classes(self, table):
        with pytest.raises(AnnotationError, match=r"labels\.csv:2: class '-1'"):
            image_table(table("file,class\na.jpg,-1\n"))

    def test_one_file_in_two_spellings(self, table):
        with pytest.raises(AnnotationError, match=r"labels\.csv:3: a\.jpg is listed twice"):
            image_table(table("file,class\na.jpg,1\n./a.jpg,2\n"))
        dataset = image_table(table("file,class\n./a.jpg,1\nx/..//b.jpg,0\nc.jpg,1\nd.jpg,1\n"))
        assert [sample.id for sample in dataset] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
        assert dataset.problems == ()

    def test_a_name_that_two_classes_have(self, table):
        names = ["ant", "crane", "bee", "crane"]
        reason = r"labels\.csv:2: class 'crane' is the name of the classes 1 and 3: give the number"
        with pytest.raises(AnnotationError, match=reason):
            image_table(table("file,class\na.jpg,crane\n"), classes=names)
        assert image_table(table("file,class\na.jpg,3\n"), classes=names)[0].labels == ((3,),)

    def test_cells_too_many_and_too_few(self, table):
        with pytest.raises(AnnotationError) as caught:
            image_table(table("file,class\na.jpg,bee, honey bee\nb.jpg\n,1\nc.jpg,1\n"))
        assert [(c.line, c.reason) for c in caught.value.contradictions] == [
            (2, "3 cells, the header has 2: put quotes around a cell with a comma"),
            (3, "1 cells, expected 2 as in the header: add the others"),
            (4, "there is no file: name it"),
        ]

    def test_another_encoding(self, table):
        root = table("")
        (root / "labels.csv").write_bytes("file,class\na.jpg,caf\u00e9\n".encode("latin-1"))
        with pytest.raises(ValueError, match=r"labels\.csv:2: not UTF-8"):
            image_table(root)
