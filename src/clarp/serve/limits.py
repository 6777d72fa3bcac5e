"""What one request may ask for, and what all of them together may hold."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of memory and time; a request beyond them gets a clear refusal.

    Attributes:
        photo_bytes: of one upload.
        bytes_at_once: of all uploads that wait or are worked on.
        pixels: width times height of a photo.
        aspect: its longer side in units of the shorter one. Most preprocessings make the shorter side a fixed
            length, so a thin strip of few pixels would become a picture of many gigabytes.
        upload_seconds: for a photo to arrive.
        seconds: from there to the answer.
        waiting: requests in the queue of a model, besides the one being worked on.
        targets: classes explained by one request.
        against: classes that they are contrasted with.
        maps: targets times methods.
        side: pixels of a picture's longer side.
        drawn: pixels of all pictures of an answer: maps times the square of their side.
        regions: rectangles of a mask.
        sizes: shapes of preprocessed pictures that are kept captured.
        photos: preprocessed pictures that are kept for the next request.
    """

    photo_bytes: int = 25 * 2**20
    bytes_at_once: int = 256 * 2**20
    pixels: int = 50_000_000
    aspect: int = 20
    upload_seconds: float = 30.0
    seconds: float = 60.0
    waiting: int = 64
    targets: int = 6
    against: int = 100
    maps: int = 24
    side: int = 2048
    drawn: int = 8_500_000
    regions: int = 1000
    sizes: int = 8
    photos: int = 16
