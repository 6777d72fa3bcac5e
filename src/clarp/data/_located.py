"""Text, XML, JSON and CSV with line numbers, so that a message can say where an annotation is wrong."""

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from xml.parsers import expat

from clarp.files import read_regular

_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_XML_BYTES, _TEXT_BYTES = 16 << 20, 2 << 30
_DEPTH = 500
_NESTING = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_LONG = re.compile(rf"\d{{{sys.int_info.default_max_str_digits},}}")


class MalformedFileError(ValueError):
    """A file that can't be parsed; the message begins with the line."""


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which a name is there more than once; the last one's value counts."""

    def __init__(self, members: Sequence[tuple[str, Any]]) -> None:
        super().__init__(members)
        count = Counter(name for name, _ in members)
        self.repeated = tuple(name for name in self if count[name] > 1)


@dataclass(frozen=True)
class TableRow:
    """A row of a CSV table: where it ends, and the cells that were asked for, or why they can't be told."""

    line: int
    cells: tuple[str, ...]
    wrong: str = ""


@dataclass
class Element:
    """An XML element: its tag, its line, the text directly in it, and its children in order."""

    tag: str
    line: int
    text: str = ""
    children: "list[Element]" = field(default_factory=list)

    def all(self, tag: str) -> "list[Element]":
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
    """Parse an XML file of at most 16 MiB.

    Entities are refused: annotations need none, and they can be used to exhaust memory. defusedxml refuses
    them too, but its elements have no line numbers for the messages.

    Raises:
        MalformedFileError: it is not well-formed, in an unknown encoding or nested too deeply, with the line.
        OSError: it can't be read, is no file or too large.
    """
    parser = expat.ParserCreate()
    parser.buffer_text = True  # letter by letter, long texts would be copied again and again
    root = Element("", 0)
    stack = [root]

    texts: list[list[str]] = [[]]

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        if len(stack) > _DEPTH:
            reason = f"line {parser.CurrentLineNumber}: more than {_DEPTH} elements in each other"
            raise MalformedFileError(reason)
        texts.append([])
        element = Element(tag, parser.CurrentLineNumber)
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        del tag
        stack.pop().text = "".join(texts.pop())

    def text(data: str) -> None:
        texts[-1].append(data)

    def entity(*declaration: object) -> None:
        del declaration
        raise MalformedFileError(f"line {parser.CurrentLineNumber}: entity declarations are not read")

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = entity
    content = read_regular(path, _XML_BYTES)
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise MalformedFileError(f"line {error.lineno}: {expat.ErrorString(error.code)}") from error
    except MalformedFileError:
        raise
    except (ValueError, LookupError, TypeError) as error:  # of an encoding that Python looks for
        reason = f"line {parser.CurrentLineNumber}: the encoding can't be read ({error})"
        raise MalformedFileError(reason) from error
    return root.children[0]


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is in another encoding, with file and line.
        OSError: it can't be read.
    """
    return decoded(read_regular(path, _TEXT_BYTES), path)


def decoded(content: bytes, path: Path | str) -> str:
    """The text of a file that was read, which messages call ``path``.

    Raises:
        ValueError: it is not in UTF-8, with file and line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{path}:{line}: not UTF-8 ({error.reason} {content[error.start]:#04x}): save the file as UTF-8"
        ) from error


def read_json(path: Path, remedy: str) -> tuple[str, Any]:
    """The text of a JSON file and its content; an object with a name twice is a :class:`RepeatedKeys`.

    Raises:
        ValueError: it is not JSON or not UTF-8, with file and line; ``remedy`` ends the message.
        OSError: it can't be read.
    """
    text = read_text(path)
    try:
        return text, json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}): {remedy}") from error
    except RecursionError as error:
        raise ValueError(
            f"{path}:{_deepest(text)}: lists and objects more than {_DEPTH} deep: {remedy}"
        ) from error
    except ValueError as error:  # Python refuses numbers of thousands of digits
        raise ValueError(f"{path}:{_longest(text)}: a number of thousands of digits: {remedy}") from error


def _deepest(text: str) -> int:
    """The line where lists and objects are nested too deeply."""
    depth = 0
    for token in _NESTING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > _DEPTH:
            return text.count("\n", 0, token.start()) + 1
    return 1


def _longest(text: str) -> int:
    """The line of a number with more digits than Python counts."""
    found = _LONG.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(members)
    return record if len(record) == len(members) else RepeatedKeys(members)


def header(path: Path | str, text: str | None = None) -> list[str]:
    """The column names of a CSV table; none where the file is empty.

    Args:
        path: the table.
        text: what is in it; None: the file is read.

    Raises:
        ValueError: it is not UTF-8 or not CSV, with file and line.
    """
    _, names = next(_csv(path, text), (0, []))
    return [name.strip() for name in names]


def read_rows(
    path: Path | str, columns: Sequence[str], remedy: str, text: str | None = None
) -> Iterator[TableRow]:
    """The rows of a CSV table with a header line; empty lines are left out.

    Args:
        path: the table.
        columns: the names of the columns that are wanted.
        remedy: ends the message where the header has no such column.
        text: as of :func:`header`.

    Raises:
        ValueError: no such column, or not UTF-8 or CSV; with the file's name.
    """
    lines = _csv(path, text)
    names = [name.strip() for name in next(lines, (0, []))[1]]
    absent = [name for name in columns if name not in names]
    if absent:
        raise ValueError(
            f"{path} has no column {' and no column '.join(map(repr, absent))}; it has "
            f"{', '.join(names) or 'no header'}: {remedy}"
        )
    places = [names.index(name) for name in columns]
    for line, cells in lines:
        if any(cell.strip() for cell in cells[len(names) :]):
            reason = f"{len(cells)} cells, the header has {len(names)}: put quotes around a cell with a comma"
            yield TableRow(line, (), reason)
        elif len(cells) <= max(places):
            yield TableRow(
                line, (), f"{len(cells)} cells, expected {len(names)} as in the header: add the others"
            )
        else:
            yield TableRow(line, tuple(cells[place].strip() for place in places))


def _csv(path: Path | str, text: str | None) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each line that isn't empty; the first is the header."""
    reader = csv.reader(StringIO(read_text(Path(path)) if text is None else text, newline=""))
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV ({error}): correct that line") from error


def json_lines(text: str, key: str) -> list[int]:
    r"""The line on which each element begins of the array or object ``key`` at the top level of a JSON text.

    Only called to word a message, so it reads the text a second time.

    >>> json_lines('{"a": 1,\n "b": [\n  {"id": 5},\n  {"id": 6}]}', "b")
    [3, 4]
    """
    # Of a key that is there twice, the last one counts, as for Python's parser.
    at = [value for name, _, value in _members(text, 0) if name == key][-1]
    return list(_lines(text, (start for _, start, _ in _members(text, at))))


def json_keys(text: str) -> list[tuple[str, int]]:
    r"""Each key at the top level of a JSON text with the line on which it stands, as often as it is there.

    >>> json_keys('{"a": 1,\n "b": 2, "a": 3}')
    [('a', 1), ('b', 2), ('a', 2)]
    """
    found = [(key, start) for key, start, _ in _members(text, 0)]
    lines = _lines(text, (start for _, start in found))
    return [(key, line) for (key, _), line in zip(found, lines, strict=True)]


def _lines(text: str, starts: Iterable[int]) -> Iterator[int]:
    """The lines of ascending places in a text, each counted from the one before: in linear time."""
    line, last = 1, 0
    for start in starts:
        line += text.count("\n", last, start)
        last = start
        yield line


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """(key or "", start of the member, start of its value) for the object or array that starts at ``at``."""
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
