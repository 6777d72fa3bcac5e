"""Hostile inputs by seed, and a process that they are tried in, so that a watchdog can end it.

``python tests/fire.py`` answers jobs from standard input; :func:`inputs` makes them.
"""

import hashlib
import io
import json
import os
import random
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

import bombs
from clarp.data import Dataset, boxed_photos, coco, image_table, voc
from clarp.data.opening import open_dataset
from clarp.data.packed import ABOUT, index_schema
from clarp.data.photo import Photo
from clarp.data.problems import UnreadableImageError
from clarp.files import write_summed
from clarp.images import decode_photo, open_photo

PICTURE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8))
VALUES = (
    0,
    1,
    -1,
    2**31,
    2**32 - 1,
    2**63,
    1e308,
    -0.0,
    0.5,
    None,
    True,
    "",
    "a",
    "\x1b[31m",
    "../x",
    [],
    {},
    [[]],
    "9" * 4500,
)
TEXTS = (
    "",
    "a.png",
    "../../etc/passwd",
    "/etc/passwd",
    "\x00",
    "\ud800",
    "樹" * 75,
    "=1+1",
    "9" * 5000,
    "\u202e",
    "a" * 5000,
)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A file with something changed: bits, lengths, pieces left out, twice, or from elsewhere in it."""
    found = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 30])):
        if not found:
            break
        at, kind = chance.randrange(len(found)), chance.randrange(7)
        end = min(len(found), at + chance.choice([1, 2, 4, 16, 200]))
        if kind == 0:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[at:end] = chance.randbytes(end - at)
        elif kind == 2:
            del found[at:end]
        elif kind == 3:
            found[at:at] = found[at:end] * chance.choice([1, 3, 1000])
        elif kind == 4:
            found[at : at + 4] = struct.pack(
                chance.choice("<>") + "I", chance.choice([0, 1, 2**16, 2**31 - 1, 2**32 - 1])
            )
        elif kind == 5:
            del found[at:]
        else:
            other = chance.randrange(len(found))
            found[at:end] = found[other : other + end - at]
    return bytes(found[: 2 << 20])


def _seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [
        bombs.saved(PICTURE, kind)
        for kind in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "ICO", "PPM", "TGA", "PCX")
    ]
    made += [
        bombs.saved(PICTURE, "JPEG", progressive=True, exif=exif),
        bombs.saved(PICTURE, "PNG", exif=exif),
    ]
    made += [
        bombs.saved(PICTURE, "TIFF", compression=name)
        for name in ("tiff_lzw", "jpeg", "tiff_deflate", "packbits")
    ]
    made += [bombs.saved(PICTURE.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGBA", "I;16")]
    made += [
        bombs.saved(PICTURE.convert("CMYK"), "JPEG"),
        bombs.frames("GIF", 3),
        bombs.frames("WEBP", 3),
        bombs.frames("PNG", 3),
    ]
    made += [
        bombs.scans(64, 50),
        bombs.segments(50),
        bombs.comments(2000),
        bombs.tiff(2**31),
        bombs.strips(50, 50),
    ]
    made += [bombs.inflated(b"zTXt", b"x\0\0", 10_000), bombs.inflated(b"iCCP", b"x\0\0", 10_000)]
    if "AVIF" in Image.SAVE:
        made.append(bombs.saved(PICTURE, "AVIF"))
    return made


SEEDS = _seeds()


def image(chance: random.Random) -> bytes:
    return mutated(chance.choice(SEEDS), chance)


def document(chance: random.Random) -> bytes:
    """A table of boxes or COCO's, with fields of other kinds."""

    def value(depth: int = 0) -> object:
        kind = chance.randrange(8)
        if kind < 5 or depth > 3:
            return chance.choice(VALUES)
        if kind == 5:
            return [value(depth + 1) for _ in range(chance.randrange(5))]
        names = (
            "width",
            "height",
            "objects",
            "box",
            "classes",
            "label",
            "id",
            "image_id",
            "segmentation",
            "counts",
            "size",
            "bbox",
        )
        return {chance.choice(names): value(depth + 1) for _ in range(chance.randrange(4))}

    def odd(usual: object) -> object:
        return usual if chance.random() < 0.85 else value()

    box = [odd(1), odd(2), odd(20), odd(chance.choice([10, 1e9, -5]))]
    masks = [
        [[chance.choice([0, 5, 20, 40, 1e9, -3, 2**31]) for _ in range(chance.choice([6, 7, 8, 40]))]],
        {
            "size": [30, 40],
            "counts": [chance.choice([0, 600, 1200, -1, 2**40]) for _ in range(chance.randrange(4))],
        },
        {
            "size": [30, 40],
            "counts": "".join(chance.choice("0123PQo`abc") for _ in range(chance.randrange(30))),
        },
    ]
    thing = {"label": odd("ant"), "classes": odd([0]), "box": odd(box)}
    boxes = {"a.png": odd({"width": odd(40), "height": odd(30), "objects": odd([odd(thing)])})}
    annotation = {
        "id": odd(1),
        "image_id": odd(1),
        "category_id": odd(1),
        "bbox": odd([1, 1, 5, 5]),
        "segmentation": odd(chance.choice(masks)),
    }
    coco = {
        "images": odd([odd({"id": odd(1), "file_name": odd("a.png"), "width": odd(40), "height": odd(30)})]),
        "categories": odd([odd({"id": odd(1), "name": odd("ant")})]),
        "annotations": odd([odd(annotation)] * chance.choice([1, 1, 3])),
    }
    text = json.dumps(chance.choice([boxes, coco])).encode()
    special = chance.random()
    if special < 0.05:
        return text[:-1] + b', "x": ' + b"[" * chance.choice([10, 5000, 200_000])
    if special < 0.1:
        return text[:-1] + b', "x": ' + b"9" * 6000 + b"}"
    return mutated(text, chance) if special < 0.4 else text


def annotation(chance: random.Random) -> bytes:
    """An annotation of Pascal VOC."""
    number = lambda usual: str(usual) if chance.random() < 0.8 else str(chance.choice(VALUES))  # noqa: E731
    encoding = chance.choice(["utf-8"] * 5 + ["utf-16", "idna", "zip", "big5", "x" * 999, "latin-1"])
    objects = "".join(
        f"<object><name>{chance.choice(['cat', 'dog', 'unicorn'])}</name><difficult>{number(0)}</difficult><bndbox>"
        f"<xmin>{number(2)}</xmin><ymin>{number(2)}</ymin><xmax>{number(20)}</xmax><ymax>{number(20)}</ymax></bndbox></object>\n"
        for _ in range(chance.randrange(4))
    )
    text = (
        f"<?xml version='1.0' encoding='{encoding}'?>\n<annotation><size><width>{number(40)}</width>"
        f"<height>{number(30)}</height></size>{objects}</annotation>"
    )
    special = chance.random()
    if special < 0.05:
        text = text.replace("<annotation>", "<a>" * chance.choice([100, 600, 50_000]))
    elif special < 0.1:
        text = "<!DOCTYPE a [<!ENTITY b 'c'><!ENTITY d '&b;&b;'>]>\n" + text.replace("cat", "&d;")
    data = text.encode("utf-8", "replace")
    return mutated(data, chance) if chance.random() < 0.5 else data


def table(chance: random.Random) -> bytes:
    """A table of photos and classes."""
    lines = ["file,class"]
    for _ in range(chance.randrange(1, 8)):
        cells = [chance.choice(["a.png", *TEXTS]), chance.choice(["0", "1 0", "ant", *TEXTS])]
        lines.append(chance.choice([",", ",", ",", ";", "\t", ',"']).join(cells))
    data = chance.choice(["\n", "\r\n", "\r"]).join(lines).encode("utf-8", "replace")
    return mutated(data, chance) if chance.random() < 0.5 else data


def shard(chance: random.Random) -> bytes:
    """A tar file of photos with labels; some of its headers are changed so that their checksums are right."""
    file = io.BytesIO()
    form = chance.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    labels = (
        b"0",
        b"1 0",
        b"ant",
        b"",
        b"\xff",
        b"9" * 5000,
        b'{"label": 0}',
        b"[" * 9000,
        b'{"label": [[]]}',
    )
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for _ in range(chance.randrange(8)):
            usual = chance.choice(["a.png", "a.cls", "b.png", "b.json", "c/d.png", "c/d.cls"])
            other = chance.choice(TEXTS).replace("\0", "").encode("utf-8", "replace").decode()
            name = usual if chance.random() < 0.8 else other[:25] if form == tarfile.USTAR_FORMAT else other
            entry = tarfile.TarInfo(name)
            data = chance.choice(SEEDS) if usual.endswith("png") else chance.choice(labels)
            entry.type = chance.choice(
                [tarfile.REGTYPE] * 9 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE]
            )
            entry.size, entry.linkname = len(data) if entry.isreg() else 0, "/etc/passwd"
            tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    found = bytearray(file.getvalue())
    headers = [at for at in range(0, len(found), 512) if found[at + 257 : at + 262] == b"ustar"]
    for at in chance.choices(headers, k=chance.randrange(3)) if headers else ():
        place = chance.choice([100, 108, 116, 124, 124, 124, 136, 156, 156, 157, 345, 482])
        found[at + place : at + place + 12] = mutated(bytes(found[at + place : at + place + 12]), chance)[
            :12
        ].ljust(12, b"\0")
        found[at + 148 : at + 156] = b" " * 8
        found[at + 148 : at + 156] = b"%06o\0 " % sum(found[at : at + 512])
    return mutated(bytes(found), chance) if chance.random() < 0.5 else bytes(found)


def index(chance: random.Random) -> bytes:
    """An index of shards, with rows that no data set has, or changed bytes."""

    def odd(usual: object, *others: object) -> object:
        return usual if not others or chance.random() < 0.9 else chance.choice(others)

    things = chance.choice([None, "", "[]", document(chance).decode("latin-1")])
    rows = [
        {
            "id": odd(f"{k}.png", *(text for text in TEXTS if text.isprintable())),
            "shard": odd("000000.tar", "../b.tar", "", None),
            "member": odd("0.png", "../0.png", None),
            "offset": odd(512, -1, 0, 2**62, 2**63 - 1),
            "size": odd(100, -1, 0, 2**62, 2**63 - 1),
            "sha256": odd(hashlib.sha256(bytes(100)).digest(), None),
            "ends": odd(bytes(32), None),
            "file": odd(f"{k}.png", "../x", None),
            "as_stored": odd(True, None),
            "labels": odd([[0]], [], [[]], [[-1]], [[2**62]], [None], None),
            "objects": odd(
                things, None, "[", '[{"label": [0], "name": "a", "box": [1, 2, 3, 4], "mask": {}}]'
            ),
        }
        for k in range(chance.randrange(6))
    ]
    about = {
        "version": 1,
        "name": odd("a", None, ""),
        "classes": odd(["ant"], None, [1], []),
        "own_classes": odd(True, 3),
    }
    about |= {
        "shards": odd({"000000.tar": 2048}, {}, {"../b.tar": 5}, [], {"000000.tar": -1}),
        "as_is": odd(False, "a"),
    }
    file = io.BytesIO()
    with parquet.ParquetWriter(file, index_schema()) as writer:
        writer.write_table(pa.Table.from_pylist(rows, index_schema()))
        writer.add_key_value_metadata({ABOUT: json.dumps(about)})
    return mutated(file.getvalue(), chance) if chance.random() < 0.6 else file.getvalue()


def request(chance: random.Random) -> bytes:
    """Something like an HTTP request."""
    names = (
        "Host",
        "Origin",
        "Content-Length",
        "Transfer-Encoding",
        "Authorization",
        "Expect",
        "Sec-Fetch-Site",
        "Content-Type",
        "Connection",
        "X",
    )
    odd = (
        "",
        "\0",
        "é",
        "http://[",
        "chunked",
        "-1",
        "9" * 50,
        "a" * 70_000,
        "null",
        "Bearer \xff",
        "100-continue",
        "cross-site",
        "*",
    )
    method = chance.choice(["GET", "POST", "POST", "HEAD", "OPTIONS", "BREW", "get", "CONNECT"])
    path = chance.choice(
        [
            "/api/about",
            "/api/predict",
            "/api/explain?target=ant",
            "/api/mask?region=0,0,9,9",
            "/",
            "/api/nowhere",
            "*",
            "/%00",
            "/api/classes?model=%ff",
        ]
    )
    body = mutated(chance.choice(SEEDS), chance)[:5000]
    headers = {"Host": "127.0.0.1", "Connection": "close", "Content-Length": str(len(body))}
    for _ in range(chance.randrange(3)):
        headers[chance.choice(names)] = chance.choice(odd)
    head = "\r\n".join(
        [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    )
    data = head.encode("latin-1", "replace") + body
    return mutated(data, chance) if chance.random() < 0.4 else data


KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "image": image,
    "json": document,
    "xml": annotation,
    "csv": table,
    "tar": shard,
    "index": index,
    "http": request,
}


def inputs(kind: str, count: int, first: int = 0) -> Iterator[tuple[int, bytes]]:
    """So many inputs of a kind, each with its seed."""
    for seed in range(first, first + count):
        yield seed, KINDS[kind](random.Random(f"{kind} {seed}"))


def _looked_at(data: bytes, folder: Path) -> None:
    path = folder / "b.png"
    path.write_bytes(data)
    wrong: list[str] = []
    for look in (
        lambda: decode_photo(data, 50_000_000),
        lambda: open_photo(path),
        lambda: Photo("b.png", folder).size(),
    ):
        try:
            look()
        except (ValueError, UnreadableImageError) as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(wrong[0])


def _in_json(data: bytes, folder: Path) -> None:
    (folder / "boxes.json").write_bytes(data)
    try:
        coco(folder / "boxes.json", folder)
    except ValueError:
        boxed_photos(folder)


def _annotated(data: bytes, folder: Path) -> None:
    (folder / "Annotations" / "a.xml").write_bytes(data)
    problems = voc(folder, None).problems
    if problems:
        raise ValueError(str(problems[0]))


def _listed(data: bytes, folder: Path) -> None:
    (folder / "labels.csv").write_bytes(data)
    dataset = image_table(folder, classes=("ant", "bee"))
    list(map(str, dataset.problems))


def _in_a_tar(data: bytes, folder: Path) -> None:
    (folder / "0.tar").write_bytes(data)
    _all_read(open_dataset(str(folder / "0.tar"), ("ant", "bee")))


def _indexed(data: bytes, folder: Path) -> None:
    shards = folder / "shards"
    shards.mkdir(exist_ok=True)
    (shards / "000000.tar").write_bytes(bytes(2048))
    write_summed(shards / "index.parquet", lambda file: file.write(data))
    _all_read(open_dataset(str(shards), ("ant", "bee")))


TRIED = {
    "image": _looked_at,
    "json": _in_json,
    "xml": _annotated,
    "csv": _listed,
    "tar": _in_a_tar,
    "index": _indexed,
}


def _all_read(dataset: Dataset) -> None:
    """Every photo's bytes, and where its objects are."""
    wrong = list(map(str, dataset.problems))
    for sample in dataset:
        try:
            sample.picture.read()
            for label in sample.labels:
                sample.truth(label)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(wrong[0])


def main() -> None:
    """Answer jobs: a line of JSON and so many bytes, and a line back: "read", or why not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for place in ("Annotations", "JPEGImages"):
            (folder / place).mkdir()
        for place in ("a.png", "JPEGImages/a.jpg"):
            PICTURE.save(folder / place)
        while line := sys.stdin.buffer.readline():
            job = json.loads(line)
            data = sys.stdin.buffer.read(job["bytes"])
            try:
                TRIED[job["kind"]](data, folder)
                answer = {"read": True, "said": ""}
            except ValueError as error:
                answer = {"read": False, "said": str(error)}
            except Exception as error:  # noqa: BLE001  which is what is looked for
                answer = {"wrong": f"{type(error).__name__}: {error}"}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    sys.path.insert(0, os.fspath(Path(__file__).parent))
    main()
