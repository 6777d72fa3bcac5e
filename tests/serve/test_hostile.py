"""Damaged, hostile and odd files and requests: each gets the right answer or a clear 4xx, and the server lives."""

import base64
import http.client
import io
import json
import random
import signal
import socket
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import bombs
from clarp import decoding
from serve.servers import SIDE, photo, preprocess

PIXELS = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


def saved(image: Image.Image = PICTURE, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_head(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


GIF_SCREEN = b"GIF89a" + struct.pack("<HH", 9, 9) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"


def gif_head(width: int, height: int) -> bytes:
    """A frame that is larger than the screen that the file announces."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\0"
    return GIF_SCREEN + frame + b"\x3b"


def bmp_head(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + info + b"\0" * 100


def tiff_head(width: int, height: int) -> bytes:
    tags = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (279, 4, 100),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + b"\0" * 200


def jpeg_head(width: int, height: int) -> bytes:
    whole = saved(kind="JPEG")
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def webp_head(width: int, height: int) -> bytes:
    whole = bytearray(saved(kind="WEBP", lossless=True))
    place = whole.index(b"VP8L") + 9
    whole[place : place + 4] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(whole)


def flipped(data: bytes, seed: int) -> bytes:
    """A file with some bytes changed anywhere."""
    chance = random.Random(seed)
    broken = bytearray(data)
    for _ in range(chance.choice([1, 3, 20])):
        broken[chance.randrange(len(broken))] = chance.randrange(256)
    return bytes(broken)


ENCODED = {kind: saved(kind=kind) for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")}
HUGE: dict[str, Callable[[int, int], bytes]] = {
    "png": png_head,
    "bmp": bmp_head,
    "tiff": tiff_head,
    "jpeg": jpeg_head,
    "gif": gif_head,
}
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'><script>alert(1)</script></svg>"

REFUSED: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 422),
    "one byte": (b"\xff", 422),
    "text": (b"not a photo", 422),
    "html": (b"<!doctype html><script>alert(1)</script>", 422),
    "svg": (SVG, 422),
    "svg that loads a file": (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><svg>&e;</svg>", 422),
    "pdf": (b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj", 422),
    "eps that runs a command": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\n%%EOF",
        422,
    ),
    "zip": (b"PK\x03\x04" + b"\0" * 100, 422),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 100, 422),
    "pickle": (b"\x80\x04\x95\x20\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93.", 422),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr': '<f4'}" + b" " * 100, 422),
    "python": (b"import os; os.abort()", 422),
    "radiance hdr": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 4 +X 4\n" + b"\2\2\0\4" * 20, 422),
    "openexr": (b"\x76\x2f\x31\x01" + b"\0" * 100, 422),
    "floating tiff": (saved(Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)), "TIFF"), 422),
    "32-bit tiff beyond 16 bits": (saved(Image.new("I", (4, 4), 70_000), "TIFF"), 422),
    "photoshop": (b"8BPS\0\1" + b"\0" * 100, 422),
    "icon": (saved(kind="ICO"), 422),
    "jpeg 2000": (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 100, 422),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100, 422),
    "fits": (b"SIMPLE  =                    T" + b" " * 2850, 422),
    "ppm": (saved(kind="PPM"), 422),
    "tga": (saved(kind="TGA"), 422),
    "riff without webp": (b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 100, 422),
    "png signature alone": (b"\x89PNG\r\n\x1a\n", 422),
    "png without pixels": (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0)),
        422,
    ),
    "png of no width": (png_head(0, 9), 422),
    "png of an unknown colour type": (png_head(9, 9, colour=5), 422),
    "png of 3 bits": (png_head(9, 9, depth=3), 422),
    "png with too few pixels": (png_head(400, 400), 422),
    "jpeg signature alone": (b"\xff\xd8\xff", 422),
    "gif without a frame": (GIF_SCREEN + b"\x3b", 422),
    "bmp with too few pixels": (bmp_head(900, 900), 422),
    "a thin strip": (photo((1, 1000)), 422),
    "a flat strip": (photo((5000, 2)), 422),
    "a strip of few bytes": (saved(Image.new("1", (1, 200_000))), 422),
    "a size that the preprocessing fails on": (photo((13, 13)), 422),
    "a form": (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../x.png"\r\n\r\nx\r\n--x--',
        422,
    ),
    "base64": (b"data:image/png;base64,iVBORw0KGgo=", 422),
    "json": (b'{"image": "/etc/passwd"}', 422),
    "a path": (b"/etc/passwd", 422),
    "a url": (b"http://169.254.169.254/latest/meta-data", 422),
    "zeros": (b"\0" * 100_000, 422),
    "a bomb of zlib": (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 2, 0, 0, 0))
        + chunk(b"zTXt", b"x\0\0" + zlib.compress(b"\0" * 80_000_000, 9)),
        422,
    ),
    **{f"noise {seed}": (random.Random(seed).randbytes(2000), 422) for seed in range(5)},
    **{f"{kind} of 60000 x 60000": (head(60_000, 60_000), 413) for kind, head in HUGE.items()},
    **{f"{kind} of 9000 x 9000": (head(9_000, 9_000), 413) for kind, head in HUGE.items()},
    "webp of 16000 x 16000": (webp_head(16_000, 16_000), 413),
    "tiff of 4 thousand million x 4 thousand million": (tiff_head(2**32 - 1, 2**32 - 1), 413),
    **{
        f"{kind} cut to {share} %": (data[: len(data) * share // 100], 422)
        for kind, data in ENCODED.items()
        for share in (5, 20, 50)
    },
}


@pytest.fixture
def ask(address):
    """Send a body and get (status, body) back, over a connection of its own, as strict as can be."""
    host, port = address.removeprefix("http://").split(":")

    def send(body: bytes, path: str = "/api/predict", headers: dict[str, str] | None = None):
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request("POST", path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return send


def alive(ask) -> None:
    assert ask(photo())[0] == 200


@pytest.mark.parametrize("which", REFUSED)
def test_refused(ask, which):
    data, status = REFUSED[which]
    found, told = ask(data)
    assert found == status, told
    assert told.startswith(b'{"detail":"')
    assert len(told) > 30
    alive(ask)


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


def sixteen(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
WHITE = Image.new("RGBA", PICTURE.size, "white")
CLEAR = PICTURE.convert("RGBA")
CLEAR.putalpha(Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40).astype(np.uint8)))
CMYK = PICTURE.convert("CMYK")
PALETTE = PICTURE.quantize(16)
ANIMATED = {"save_all": True, "append_images": [Image.new("RGB", PICTURE.size, "red")] * 3}
# The file, and the picture that it is of; where the format loses something, what Pillow makes of it.
ACCEPTED: dict[str, tuple[bytes, Image.Image]] = {
    **{
        f"EXIF {n} in {kind}": (
            saved(
                PICTURE.transpose(turn), kind, exif=exif(n), **{"lossless": True} if kind == "WEBP" else {}
            ),
            PICTURE,
        )
        for n, turn in TURNS.items()
        for kind in ("PNG", "WEBP")
    },
    **{f"EXIF {n} is no orientation": (saved(exif=exif(n)), PICTURE) for n in (0, 9, 77)},
    "16 bits": (saved(sixteen(PICTURE)), PICTURE.convert("L")),
    "16 bits in a TIFF": (saved(sixteen(PICTURE), "TIFF"), PICTURE.convert("L")),
    "CMYK in a TIFF": (saved(CMYK, "TIFF"), CMYK),
    "CMYK in a JPEG": (saved(CMYK, "JPEG"), Image.open(io.BytesIO(saved(CMYK, "JPEG")))),
    "YCbCr in a TIFF": (saved(PICTURE.convert("YCbCr"), "TIFF"), PICTURE.convert("YCbCr")),
    "palette": (saved(PALETTE), PALETTE),
    "palette in a GIF": (saved(PALETTE, "GIF"), PALETTE),
    "one bit": (saved(PICTURE.convert("1")), PICTURE.convert("1")),
    "grey": (saved(PICTURE.convert("L")), PICTURE.convert("L")),
    "grey with alpha": (
        saved(CLEAR.convert("LA")),
        Image.alpha_composite(WHITE, CLEAR.convert("LA").convert("RGBA")),
    ),
    "alpha": (saved(CLEAR), Image.alpha_composite(WHITE, CLEAR)),
    "alpha in a WebP": (saved(CLEAR, "WEBP", lossless=True, exact=True), Image.alpha_composite(WHITE, CLEAR)),
    "an animated GIF": (saved(PALETTE.convert("RGB"), "GIF", **ANIMATED), PALETTE),
    "an animated WebP": (saved(kind="WEBP", lossless=True, **ANIMATED), PICTURE),
    "an animated PNG": (saved(**ANIMATED), PICTURE),
    "a TIFF of several pages": (saved(kind="TIFF", **ANIMATED), PICTURE),
    "a TIFF with LZW": (saved(kind="TIFF", compression="tiff_lzw"), PICTURE),
    "a TIFF with JPEG inside": (
        saved(kind="TIFF", compression="jpeg"),
        Image.open(io.BytesIO(saved(kind="TIFF", compression="jpeg"))),
    ),
    "a progressive JPEG": (
        saved(kind="JPEG", progressive=True),
        Image.open(io.BytesIO(saved(kind="JPEG", progressive=True))),
    ),
    "a BMP": (ENCODED["BMP"], PICTURE),
    "one pixel": (photo((1, 1)), Image.open(io.BytesIO(photo((1, 1))))),
    "a PNG that goes on as a script": (ENCODED["PNG"] + b"<script>alert(1)</script>", PICTURE),
    "a PNG that goes on as a ZIP": (ENCODED["PNG"] + b"PK\x03\x04" + b"\0" * 100, PICTURE),
    "a GIF that is JavaScript too": (ENCODED["GIF"] + b"=1;alert(1)", PICTURE.quantize(256)),
    "a PNG with a hostile comment": (
        ENCODED["PNG"][:33] + chunk(b"tEXt", b"Comment\0<script>../../etc/passwd") + ENCODED["PNG"][33:],
        PICTURE,
    ),
    "a PNG with a broken colour profile": (
        ENCODED["PNG"][:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"junk")) + ENCODED["PNG"][33:],
        PICTURE,
    ),
    "broken EXIF": (
        ENCODED["PNG"][:33] + chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff") + ENCODED["PNG"][33:],
        PICTURE,
    ),
    **{
        f"a photo of {w} x {h}": (photo((w, h)), Image.open(io.BytesIO(photo((w, h)))))
        for w, h in ((2, 3), (20, 1), (23, 25), (700, 500))
    },
}
# What GIF's palette and lossy formats change on the way is not what is asked here.
TOLERANCE = {"a GIF that is JavaScript too": 255}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("which", ACCEPTED)
def test_accepted_and_seen_aright(ask, which):
    data, expected = ACCEPTED[which]
    status, told = ask(data)
    assert status == 200, told
    seen = io.BytesIO(base64.b64decode(json.loads(told)["seen"]["png"]))
    found = np.asarray(Image.open(seen)).astype(int)
    wanted = np.rint(preprocess(expected.convert("RGB")).numpy() * 255).transpose(1, 2, 0)
    assert found.shape == (SIDE, SIDE, 3)
    assert abs(found - wanted).max() <= TOLERANCE.get(which, 1)


@pytest.mark.parametrize("kind", ENCODED)
@pytest.mark.parametrize("seed", range(10))
def test_bytes_changed_anywhere(ask, kind, seed):
    status, told = ask(flipped(ENCODED[kind], seed))
    assert status in {200, 413, 422}, told


QUERIES = [
    "predict?model=../../etc/passwd",
    "predict?model=/etc/passwd",
    "predict?model=file.py:build",
    "predict?model=%00",
    "predict?model=toy%00",
    "predict?model=",
    "predict?top=1e9",
    "predict?top=-1",
    "predict?top=NaN",
    "predict?top=%F0%9F%90%88",
    "predict?top=" + "9" * 5000,
    "explain?target=../../etc/passwd",
    "explain?target=%00",
    "explain?target=-1",
    "explain?target=99999999999999999999",
    "explain?target=1.5",
    "explain?target=%D9%A3%D9%A3",
    "explain?target=<script>",
    "explain?target=ant'%20OR%201=1--",
    "explain?target=__import__('os')",
    "explain?target={{7*7}}",
    "explain?target=%FF%FE",
    "explain?target=" + "a" * 5000,
    "explain?against=nobody",
    "explain?" + "&".join(["against=0"] * 101),
    "explain?method=__init__",
    "explain?method=../ssglrp",
    "explain?method=",
    "explain?" + "&".join(["method=lrp"] * 50),
    "picture?method=occlusion",
    "picture?size=100000",
    "picture?size=1e3",
    "picture?opacity=nan",
    "picture?smoothing=-1",
    "picture?smoothing=1e400000",
    "picture?colours=../vik",
    "picture?style=versus",
    "explain?size=2048&target=0&target=1&target=2",
    "picture?target=x/../y",
    "mask?region=0,0,99999,99999",
    "mask?region=5,5,5,5",
    "mask?region=1e1,0,2,2",
    "mask?region=0,0,1,1%0d%0aX-Evil:1",
    "mask?region=0;0;1;1",
    "mask?region=" + "0" * 50 + ",0,1,1",
    "mask?region=%D9%A0,0,1,1",
    "mask?region=0,0,1,1&class=nobody",
    "mask?region=0,0,1,1&fill=file:///etc/passwd",
]


@pytest.mark.parametrize("query", QUERIES)
def test_queries(ask, query):
    status, told = ask(photo(), f"/api/{query}")
    assert status in {404, 422}, told
    assert told.startswith(b'{"detail":"')
    assert b"root:" not in told
    alive(ask)


def test_a_decoder_that_crashes_is_an_answer_of_422(ask, monkeypatch):
    real = decoding._Decoder.ask

    def killed(self, *arguments):
        self._process.send_signal(signal.SIGKILL)
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(decoding._Decoder, "ask", killed)
        status, told = ask(photo(seed=4711))
    assert status == 422
    assert b"its decoder ended with signal 9" in told
    alive(ask)


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory elsewhere")
def test_more_memory_than_one_photo_may_have_is_an_answer_of_413(ask, monkeypatch):
    monkeypatch.setattr(decoding, "STRANGERS", decoding.DecodingLimits(10, 100 << 20))
    status, told = ask(bombs.png(5000, 5000, 8, 6))
    assert status == 413
    assert b"takes more than 100 MiB" in told
    alive(ask)


RAW = {
    "no http": b"hello\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.com\r\n\r\n",
    "two lengths": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "length and chunks": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
    "no number as length": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: lots\r\n\r\n",
    "a broken chunk": b"POST /api/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    "an endless header": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
    "an endless address": b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "a header split": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\nb\r\n\r\n",
    "a proxy's request": b"CONNECT evil.com:443 HTTP/1.1\r\nHost: evil.com:443\r\n\r\n",
    "another host's address": b"GET http://evil.com/ HTTP/1.1\r\nHost: evil.com\r\n\r\n",
    "an upgrade": b"GET /api/about HTTP/1.1\r\nHost: evil.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
}


@pytest.mark.parametrize("which", RAW)
def test_raw_requests(ask, address, which):
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=10) as connection:
        try:
            connection.sendall(RAW[which])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
        except OSError:  # the server has closed already
            answer = b""
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer
    alive(ask)


def test_there_are_at_least_two_hundred():
    assert len(REFUSED) + len(ACCEPTED) + 10 * len(ENCODED) + len(QUERIES) + len(RAW) >= 200
