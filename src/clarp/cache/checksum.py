"""The form of every file of the cache: the SHA-256 of what follows, as digits, then what follows."""

import hashlib

_LENGTH = 64


def with_checksum(payload: bytes) -> bytes:
    """The content of a file."""
    return _digest(payload) + payload


def without_checksum(content: bytes) -> bytes:
    """What follows the checksum.

    Raises:
        ValueError: the checksum is that of other bytes.
    """
    payload = content[_LENGTH:]
    if _digest(payload) != content[:_LENGTH]:
        raise ValueError("the checksum is another")
    return payload


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()
