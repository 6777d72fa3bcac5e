"""Pictures as files of an image format."""

import struct
from io import BytesIO
from typing import Any, Literal, get_args

import numpy as np
from isal import isal_zlib
from PIL import Image

Format = Literal["png", "jpg", "webp"]
PIXEL_FORMATS: tuple[Format, ...] = get_args(Format)
"""``png`` and ``webp`` keep every colour as it was drawn; ``jpg`` is near it, and smaller."""

_PILLOW: dict[Format, dict[str, Any]] = {
    # Hue is what a map says, so colours are not kept at half the resolution, as is usual.
    "jpg": {"format": "JPEG", "quality": 90, "subsampling": 0},
    "webp": {"format": "WEBP", "lossless": True, "method": 0, "quality": 0},
}
_COLOUR_TYPES = {"RGB": 2, "RGBA": 6}
_UP = 2  # the filter "up": of each byte the difference from the one above it


def encoded(picture: Image.Image, kind: Format = "png") -> bytes:
    """The bytes of a file.

    Args:
        picture: RGB, or as PNG and WebP RGBA.
        kind: the format.

    Raises:
        OSError: Pillow can't write this format.

    >>> encoded(Image.new("RGB", (4, 4)))[1:4]
    b'PNG'
    """
    if kind == "png":
        return _png(picture)
    file = BytesIO()
    picture.save(file, **_PILLOW[kind])
    return file.getvalue()


def _png(picture: Image.Image) -> bytes:
    """A PNG (ISO/IEC 15948) whose rows all have the filter "up", compressed by ISA-L.

    Pillow tries five filters for each row, which takes as long as drawing the picture. This takes a fifth
    of that, for files of about the same size (docs/performance.md).
    """
    pixels = np.asarray(picture)
    height, width = pixels.shape[:2]
    pixels = pixels.reshape(height, -1)
    rows = np.empty((height, 1 + pixels.shape[1]), np.uint8)
    rows[:, 0], rows[0, 1:] = _UP, pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[picture.mode], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", isal_zlib.compress(rows.data, level=1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", isal_zlib.crc32(kind + data))
        for kind, data in chunks
    )
