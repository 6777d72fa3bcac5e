"""What the API reference shows of the code: docstrings as Markdown, and the members that Python sees.

Roles of Sphinx and names of pages become links, doctests become code.
"""

import re
from collections.abc import Iterator
from functools import partial

from griffe import Alias, Extension, GriffeLoader, Module, NameResolutionError, Object

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`~?([\w.]+)`")
DOCTEST = re.compile(r"(^ *Example:\n)?^( *)(>>> .*(?:\n *\S.*)*)", re.MULTILINE)
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


def everything(inside: Object) -> Iterator[Object]:
    """What is defined in a package, and the package itself."""
    yield inside
    for member in tuple(inside.members.values()):
        if isinstance(member, Object):
            yield from everything(member)


def fenced(doctest: re.Match[str]) -> str:
    """A doctest as a block of code; a section's title has to stand directly above what is in it."""
    title, indent, code = doctest.groups()
    return f"{title or chr(10)}{indent}```pycon\n{indent}{code}\n{indent}```"


def markdown(text: str, obj: Object) -> str:
    """The docstring of an object, as Markdown."""
    text = DOCTEST.sub(fenced, text)
    text = ROLE.sub(partial(reference, inside=obj), text)
    return PAGE.sub(r'<a href="../\1.html\2">\1</a>', text)


def unshadow(package: Module) -> None:
    """Show the function that a package exports in place of the module of the same name, as Python does."""
    for name in package.exports or ():
        member = package.members.get(str(name))
        if isinstance(member, Module) and name in member.members:
            package.set_member(str(name), Alias(str(name), member.members[name], parent=package))


class Shown(Extension):
    """Rewrites a package once, when griffe has read it."""

    def on_package(self, *, pkg: Module, loader: GriffeLoader, **_: object) -> None:
        found = list(everything(pkg))
        for obj in found:
            if obj.docstring:
                obj.docstring.value = markdown(obj.docstring.value, obj)
        loader.resolve_aliases(implicit=True, external=False)
        for obj in found:
            if isinstance(obj, Module):
                unshadow(obj)
