"""The documentation site: its navigation, llms.txt, and the pages as they are built, on the disk and without network."""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import is_dataclass
from urllib.parse import unquote

import html5lib
import pytest
import yaml

import clarp
from clarp.evaluation import METRICS
from test_docs import DOCS, ROOT, generator

CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
LLMS = generator("generate_llms")
SHOWN = ("clarp", "clarp.data", "clarp.evaluation", "clarp.models", "clarp.render", "clarp.rules")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    made = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "https_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr  # with --quiet it would be 0 whatever is wrong
    assert "WARNING" not in made.stderr
    return folder


def test_the_navigation_has_every_page_once_and_no_other():
    named = [page for _, page in LLMS.pages(CONFIG["nav"])]
    assert len(set(named)) == len(named)
    assert all(LLMS.source(page).is_file() for page in named)
    inside = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert set(named) - inside == {
        "index.md",  # the README
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
    }
    assert inside <= set(named)


def test_llms_txt_is_up_to_date():
    assert LLMS.OUT.read_text(encoding="utf-8") == LLMS.text(), "run python docs/generate_llms.py"


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("# A title\n\n    code of one. Line\n\n- a list.\n\n| a. |\n|---|\n\nIt is [so](a.md), not `b.c`. Or.", "It is so, not `b.c`."),
        ("```\ncode.\n```\n\nAsked *twice*,\n**why?** No.", "Asked twice, why?"),
        ("Three times:\n\n1. one.", "Three times."),
    ],
)  # fmt: skip
def test_the_first_sentence(page, said):
    assert LLMS.first_sentence(page) == said


def test_a_page_without_a_sentence_is_refused():
    with pytest.raises(ValueError, match="has no sentence"):
        LLMS.first_sentence("# A title\n\n- a list.\n")


def test_the_page_of_all_names_has_them():
    spec = importlib.util.spec_from_file_location("every_name", DOCS / "site/every_name.py")
    every_name = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(every_name)
    assert every_name.PLACE in (DOCS / "api/names.md").read_text(encoding="utf-8")
    text = every_name.text()
    assert re.findall(r"^### (.+)$", text, re.MULTILINE) == [*clarp.methods(), *clarp.composites.names()]
    rules = {name for name in clarp.rules.__all__ if is_dataclass(getattr(clarp.rules, name))}
    assert {name for name in rules if f"| [`{name}`](rules.md#clarp.rules.{name}) | " not in text} == set()
    assert {name for name in METRICS if f"\n| `{name}` | [`" not in text} == set()
    assert "MISSING" not in text


def parsed(page):
    return html5lib.parse(page.read_bytes(), namespaceHTMLElements=False)


@pytest.mark.slow
def test_every_link_leads_somewhere_and_nothing_is_loaded_from_elsewhere(built):
    trees = {page: parsed(page) for page in built.rglob("*.html") if page.name != "404.html"}
    anchors = {page: {one.get("id") for one in tree.iter()} for page, tree in trees.items()}
    followed = 0
    for page, tree in trees.items():
        for one in tree.iter():
            loaded = one.get("src") or (one.get("href") if one.tag == "link" else None)
            link = loaded or (one.get("href") if one.tag == "a" else None)
            if not link or link.startswith("data:"):
                continue
            if re.match(r"\w+:|//", link):
                assert not loaded, (page, link)
                continue
            path, _, anchor = unquote(link).partition("#")
            target = (page.parent / path).resolve() if path else page
            assert (target / "index.html" if target.is_dir() else target).is_file(), (page, link)
            assert not anchor or target not in anchors or anchor in anchors[target], (page, link)
            followed += 1
    assert followed > 3000


@pytest.mark.slow
def test_the_reference_has_every_public_name(built):
    found = {
        one.get("id")
        for page in (built / "api").glob("*.html")
        for one in parsed(page).iter()
        if one.get("id")
    }
    names = {f"{shown}.{name}" for shown in SHOWN for name in importlib.import_module(shown).__all__}
    modules = {"clarp.composites", "clarp.rules", "clarp.seeds"}  # pages of their own
    assert names - found - modules == set()
    assert len(names) > 100


@pytest.mark.slow
def test_docstrings_are_markdown(built):
    for page in (built / "api").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(
            r":(?:class|func|meth|mod|attr|data|exc):|<blockquote>|```|\bArgs:|Raises:\n", text
        ), page


@pytest.mark.browser
def test_the_search_works_from_disk(built, chromium):
    context = chromium.new_context(offline=True, viewport={"width": 390, "height": 844})
    tab = context.new_page()
    said = []
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    tab.on("request", lambda made: None if made.url.startswith(("file:", "data:")) else said.append(made.url))
    tab.goto((built / "rules.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.locator("label[for=__search]").first.click()
    tab.locator(".md-search__input").press_sequentially("pointing game")
    hit = tab.locator("a.md-search-result__link", has_text="The pointing game").first
    hit.wait_for()
    hit.click()
    tab.wait_for_url("**/metrics.html?h=*")
    context.close()
    assert said == []
