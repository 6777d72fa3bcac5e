"""Every table of the study says how it was measured, and is of today's code."""

import json
import re

import pytest
import torch
from torch import nn

import clarp
from test_docs import DOCS, LINK, generator, page

MEASURED = generator("generate_measured")
ENTRIES = MEASURED.entries()
CODE = "LIMIT = 3\n\ndef double(x):\n    return 2 * x\n\nclass Other:\n    size: int = 1\n"


@pytest.mark.parametrize("name", ENTRIES)
def test_the_code_that_made_a_table_is_todays(name):
    entry = ENTRIES[name]
    assert not MEASURED.changed(entry), (
        f"the code of the table {name} of docs/study.md changed. Measure it again with {entry['command']}, "
        f"then run python docs/generate_measured.py {name}; where the change can't change a figure, the second alone."
    )


def test_every_table_with_figures_says_how_it_was_measured():
    assert not list(MEASURED.without_a_mark(page("study")))
    assert MEASURED.updated(page("study"), ENTRIES) == page("study"), "run python docs/generate_measured.py"
    for entry in ENTRIES.values():
        assert all(str(entry[field]).strip() for field in MEASURED.SHOWN)
        assert re.match(r"20\d\d-\d\d-\d\d", entry["date"])
        assert len(entry["sources"]) > 2


def test_a_table_without_a_mark_is_noticed():
    table = "| a | b |\n|---|---|\n| x | .5 |"
    assert list(MEASURED.without_a_mark(f"Text.\n\n{table}\n")) == ["| a | b |"]
    assert not list(MEASURED.without_a_mark(f"<!-- measured: x -->\n*how*\n\n{table}\n"))
    assert not list(MEASURED.without_a_mark("Text.\n\n| word | meaning |\n|---|---|\n| x | y |\n"))


@pytest.mark.parametrize("text", ["<!-- measured: nothing -->\n-\n", ""])
def test_marks_and_entries_belong_together(text):
    with pytest.raises(ValueError, match="expected a mark in study"):
        MEASURED.updated(text, {} if text else {"lost": {}})


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("2 * x", "3 * x", False),
        ("LIMIT = 3", "LIMIT = 4", False),
        ("size: int = 1", "size: int = 2", False),
        ("    return 2 * x", '    """Twice."""\n\n    return 2 * x  # two of it', True),
        ("class Other:\n", 'class Other:\n    """Another."""\n\n', True),
        ("LIMIT = 3", 'LIMIT = 3\n"""The most."""', True),
    ],
)
def test_code_counts_and_words_about_it_do_not(old, new, same):
    changed = CODE.replace(old, new)
    assert changed != CODE
    assert (MEASURED.of_code("a.py", CODE) == MEASURED.of_code("a.py", changed)) is same


def test_one_definition_of_a_file():
    changed = CODE.replace("LIMIT = 3", "LIMIT = 4")
    assert MEASURED.of_code("a.py:double", CODE) == MEASURED.of_code("a.py:double", changed)
    assert MEASURED.of_code("a.py:double", CODE) != MEASURED.of_code("a.py:Other", CODE)
    with pytest.raises(ValueError, match="twice: no definition of that name"):
        MEASURED.of_code("a.py:twice", CODE)


@pytest.mark.parametrize("kind", ["variant", "method"])
def test_methods_are_told_apart_by_what_they_are(kind):
    found = [MEASURED.of_source(f"{kind} {name}") for name in ("lrp", "slrp", "sglrp", "ssglrp", "clarp")]
    assert len(set(found)) == len(found)


def test_a_table_that_was_measured_again_is_renewed(tmp_path, monkeypatch):
    name = next(iter(ENTRIES))
    source = next(iter(ENTRIES[name]["sources"]))
    stale = {**ENTRIES, name: {**ENTRIES[name], "sources": {**ENTRIES[name]["sources"], source: "other"}}}
    monkeypatch.setattr(MEASURED, "ENTRIES", tmp_path / "measured.json")
    monkeypatch.setattr(MEASURED, "PAGE", tmp_path / "study.md")
    MEASURED.ENTRIES.write_text(json.dumps(stale), encoding="utf-8")
    MEASURED.PAGE.write_text(page("study"), encoding="utf-8")
    MEASURED.main([])
    assert MEASURED.changed(MEASURED.entries()[name]) == [source]
    MEASURED.main([name])
    assert MEASURED.entries() == ENTRIES
    assert MEASURED.PAGE.read_text(encoding="utf-8") == page("study")
    assert (DOCS / "measured.json").read_bytes() == MEASURED.ENTRIES.read_bytes()


def test_the_figures_of_what_to_expect_are_those_of_the_pages_that_it_links():
    """Each in a cell that links where it is from."""
    rows = [row for row in page("what-to-expect").splitlines() if row.startswith("| ")][1:]
    figures = 0
    for cell in (cell for row in rows for cell in row.split(" | ")):
        linked = " ".join(page(target.removesuffix(".md")) for target, _ in LINK.findall(cell))
        for figure in re.findall(r"(?<!\d)\.\d+", cell):
            assert re.search(rf"(?<![\d]){re.escape(figure)}(?!\d)", linked), (figure, cell)
            figures += 1
    assert (len(rows), figures) == (8, 18)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row.split(" | ")[0])} == set(
        clarp.methods()
    )


def test_the_seed_alone_is_sglrps_map_times_the_targets_logit():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)
    )
    model, images = model.double().eval(), torch.rand(6, 3, 8, 8, dtype=torch.float64)
    own, sglrp = (
        clarp.Explainer(model, MEASURED.variants()[name], bounds=(0.0, 1.0))
        for name in ("ssglrp-seed", "sglrp")
    )
    targets = torch.arange(5).expand(6, 5)
    logits = model(images)
    assert (logits < 0).any()
    assert (logits > 0).any()
    expected = sglrp(images, targets).relevance * logits[:, :, None, None, None]
    torch.testing.assert_close(own(images, targets).relevance, expected, rtol=1e-10, atol=1e-12)
