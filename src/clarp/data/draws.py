"""Random numbers that depend on their names only, so that no order of work and no batch size changes them."""

import hashlib


def draw(*names: object) -> float:
    """A number in [0, 1), uniform over names: the first 53 bits of SHA-256 of their ``repr``.

    >>> draw(0, "a.jpg") == draw(0, "a.jpg")
    True
    >>> draw(0, "a.jpg") == draw(1, "a.jpg")
    False
    """
    digest = hashlib.sha256(repr(names).encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def below(limit: int, *names: object) -> int:
    """A whole number in 0 ... ``limit`` - 1."""
    return int(draw(*names) * limit)
