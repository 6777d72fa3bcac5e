"""What the page computes, read from its own modules, and the same by the library."""

import base64
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import clarp
from clarp.exporting.preprocessing import written
from clarp.images import decode_photo, open_photo

SAMPLE = Path(__file__).resolve().parents[2] / "src/clarp/assets/cat_and_coffee.jpg"
MOST_PIXELS = 10**8
KEPT = "#kept:has-text('works without a network')"

_PAGE = """
globalThis.text = (array) => {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  let found = "";
  for (let k = 0; k < bytes.length; k += 8192) found += String.fromCharCode(...bytes.subarray(k, k + 8192));
  return btoa(found);
};
globalThis.bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
globalThis.own = (name) => import(new URL(name, document.baseURI));
globalThis.json = async (name) => (await fetch(name)).json();
0;  // what the last line is, if it is a function, would be called
"""
_TENSOR = """async ([data, preprocessing]) => {
  const { coloursOf, decoded, tensorOf } = await own("photo.js");
  const bitmap = await decoded(new File([bytes(data)], "photo"));
  return text(tensorOf(coloursOf(bitmap), preprocessing ?? (await json("about.json")).preprocessing));
}"""
_EXPLAINED = """async ([tensor, target, rivals]) => {
  if (!globalThis.tried) {
    globalThis.tried = new (await own("model.js")).Model(() => {});
    await tried.load(await json("about.json"), (await json("page.json")).model);
  }
  const found = await tried.explain(new Float32Array(bytes(tensor).buffer), target, rivals);
  return [text(found.logits), text(found.heatmap), found.lost];
}"""


@dataclass(frozen=True, eq=False)
class Answer:
    logits: np.ndarray
    heatmap: np.ndarray
    lost: float


def prepare(tab):
    """Let a tab of the page answer the questions below."""
    tab.evaluate(_PAGE)
    return tab


def tensor_in_page(tab, data, preprocess=None):
    """What the page makes of a photo; by another preprocessing than its model's own, if one is given."""
    given = None if preprocess is None else written(preprocess)
    found = tab.evaluate(_TENSOR, [base64.b64encode(data).decode(), given])
    return floats(found).reshape(3, *((224, 224) if preprocess is None else preprocess.size))


def explained_in_page(tab, tensor, target, rivals=None):
    text = base64.b64encode(np.ascontiguousarray(tensor, np.float32).tobytes()).decode()
    logits, heatmap, lost = tab.evaluate(_EXPLAINED, [text, target, rivals])
    return Answer(floats(logits), floats(heatmap).reshape(224, 224), lost)


def floats(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


def tensor_by_library(preprocess, data):
    return preprocess(decode_photo(data, MOST_PIXELS)).numpy()


def explainer(classifier, method, dtype=None):
    return clarp.Explainer(
        classifier.module, method=method, bounds=classifier.bounds, labels=classifier.labels, dtype=dtype
    )


def explained_by_library(explainer, tensor, target, rivals=None):
    """Logits and heatmap; ``lost`` is known to the exported program alone."""
    images = torch.from_numpy(tensor)[None]
    found = explainer(images, target, **({} if rivals is None else {"against": rivals}))
    return Answer(found.logits[0].numpy(), found.heatmap.reshape(224, 224).numpy(), float("nan"))


def file(image, kind, **options):
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned():
    """A photo that lies on its side, as telephones write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(open_photo(SAMPLE).resize((500, 300)), "JPEG", exif=exif, quality=90)
