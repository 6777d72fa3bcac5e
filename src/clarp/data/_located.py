"""XML and JSON with line numbers, so that a message can say where an annotation is wrong."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


class MalformedFileError(ValueError):
    """A file that can't be parsed; the message begins with the line."""


@dataclass
class Element:
    """An XML element: its tag, its line, the text directly in it, and its children in order."""

    tag: str
    line: int
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, tag: str) -> "list[Element]":
        """The children of that tag."""
        return [child for child in self.children if child.tag == tag]

    def find(self, path: str) -> "Element | None":
        """The first descendant at a path such as ``"size/width"``."""
        element: Element | None = self
        for tag in path.split("/"):
            element = next(iter(element.all(tag)), None) if element is not None else None
        return element

    def value(self, path: str) -> str:
        """The text at a path without spaces around it; empty where there is none."""
        found = self.find(path)
        return found.text.strip() if found is not None else ""


def read_xml(path: Path) -> Element:
    """Parse a small XML file. Entities are refused: annotations need none, and they can be used to exhaust memory.

    Raises:
        MalformedFileError: it is not well-formed, with the line.
        OSError: it can't be read.
    """
    parser = expat.ParserCreate()
    root = Element("", 0)
    stack = [root]

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        element = Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        del tag
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def entity(*declaration: object) -> None:
        del declaration
        raise MalformedFileError(f"line {parser.CurrentLineNumber}: entity declarations are not read")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise MalformedFileError(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
    return root.children[0]


def json_lines(text: str, key: str) -> list[int]:
    r"""The line on which each element begins of the array or object ``key`` at the top level of a JSON text.

    An empty key means the top level itself. Only called to word a message, so it reads the text a second
    time.

    >>> json_lines('{"a": 1,\n "b": [\n  {"id": 5},\n  {"id": 6}]}', "b")
    [3, 4]
    """
    at = 0
    if key:
        at = next(value for name, _, value in _members(text, 0) if name == key)
    starts = [start for _, start, _ in _members(text, at)]
    return [text.count("\n", 0, start) + 1 for start in starts]


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(key or "", where the member begins, where its value begins) for the object or array that begins at ``at``."""
    at = _skip(text, at)
    is_object = text[at] == "{"
    at = _skip(text, at + 1)
    while text[at] not in "]}":
        start, key = at, ""
        if is_object:
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        yield key, start, at
        _, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    assert found is not None
    return found.end()
