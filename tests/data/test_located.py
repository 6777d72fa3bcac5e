import json

import pytest

from clarp.data._located import MalformedFileError, json_lines, read_xml


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
    assert len(json_lines(text, "")) == len(content)
