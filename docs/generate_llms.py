"""Write docs/llms.txt anew: a line for each page of the site, with its first sentence, for programs that read.

python docs/generate_llms.py
"""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import yaml
from markdown_it import MarkdownIt

HERE = Path(__file__).parent
ROOT = HERE.parent
OUT = HERE / "llms.txt"
SENTENCE = re.compile(r"\S.*?[.?!](?=\"?(?:\s|$))\"?")

Nav = list[dict[str, "str | Nav"]]


def source(page: str) -> Path:
    """The file that a page of the navigation is made from."""
    if page == "index.md":
        return ROOT / "README.md"
    return path if (path := HERE / page).is_file() else ROOT / page


def first_sentence(text: str) -> str:
    """The first sentence that is neither a heading nor in code, a table, a list or a quotation."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in pairwise(tokens):
        if (before.type, before.level) != ("paragraph_open", 0):
            continue
        parts = {"text": "{}", "code_inline": "`{}`", "softbreak": " "}
        prose = "".join(parts.get(one.type, "").format(one.content) for one in token.children or ())
        if prose:
            found = SENTENCE.search(prose)
            return found[0] if found else f"{prose.removesuffix(':')}."
    raise ValueError(f"a page has no sentence: it begins with {text[:80]!r}. Begin it with one.")


def pages(nav: Nav) -> Iterator[tuple[str, str]]:
    """Title and file of each page, in order."""
    for entry in nav:
        for title, inside in entry.items():
            if isinstance(inside, str):
                yield title, inside
            else:
                yield from pages(inside)


def lines(config: dict[str, object]) -> Iterator[str]:
    yield f"# {config['site_name']}\n\n> {config['site_description']}\n"
    for section in config["nav"]:
        for title, inside in section.items():
            yield f"\n## {title}\n\n"
            for name, page in pages(inside):
                said = first_sentence(source(page).read_text(encoding="utf-8"))
                yield f"- [{name}]({page.removesuffix('.md')}.html): {said}\n"


def text() -> str:
    return "".join(lines(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))))


if __name__ == "__main__":
    OUT.write_text(text(), encoding="utf-8")
