"""Pictures of few bytes that ask for much: of time, or of memory."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG with many scans in which nothing changes."""
    whole = saved(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    # The last scan refines coefficients 1 to 63; without a bit set it says "all blocks are as they were" in few bytes.
    ends = [place for place in range(len(whole) - 1) if whole[place : place + 2] == b"\xff\xda"]
    last = whole[ends[-1] : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


def segments(count: int, kind: bytes = b"\xff\xe1", begin: bytes = b"Exif\0\0") -> bytes:
    """A JPEG with many short segments of EXIF, which Pillow adds to each other."""
    whole = saved(Image.new("L", (8, 8)), "JPEG")
    one = kind + struct.pack(">H", len(begin) + 2 + 4) + begin + b"MM\0*"
    return whole[:2] + one * count + whole[2:]


def comments(size: int) -> bytes:
    """A GIF with one comment in pieces of 255 bytes."""
    whole = saved(Image.new("P", (8, 8)), "GIF")
    place = whole.index(b"\x2c", 13)
    return whole[:place] + b"\x21\xfe" + (b"\xff" + b"x" * 255) * (size // 256) + b"\0" + whole[place:]


def png(width: int, height: int, depth: int, colour: int, *extra: bytes) -> bytes:
    """A PNG of zeros, packed without unpacking it here: a row at a time."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = b"\0" * (1 + (width * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def inflated(kind: bytes, begin: bytes, size: int, count: int = 1) -> bytes:
    """A PNG with compressed text or a colour profile of many zeros."""
    one = chunk(kind, begin + zlib.compress(b"\0" * size, 9))
    return png(8, 8, 8, 2, *[one] * count)


def tiff(count: int) -> bytes:
    """A TIFF one of whose tags says that it has many values."""
    whole = bytearray(saved(Image.new("L", (8, 8)), "TIFF"))
    place = struct.unpack_from("<I", whole, 4)[0]
    struct.pack_into("<HHI", whole, place + 2 + 12 * 3, 700, 1, count)
    return bytes(whole)


def strips(width: int, height: int) -> bytes:
    """A TIFF all of whose strips are the same few compressed bytes."""
    packed = zlib.compress(b"\0" * width, 9)
    data = 8
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (278, 4, 1, 1),
    ]
    ifd = data + len(packed)
    offsets = ifd + 2 + 12 * (len(tags) + 2) + 4
    tags += [(273, 4, height, offsets), (279, 4, height, offsets + 4 * height)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    end = struct.pack("<I", data) * height + struct.pack("<I", len(packed)) * height
    return (
        b"II*\0" + struct.pack("<I", ifd) + packed + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + end
    )


def frames(kind: str, count: int, side: int = 64) -> bytes:
    """A moving picture; the first of its frames counts."""
    images = [Image.fromarray(np.full((side, side, 3), n % 251, dtype=np.uint8)) for n in range(count)]
    return saved(images[0], kind, save_all=True, append_images=images[1:])
