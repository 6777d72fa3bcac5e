"""The folder of a run: what it is of, who is writing, and its rows in parts that are whole or absent."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarp.data.problems import Problem
from clarp.files import has_sum, whole, write_summed
from clarp.optional import optional
from clarp.text import document as as_json
from clarp.workers.fingerprint import changes

_PURPOSE = "A run's rows"
MEAN_IMAGE = "mean_image.npy"
_RUN, _ROWS, _PROBLEMS, _LOCK = "run.json", "rows.parquet", "problems.json", ".lock"
_OF_A_RUN = ("parts/*.parquet", "pictures/*.parquet", _ROWS, _PROBLEMS, MEAN_IMAGE)
"""Files that do not say themselves of which run they are, except for the parts."""
_METADATA = b"clarp.part"


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
    """

    folder: Path

    @property
    def rows_path(self) -> Path:
        return self.folder / _ROWS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the lock goes with the process, however it ends.

        Raises:
            ValueError: another process has locked it.
        """
        filelock = optional("filelock", "A run")
        (self.folder / "parts").mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout as error:
            raise ValueError(
                f"{self.folder}: another process is at work in this folder. Wait for it, or give another "
                "--out."
            ) from error
        try:
            for place in (".", "parts", "pictures"):
                for leftover in self.folder.glob(f"{place}/.*.tmp"):
                    leftover.unlink()
            yield
        finally:
            lock.release()

    def begin(self, fingerprint: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Say what the run is of, or check that it still is.

        Raises:
            ValueError: the folder has a run of something else; the message says what changed. Or it has no
                ``run.json``, but files of a run.
        """
        path = self.folder / _RUN
        document = json.loads(json.dumps({"fingerprint": fingerprint, **about}, allow_nan=False))
        if not path.exists():
            left = [pattern for pattern in _OF_A_RUN if any(self.folder.glob(pattern))]
            if left:
                raise ValueError(
                    f"{self.folder} has {', '.join(left)} but no {_RUN}, so nobody knows of which run they "
                    "are: give another --out, or remove them."
                )
            self._write(path, document)
            return
        changed = changes(self.about()["fingerprint"], document["fingerprint"])
        if changed:
            lines = "\n".join(f"  {line}" for line in changed)
            raise ValueError(
                f"{self.folder} has a run of something else; what changed:\n{lines}\n"
                "Give another --out, or run it as it was begun."
            )

    def about(self) -> dict[str, Any]:
        """What ``run.json`` says.

        Raises:
            ValueError: there is no run in this folder.
        """
        path = self.folder / _RUN
        if not path.is_file():
            remedy = "give the folder that `clarp evaluate --out` wrote"
            raise ValueError(f"{self.folder} has no {_RUN}: {remedy}.")
        if has_sum(path) and not whole(path):
            raise ValueError(
                f"{path} is damaged: its bytes are not those that were written. Put a copy in its place, or "
                "give another --out."
            )
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def part_path(self, start: int, stop: int) -> Path:
        """The part of the samples ``start`` to ``stop - 1``."""
        return self.folder / "parts" / f"{start:08d}-{stop:08d}.parquet"

    def has(self, start: int, stop: int) -> bool:
        """Whether that part is there and whole, and of this run. A damaged one counts as missing.

        Raises:
            ValueError: there is a file of that name that is of another run.
        """
        path = self.part_path(start, stop)
        return whole(path) and self._metadata(path) is not None

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
        found = [[problem.kind, problem.file, problem.reason] for problem in problems]
        metadata = json.dumps({"run": self._digest(), "problems": found, "lost": list(lost)})
        table = arrow.table(dict(columns), schema=schema.with_metadata({_METADATA: metadata.encode()}))
        write_summed(self.part_path(start, stop), lambda file: parquet.write_table(table, file))

    def write_pictures(
        self, start: int, stop: int, columns: Mapping[str, Sequence[Any]], schema: Any
    ) -> None:
        """Write the pictures of a part, row by row, whole or not at all; before its rows."""
        arrow, parquet = optional("pyarrow", _PURPOSE), optional("pyarrow.parquet", _PURPOSE)
        table = arrow.table(dict(columns), schema=schema)
        path = self._pictures_path(self.part_path(start, stop))
        path.parent.mkdir(exist_ok=True)
        write_summed(path, lambda file: parquet.write_table(table, file, compression="zstd"))

    def part_rows(self) -> list[int]:
        """How many rows each part has, in order."""
        parquet = optional("pyarrow.parquet", _PURPOSE)
        return [parquet.read_metadata(path).num_rows for path in self._whole_parts()]

    def pictures(self) -> Iterator[Any]:
        """Of each part in order its pictures, a pyarrow table row by row, or None where none were kept."""
        parquet = optional("pyarrow.parquet", _PURPOSE)
        for path, count in zip(self._whole_parts(), self.part_rows(), strict=True):
            shown = self._pictures_path(path)
            table = parquet.read_table(shown) if whole(shown) else None
            yield table if table is not None and len(table) == count else None

    def _pictures_path(self, part: Path) -> Path:
        return self.folder / "pictures" / part.name

    def merge(self, ranges: Sequence[tuple[int, int]], listed: Sequence[Problem]) -> list[Problem]:
        """Write ``rows.parquet`` and ``problems.json`` from all parts, and return all problems.

        Args:
            ranges: of the parts, in order.
            listed: the problems that the data set knew of before.
        """
        parquet = optional("pyarrow.parquet", _PURPOSE)
        paths = [self.part_path(*ends) for ends in ranges]
        for path in paths:
            if not whole(path):
                raise ValueError(
                    f"{path} was damaged while the run was at work: give the same command again."
                )
        problems = list(listed)
        for path in paths:
            problems += [Problem(*problem) for problem in self._metadata(path)["problems"]]
        schema = parquet.read_schema(paths[0]).remove_metadata()

        def write(file: Any) -> None:
            with parquet.ParquetWriter(file, schema) as writer:
                for path in paths:
                    writer.write_table(parquet.read_table(path).replace_schema_metadata(None))

        write_summed(self.rows_path, write)
        entries = [{"kind": p.kind, "file": p.file, "reason": p.reason} for p in problems]
        self._write(self.folder / _PROBLEMS, {"count": len(entries), "problems": entries})
        return problems

    def rows(self) -> Any:
        """All rows that there are, a pyarrow table.

        Raises:
            ValueError: not one part is there.
        """
        arrow, parquet = optional("pyarrow", _PURPOSE), optional("pyarrow.parquet", _PURPOSE)
        if self.complete:
            return parquet.read_table(self.rows_path)
        paths = self._whole_parts()
        if not paths:
            raise ValueError(f"{self.folder} has no rows yet: let `clarp evaluate` finish at least one part.")
        return arrow.concat_tables([parquet.read_table(path).replace_schema_metadata(None) for path in paths])

    def problems(self) -> int:
        """How many files gave no rows, as far as the run has come."""
        path = self.folder / _PROBLEMS
        if whole(path):
            return int(json.loads(path.read_text(encoding="utf-8"))["count"])
        return sum(len(self._metadata(path)["problems"]) for path in self._whole_parts())

    @property
    def complete(self) -> bool:
        """Whether the table of all rows is there, and whole."""
        return whole(self.rows_path)

    def damaged(self) -> tuple[str, ...]:
        """Files of the run whose bytes are not those that were written, by their names below the folder.

        Without a checksum, a file counts as damaged.
        """
        paths = [path for pattern in _OF_A_RUN for path in sorted(self.folder.glob(pattern))]
        return tuple(path.relative_to(self.folder).as_posix() for path in paths if not whole(path))

    def _whole_parts(self) -> list[Path]:
        """The parts in order, but for those that are damaged."""
        return [path for path in sorted(self.folder.glob("parts/*.parquet")) if whole(path)]

    def lost(self) -> tuple[str, ...]:
        """Methods that lost more than half of the relevance on the way to the pixels, by the parts so far."""
        names = (name for path in self._whole_parts() for name in self._metadata(path).get("lost", ()))
        return tuple(dict.fromkeys(names))

    def _metadata(self, path: Path) -> Any:
        """What a part says of itself."""
        parquet = optional("pyarrow.parquet", _PURPOSE)
        try:
            metadata = json.loads((parquet.read_schema(path).metadata or {})[_METADATA])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(f"{path} is damaged. Remove it, and the run makes it again.") from error
        if metadata["run"] != self._digest():
            raise ValueError(f"{path} belongs to another run. Remove it, and the run makes its own.")
        return metadata

    def _digest(self) -> str:
        text = json.dumps(self.about()["fingerprint"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @staticmethod
    def _write(path: Path, document: object) -> None:
        text = as_json(document) + "\n"
        write_summed(path, lambda file: file.write(text.encode()))
