"""The sheet of a model of each task: its words, its probabilities, and its empty maps."""

import json

import pytest

from clarp.cli import main
from clarp.commands import compare
from clarp.explanation import MIRRORED
from colours import discs, written


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    """Make a sheet, and give its caption, its cells and its manifest."""
    (tmp_path / "photo.png").write_bytes(discs("red", "green"))
    seen = []
    drawn = compare.sheet

    def watched(rows, caption, **options):
        seen.append((caption, [cell for row in rows for cell in row.cells]))
        return drawn(rows, caption, **options)

    monkeypatch.setattr(compare, "sheet", watched)

    def made(name, *arguments):
        (spec,) = written(tmp_path, name)
        out = tmp_path / "sheet.png"
        with pytest.raises(SystemExit) as ending:
            main(["compare", str(tmp_path / "photo.png"), "--model", spec, "--out", str(out), *arguments])
        assert ending.value.code in {0, None}
        return *seen[-1], json.loads(out.with_suffix(".json").read_text())

    return made


@pytest.mark.parametrize(
    ("name", "against", "told"),
    [
        ("findings", (), "ssglrp: each class by itself."),
        ("findings", ("--against", "blue_disc"), "ssglrp: each class against blue disc."),
        ("finding", (), "ssglrp: each class against the other."),
        (
            "finding",
            ("--against", "not red_disc", "--target", "red_disc"),
            "ssglrp: each class against the other.",
        ),
        ("kinds", (), "ssglrp: each class against all others."),
    ],
)
def test_what_a_class_is_contrasted_with(sheet, name, against, told):
    caption, _, _ = sheet(name, "--methods", "lrp,ssglrp", *against)
    assert caption.splitlines()[1] == told


def test_what_a_reader_must_know_of_a_map_stands_in_caption_and_manifest(sheet):
    caption, _, manifest = sheet("finding", "--methods", "lrp,clarp", "--target", "red_disc,not red_disc")
    assert caption.splitlines()[2:] == [f"lrp, not red disc: {MIRRORED}"]
    told = [[one["remark"] for one in method["maps"]] for method in manifest["methods"]]
    assert told == [["", MIRRORED], ["", ""]]


def test_findings_have_their_own_probabilities(sheet):
    _, cells, manifest = sheet("findings", "--methods", "ssglrp")
    assert [cell.title for cell in cells] == ["red disc, 91.8%", "green disc, 84.8%"]
    assert manifest["task"] == {"name": "multilabel", "source": "it ends in a sigmoid", "notes": []}
    assert sum(one["probability"] for one in manifest["photo"]["predictions"]) > 2


def test_the_one_answer_is_the_negative_of_the_other(sheet):
    _, (so, not_so), manifest = sheet("finding", "--methods", "ssglrp")
    assert (so.title, not_so.title) == ("red disc, 91.8%", "not red disc, 8.2%")
    assert (so.heatmap == -not_so.heatmap).all()
    assert manifest["against"] == "the other class: it is so, or not"


def test_an_empty_map_is_called_that(sheet):
    _, (red, nothing), manifest = sheet("findings", "--methods", "ssglrp", "--target", "red_disc,anything")
    assert red.heatmap.any()
    assert not nothing.heatmap.any()
    assert [one["empty"] for one in manifest["methods"][0]["maps"]] == [False, True]
