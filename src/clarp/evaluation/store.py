"""The folder of a run: what it is of, who is writing, and its rows in parts that are whole or absent."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from clarp.background import ahead
from clarp.data.problems import Problem
from clarp.evaluation.files import RunFiles, run_files
from clarp.optional import optional
from clarp.text import document as as_json
from clarp.workers.fingerprint import changes

_PURPOSE = "A run's rows"
MEAN_IMAGE = "mean_image.npy"
ROWS, PROBLEMS = "rows.parquet", "problems.json"
_RUN, _PARTS = "run.json", "parts/*.parquet"
_OF_A_RUN = (_PARTS, "pictures/*.parquet", ROWS, PROBLEMS, MEAN_IMAGE)
"""Files that do not say themselves of which run they are, except for the parts."""
_METADATA = b"clarp.part"

Found = TypeVar("Found")


def part_name(start: int, stop: int) -> str:
    """The part of the samples ``start`` to ``stop - 1``.

    >>> part_name(0, 16)
    'parts/00000000-00000016.parquet'
    """
    return f"parts/{start:08d}-{stop:08d}.parquet"


def _pictures_name(part: str) -> str:
    return part.replace("parts/", "pictures/", 1)


@dataclass(frozen=True)
class _PartSaid:
    """What a part says of itself: its rows' number, the problems of its range, and lossy methods."""

    rows: int
    problems: tuple[Problem, ...]
    lost: tuple[str, ...]


@dataclass
class _StoreMemory:
    """What is known of files that never change."""

    parts: dict[str, _PartSaid] = field(default_factory=dict)
    digest: str | None = None


@dataclass(frozen=True)
class Store:
    """A run's folder.

    ====================  ==========================================================================
    ``run.json``          the fingerprint (what must not change) and what a report needs to know
    ``parts/*.parquet``   rows of fixed ranges of samples, each with the problems found in its range
    ``pictures/*``        small pictures of the same ranges, row by row; a range may have none
    ``rows.parquet``      all rows, when the last part is there
    ``problems.json``     every file that gave no rows, with the reason
    ``mean_image.npy``    the mean of the preprocessed images, where a metric asks for it
    ``*.sha256``          beside each of these the checksum of its bytes
    ====================  ==========================================================================

    In an object store the checksum is a part of the name instead: ``rows.SHA256.parquet``.

    Attributes:
        folder: a path, or a URL such as ``s3://bucket/run``.
    """

    folder: str | Path
    _memory: _StoreMemory = field(default_factory=_StoreMemory, init=False, repr=False, compare=False)

    @cached_property
    def files(self) -> RunFiles:
        """The files, with their checksums."""
        return run_files(self.folder)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder, on a disk; the lock goes with the process, however it ends.

        Raises:
            ValueError: another process has locked it.
        """
        return self.files.locked()

    def begin(self, fingerprint: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Say what the run is of, or check that it still is.

        Raises:
            ValueError: the folder has a run of something else; the message says what changed. Or it has no
                ``run.json``, but files of a run.
        """
        document = json.loads(json.dumps({"fingerprint": fingerprint, **about}, allow_nan=False))
        left = [pattern for pattern in _OF_A_RUN if self.files.names(pattern)]
        if left and not self.files.names(_RUN):
            raise ValueError(
                f"{self.folder} has {', '.join(left)} but no {_RUN}, so nobody knows of which run they "
                "are: give another --out, or remove them."
            )
        if not left and not any(self.files.contents(_RUN, unsummed=True)):
            self._begin(document)
            return
        changed = changes(self.about()["fingerprint"], document["fingerprint"])
        if changed:
            lines = "\n".join(f"  {line}" for line in changed)
            raise ValueError(
                f"{self.folder} has a run of something else; what changed:\n{lines}\n"
                "Give another --out, or run it as it was begun."
            )

    def _begin(self, document: Mapping[str, Any]) -> None:
        """Write ``run.json``; where nobody can hold the folder, whoever sees another one withdraws."""
        written = self._write(_RUN, document)
        self.files.refresh()
        found = [json.loads(content)["fingerprint"] for content in self.files.contents(_RUN)]
        if any(fingerprint != document["fingerprint"] for fingerprint in found):
            self.files.remove(written)
            raise ValueError(
                f"{self.folder}: another process began a run of something else there at this moment. Give "
                "another --out."
            )

    def about(self) -> dict[str, Any]:
        """What ``run.json`` says.

        Raises:
            ValueError: there is no run in this folder.
        """
        if not self.files.names(_RUN):
            remedy = "give the folder that `clarp evaluate --out` wrote"
            raise ValueError(f"{self.folder} has no {_RUN}: {remedy}.")
        found: list[dict[str, Any]] = list(map(json.loads, self.files.contents(_RUN, unsummed=True)))
        if not found:
            raise ValueError(
                f"{self.folder}/{_RUN} is damaged: its bytes are not those that were written. Put a copy in "
                "its place, or give another --out."
            )
        if any(one["fingerprint"] != found[0]["fingerprint"] for one in found):
            raise ValueError(f"{self.folder} has a {_RUN} of two runs: remove one, or give another --out.")
        return found[0]

    def has(self, start: int, stop: int) -> bool:
        """Whether that part is there and whole, and of this run. A damaged one counts as missing.

        Raises:
            ValueError: there is a file of that name that is of another run.
        """
        return self._part(part_name(start, stop)) is not None

    def missing(self, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The parts that are missing or damaged, in order.

        Raises:
            ValueError: one is of another run.
        """
        there = set(self.files.names(_PARTS))
        found = self._ahead(lambda ends: part_name(*ends) in there and self.has(*ends), ranges)
        return [ends for ends, has in zip(ranges, found, strict=True) if not has]

    def write_part(
        self,
        start: int,
        stop: int,
        columns: Mapping[str, Sequence[Any]],
        schema: Any,
        problems: Iterable[Problem],
        *,
        lost: Iterable[str] = (),
    ) -> None:
        """Write a part, whole or not at all.

        Args:
            start: number of its first sample.
            stop: number behind that of its last.
            columns: its rows.
            schema: of the rows.
            problems: files that gave none.
            lost: methods with which, so far, more than half of the relevance never reached the pixels.
        """
        arrow, parquet = optional("pyarrow", _PURPOSE), optional("pyarrow.parquet", _PURPOSE)
        known = _PartSaid(len(next(iter(columns.values()), ())), tuple(problems), tuple(lost))
        found = [[problem.kind, problem.file, problem.reason] for problem in known.problems]
        metadata = json.dumps({"run": self._digest(), "problems": found, "lost": list(known.lost)})
        table = arrow.table(dict(columns), schema=schema.with_metadata({_METADATA: metadata.encode()}))
        name = part_name(start, stop)
        self.files.write(name, lambda file: parquet.write_table(table, file))
        self._remember(name, known)

    def write_pictures(
        self, start: int, stop: int, columns: Mapping[str, Sequence[Any]], schema: Any
    ) -> None:
        """Write the pictures of a part, row by row, whole or not at all; before its rows."""
        arrow, parquet = optional("pyarrow", _PURPOSE), optional("pyarrow.parquet", _PURPOSE)
        table = arrow.table(dict(columns), schema=schema)
        name = _pictures_name(part_name(start, stop))
        self.files.write(name, lambda file: parquet.write_table(table, file, compression="zstd"))

    def part_rows(self) -> list[int]:
        """How many rows each part has, in order."""
        return [part.rows for part in self._whole_parts().values()]

    def pictures(self) -> Iterator[Any]:
        """Of each part in order its pictures, a pyarrow table row by row, or None where none were kept."""
        parquet = optional("pyarrow.parquet", _PURPOSE)

        def shown(name: str) -> Any:
            data = self.files.read(_pictures_name(name))
            return None if data is None else parquet.read_table(BytesIO(data))

        parts = self._whole_parts()
        for part, table in zip(parts.values(), self._ahead(shown, list(parts)), strict=True):
            yield table if table is not None and len(table) == part.rows else None

    def merge(self, ranges: Sequence[tuple[int, int]], listed: Sequence[Problem]) -> list[Problem]:
        """Write ``rows.parquet`` and ``problems.json`` from all parts, and return all problems.

        Args:
            ranges: of the parts, in order.
            listed: the problems that the data set knew of before.
        """
        parquet = optional("pyarrow.parquet", _PURPOSE)
        names = [part_name(*ends) for ends in ranges]
        problems = list(listed)
        for name, part in zip(names, self._ahead(self._part, names), strict=True):
            if part is None:
                raise _damaged_meanwhile(f"{self.folder}/{name}")
            problems += part.problems

        def write(file: Any) -> None:
            tables = self._tables(names)
            first = next(tables)
            with parquet.ParquetWriter(file, first.schema) as writer:
                writer.write_table(first)
                for table in tables:
                    writer.write_table(table)

        self.files.write(ROWS, write)
        entries = [{"kind": p.kind, "file": p.file, "reason": p.reason} for p in problems]
        self._write(PROBLEMS, {"count": len(entries), "problems": entries})
        return problems

    def rows(self) -> Any:
        """All rows that there are, a pyarrow table.

        Raises:
            ValueError: not one part is there.
        """
        arrow, parquet = optional("pyarrow", _PURPOSE), optional("pyarrow.parquet", _PURPOSE)
        if self.complete:
            return parquet.read_table(self.files.source(ROWS))
        names = list(self._whole_parts())
        if not names:
            raise ValueError(f"{self.folder} has no rows yet: let `clarp evaluate` finish at least one part.")
        return arrow.concat_tables(self._tables(names))

    def problems(self) -> int:
        """How many files gave no rows, as far as the run has come."""
        data = self.files.read(PROBLEMS)
        if data is not None:
            return int(json.loads(data)["count"])
        return sum(len(part.problems) for part in self._whole_parts().values())

    @property
    def complete(self) -> bool:
        """Whether the table of all rows is there, and whole."""
        return self.files.whole(ROWS)

    def damaged(self) -> tuple[str, ...]:
        """Files of the run whose bytes are not those that were written, by their names below the folder.

        Without a checksum, a file counts as damaged.
        """
        names = [name for pattern in _OF_A_RUN for name in self.files.names(pattern)]
        found = self._ahead(self.files.whole, names)
        return tuple(name for name, whole in zip(names, found, strict=True) if not whole)

    def lost(self) -> tuple[str, ...]:
        """Methods that lost more than half of the relevance on the way to the pixels, by the parts so far."""
        return tuple(dict.fromkeys(name for part in self._whole_parts().values() for name in part.lost))

    def _whole_parts(self) -> dict[str, _PartSaid]:
        """The parts in order, but for those that are damaged."""
        names = self.files.names(_PARTS)
        found = zip(names, self._ahead(self._part, names), strict=True)
        return {name: part for name, part in found if part is not None}

    def _tables(self, names: Sequence[str]) -> Iterator[Any]:
        """The rows of parts, in order."""
        parquet = optional("pyarrow.parquet", _PURPOSE)

        def table(name: str) -> Any:
            data = self.files.read(name)
            if data is None:
                raise _damaged_meanwhile(f"{self.folder}/{name}")
            return parquet.read_table(BytesIO(data)).replace_schema_metadata(None)

        return self._ahead(table, names)

    def _part(self, name: str) -> _PartSaid | None:
        """What a part says of itself; None where it is missing or damaged.

        Raises:
            ValueError: it is none, or of another run.
        """
        if name in self._memory.parts:
            return self._memory.parts[name]
        data = self.files.read(name)
        if data is None:
            return None
        try:
            footer = optional("pyarrow.parquet", _PURPOSE).read_metadata(BytesIO(data))
            said = json.loads((footer.metadata or {})[_METADATA])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{self.folder}/{name} is damaged. Remove it, and the run makes it again."
            ) from error
        if said["run"] != self._digest():
            raise ValueError(
                f"{self.folder}/{name} belongs to another run. Remove it, and the run makes its own."
            )
        problems = tuple(Problem(*problem) for problem in said["problems"])
        return self._remember(name, _PartSaid(footer.num_rows, problems, tuple(said.get("lost", ()))))

    def _remember(self, name: str, part: _PartSaid) -> _PartSaid:
        if self.files.fixed:
            self._memory.parts[name] = part
        return part

    def _digest(self) -> str:
        if self._memory.digest is not None:
            return self._memory.digest
        text = json.dumps(self.about()["fingerprint"], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if self.files.fixed:
            self._memory.digest = digest
        return digest

    def _ahead(self, work: Callable[[Any], Found], items: Sequence[Any]) -> Iterator[Found]:
        """``map`` in order, with as many requests at once as the files are best read with."""
        if self.files.at_once == 1:
            return map(work, items)
        return ahead(work, items, most=2 * self.files.at_once, workers=self.files.at_once)

    def _write(self, name: str, document: object) -> str:
        text = as_json(document) + "\n"
        return self.files.write(name, lambda file: file.write(text.encode()))


def _damaged_meanwhile(place: str) -> ValueError:
    return ValueError(f"{place} was damaged while the run was at work: give the same command again.")
