"""Docstrings as the site shows them: roles of Sphinx and names of pages become links, doctests become code."""

import re
from functools import partial

from griffe import Docstring, Extension, Module, NameResolutionError, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([\w.]+)`")
DOCTEST = re.compile(r"^( *)>>> .*(?:\n *\S.*)*", re.MULTILINE)
PAGE = re.compile(r"docs/([\w-]+)\.md(#[\w-]+)?")


def full_name(name: str, inside: Object) -> str:
    """The path of what a docstring names, as Python would find the name at that place."""
    first, dot, rest = name.partition(".")
    try:
        return f"{inside.resolve(first)}{dot}{rest}"
    except NameResolutionError:
        return name


def reference(role: re.Match[str], inside: Object) -> str:
    """A link if the site shows what is named, else the name alone: not every class is public."""
    name = full_name(role[1], inside)
    return f'<autoref optional identifier="{name}"><code>{role[1]}</code></autoref>'


class Docstrings(Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: Object, **_: object) -> None:
        if isinstance(obj.docstring, Docstring):
            text = DOCTEST.sub(r"\n\1```pycon\n\g<0>\n\1```", obj.docstring.value)
            text = ROLE.sub(partial(reference, inside=obj), text)
            obj.docstring.value = PAGE.sub(r'<a href="../\1.html\2">\1</a>', text)

    def on_package(self, *, pkg: Module, **_: object) -> None:
        self.on_object(obj=pkg)  # griffe calls on_object for all but the outermost module
