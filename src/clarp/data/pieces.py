"""Photos that are pieces of a tar file: read by their place in it, without unpacking."""

import hashlib
import socket
from dataclasses import dataclass

from clarp.data.photo import UNREADABLE, check_size, digest_of_ends
from clarp.data.problems import Problem, StoreError, UnreadableImageError
from clarp.data.stores import StoredFolder


@dataclass(frozen=True)
class Shard:
    """A tar file of a data set.

    Attributes:
        folder: where it lies.
        name: of the file.
        length: its bytes when the data set was opened.
    """

    folder: StoredFolder
    name: str
    length: int

    def check_length(self) -> None:
        """Refuse a shard that is another than the one that was opened.

        Raises:
            StoreError: it is gone, or has another length.
        """
        try:
            now = f"{self.folder.length(self.name):,}"
        except UnreadableImageError:
            now = "no"
        if now != f"{self.length:,}":
            raise StoreError(
                f"{self.folder}/{self.name} is not as it was when the data set was opened: on the machine "
                f"{socket.gethostname()} it has {now} bytes, and it had {self.length:,}. Put it back, or "
                "open the data set again."
            )


@dataclass(frozen=True)
class ShardPiece:
    """The bytes of one photo in a shard.

    Attributes:
        shard: which.
        member: the photo's name in it.
        offset: of the first byte in the shard.
        length: in bytes.
        known: what :meth:`~clarp.data.photo.Photo.digest` was of it when it was packed or found.
        sha256: of all its bytes; None: nobody noted it.
    """

    shard: Shard
    member: str
    offset: int
    length: int
    known: bytes
    sha256: bytes | None = None

    def read(self, file: str) -> bytes:
        check_size(file, self.length)
        try:
            data = self._bytes(0, self.length)
        except UnreadableImageError:
            data = b""
        if self.sha256 is None:
            if len(data) < self.length:
                self.shard.check_length()
            return data
        if hashlib.sha256(data).digest() != self.sha256:
            self.shard.check_length()
            reason = f"its bytes, {self.member} in {self.shard.name}, are not those that were packed"
            raise UnreadableImageError(Problem("damaged", file, reason))
        return data

    def digest(self, file: str, *, anew: bool) -> bytes:
        """What is known; where reading does not check all bytes, and ``anew``, by what lies there now."""
        del file
        if not anew or self.sha256 is not None:
            return self.known
        try:
            return digest_of_ends(self.length, self._bytes)
        except (OSError, UnreadableImageError):
            return UNREADABLE

    def _bytes(self, start: int, stop: int) -> bytes:
        return self.shard.folder.read(self.shard.name, self.offset + start, self.offset + stop)
