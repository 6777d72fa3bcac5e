import json

import pytest

from clarp.data._located import (
    MalformedFileError,
    RepeatedKeys,
    header,
    json_keys,
    json_lines,
    read_json,
    read_rows,
    read_text,
    read_xml,
)


def test_lines_of_elements(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<a>\n <b>x\n</b>\n <c><b> y </b></c>\n <b>z</b>\n</a>\n")
    root = read_xml(path)
    assert [(child.tag, child.line) for child in root.children] == [("b", 2), ("c", 4), ("b", 5)]
    assert root.value("c/b") == "y"
    assert root.value("c/d/e") == ""
    assert root.find("d") is None
    assert [element.line for element in root.all("b")] == [2, 5]


def test_malformed(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<a>\n<b>\n</a>")
    with pytest.raises(MalformedFileError, match="line 3: mismatched tag"):
        read_xml(path)


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_json_lines(indent):
    content = {
        "first": [{"x": 1}, [2]],
        "deep": {"images": [0]},
        'odd "] key': "\n",
        "images": [{"id": 7}, "a\nb", 3.5, [], {}],
        "z": {},
    }
    text = json.dumps(content, indent=indent)
    for key in ("first", "images"):
        lines = json_lines(text, key)
        assert len(lines) == len(content[key])
        for line, value in zip(lines, content[key], strict=True):
            here = text.splitlines()[line - 1]
            assert json.dumps(value, indent=indent).splitlines()[0] in here
    assert json_lines(text, "z") == []
    assert [key for key, _ in json_keys(text)] == list(content)
    for key, line in json_keys(text):
        assert json.dumps(key) in text.splitlines()[line - 1]


@pytest.mark.parametrize("read", [lambda text: json_lines(text, "a"), json_keys])
def test_newlines_are_counted_once(read):
    """From one element to the next: from the beginning for each of them, the time is quadratic."""
    counted = []

    class Text(str):
        __slots__ = ()

        def count(self, what, start, end):
            counted.append(end - start)
            return super().count(what, start, end)

    elements = ",\n".join(f'"{n}": {{}}' for n in range(1000))
    text = Text(f"{{{elements}}}" if read is json_keys else f'{{"a": {{{elements}}}}}')
    assert len(read(text)) == 1000
    assert 0 < sum(counted) <= len(text)


def test_a_key_that_is_there_twice(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2],\n"b": {"x": 1, "x": 2},\n"a":\n[3]}')
    text, content = read_json(path, "correct it")
    assert isinstance(content, RepeatedKeys)
    assert content == {"a": [3], "b": {"x": 2}}
    assert (content.repeated, content["b"].repeated) == (("a",), ("x",))
    assert json_lines(text, "a") == [4]
    assert json_keys(text) == [("a", 1), ("b", 2), ("a", 3)]


@pytest.mark.parametrize("begin", ["[", '{"a": '])
def test_the_line_where_lists_or_objects_are_too_deep(tmp_path, begin):
    """Those that end count no more."""
    path = tmp_path / "a.json"
    path.write_text("[" + "[{}], " * 300 + begin * 499 + "\n" + begin * 200_000)
    with pytest.raises(ValueError, match=r"a\.json:2: lists and objects more than 500 deep"):
        read_json(path, "correct it")


def test_text_in_another_encoding(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("one\ncaf\u00e9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.txt:2: not UTF-8 .*0xe9.*: save the file as UTF-8"):
        read_text(path)
    path.write_text("caf\u00e9", encoding="utf-8-sig")
    assert read_text(path) == "caf\u00e9"


class TestRows:
    def rows(self, tmp_path, text):
        (tmp_path / "t.csv").write_text(text)
        return list(read_rows(tmp_path / "t.csv", ("b", "a"), "rename them"))

    def test_the_wanted_cells_with_the_line(self, tmp_path):
        rows = self.rows(tmp_path, '"a", c,b\n1,2,3\n\n"4,\n5",,6,\n')
        assert [(row.line, row.cells) for row in rows] == [(2, ("3", "1")), (5, ("6", "4,\n5"))]
        assert header(tmp_path / "t.csv") == ["a", "c", "b"]

    def test_too_many_cells_and_too_few(self, tmp_path):
        rows = self.rows(tmp_path, "a,b,c\n1,2,3,4\n1\n1,2\n")
        assert [row.cells for row in rows] == [(), (), ("2", "1")]
        assert rows[0].wrong == "4 cells, the header has 3: put quotes around a cell with a comma"
        assert rows[1].wrong == "1 cells, expected 3 as in the header: add the others"

    @pytest.mark.parametrize(("text", "has"), [("b,c\n", "b, c"), ("", "no header")])
    def test_no_such_column(self, tmp_path, text, has):
        with pytest.raises(ValueError, match=rf"no column 'a'; it has {has}: rename them"):
            self.rows(tmp_path, text)

    def test_no_csv(self, tmp_path):
        with pytest.raises(ValueError, match=r"t\.csv:2: not CSV \(field larger than field limit"):
            self.rows(tmp_path, "a,b\n" + "x" * 200_000)
