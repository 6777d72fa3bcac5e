"""Findings as files: photos by their names, what was left out, and names that are only text."""

import json
import sys

import numpy as np
import pytest

from clarp.cli import main
from clarp.evaluation.findings import Findings
from clarp.evaluation.findings.writing import HOW_TO_READ, LEFT_OUT, as_document, markdown, sections
from evaluation.findings.made_up import anywhere, blob, run_of

pytest.importorskip("scipy")

FOUR = np.arange(80) % 4
MARKED = (FOUR == 2) & (np.arange(80) > 30)


@pytest.fixture
def store(tmp_path):
    """A cow with a mark at the bottom left, and dogs that are taken for ants."""
    generator = np.random.default_rng(0)
    maps = [blob(generator, [anywhere(generator), *([(0.87, 0.13)] if m else [])]) for m in MARKED]
    predicted = np.where((FOUR == 3) & (np.arange(80) > 60), 0, FOUR)
    boxes = [[(0.3, 0.1, 0.9, 0.7)] for _ in FOUR]
    return run_of(tmp_path / "run", {"lrp": maps}, FOUR, predicted=predicted, boxes=boxes)


def left_out(findings):
    return [one.text for title, lines in sections(findings) if title == LEFT_OUT for one in lines]


def test_the_command_writes_them(store, capsys):
    pytest.importorskip("sklearn")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(store.folder), "--resamples", "200"])
    assert not ended.value.code
    said = " ".join(capsys.readouterr().out.split())
    findings = Findings.of(store)
    document = json.loads((store.folder / "report" / "findings.json").read_text())
    assert document == json.loads(json.dumps(as_document(findings)))
    (mark,) = document["marks at a fixed place"]
    assert (mark["name"], mark["place"], mark["method"]) == ("cow", "bottom left", "lrp")
    photos = {f"{n:04d}.png" for n in np.flatnonzero(MARKED)}
    assert photos <= set(mark["photos"])
    assert len(mark["photos"]) == round(mark["share of the photos"] * mark["photos with a map"])
    assert mark["peaks outside of boxes"] == 1.0
    (pair,) = document["confused classes"]
    assert (pair["names"], pair["confused"]) == (["dog", "ant"], [5, 0])
    assert pair["photos"] == [f"{n:04d}.png" for n in np.flatnonzero((FOUR == 3) & (np.arange(80) > 60))]
    assert len(document["evidence outside of objects"]) == 4
    assert [one["name"] for one in document["clusters"]] == ["ant", "bee", "cow", "dog"]
    for one in document["clusters"]:
        assert sum(cluster["size"] for cluster in one["clusters"]) == one["clustered"] == 20
    summary = (store.folder / "report" / "summary.md").read_text()
    assert summary.endswith(markdown(findings))
    assert HOW_TO_READ in summary
    for words in ("cow (2), lrp: the maps of", "5 of 20 photos of dog (3) are taken for ant (0)."):
        assert words in summary
        assert words in said


def test_without_scikit_learn_only_the_clusters_are_left_out(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    findings = Findings.of(store)
    assert findings.clusters == ()
    assert len(findings.places) == len(findings.pairs) == 1
    assert left_out(findings) == [
        'Clusters: Clusters of maps needs sklearn, which is not installed: pip install "clarp[eval]".'
    ]


def test_a_run_without_pictures_says_so(store):
    for path in store.folder.glob("pictures/*"):
        path.unlink()
    findings = Findings.of(store)
    (told,) = left_out(findings)
    assert told.startswith("All but confusions: the run kept no pictures")
    assert "Marks at a fixed place" not in dict(sections(findings))
    assert len(findings.pairs) == 1


def test_what_a_small_run_can_not_be_asked(tmp_path):
    generator = np.random.default_rng(0)
    classes = np.array([0] * 15 + [1] * 3)
    maps = [blob(generator, [anywhere(generator)]) for _ in classes]
    told = left_out(Findings.of(run_of(tmp_path / "run", {"lrp": maps}, classes, task="multilabel")))
    assert [text.partition(":")[0] for text in told] == [
        "Marks at a fixed place",
        "Clusters",
        "Evidence outside of objects",
        "Confusions",
    ]
    assert "1 of 2 classes have fewer than 5 maps" in told[0]
    assert "1 of 2 classes have fewer than 12 maps" in told[1]


def test_names_are_text(tmp_path):
    generator = np.random.default_rng(0)
    maps = [blob(generator, [anywhere(generator), *([(0.87, 0.13)] if m else [])]) for m in MARKED]
    names = ["a", "b", "\x1b]0;cow\x07\u202e", "d"]
    findings = Findings.of(run_of(tmp_path / "run", {"lrp": maps}, FOUR, names=names))
    text = markdown(findings)
    assert "\\x1b]0;cow\\x07\\u202e (2), lrp" in text
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
