import ast
from pathlib import Path

from clarp.serve.recipe import recipe


def test_of_a_file_only_the_name_is_told():
    assert 'load("mine.py:build")' in recipe("/home/me/secret/mine.py:build", "lrp", 0, [], ["a"])


def test_files_are_told_by_their_names():
    options = {"weights": Path("/home/me/w.safetensors"), "output": 'a"b'}
    lines = recipe("resnet50", "lrp", 0, [], ["a"], options=options)
    assert r'load("resnet50", weights=Path("w.safetensors"), output="a\"b")' in lines
    assert "/home" not in lines


def test_labels_cannot_end_the_comment():
    label = 'a"\nimport os\nos.abort()\r\x0b\u2028#'
    lines = recipe("m", "lrp", 0, [1], [label, label])
    assert len(ast.parse(lines).body) == 9
    assert "abort()" not in ast.unparse(ast.parse(lines))
