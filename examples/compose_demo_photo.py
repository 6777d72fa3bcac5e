"""Compose the embedded demo photo, a cat above a cup of espresso, from scikit-image's CC0 photos.

    pip install scikit-image
    python examples/compose_demo_photo.py src/clarp/assets/cat_and_coffee.jpg

The crops were searched so that EfficientNet-Lite0 sees both: "Egyptian cat" and "espresso" are its
first two classes. `tests/models/test_efficientnet_lite.py` checks that on the photo that is shipped.
"""

import sys

from PIL import Image
from skimage import data

SIDE = 448
CAT = (40, 98, 356, 256)  # left, top, right, bottom in chelsea's pixels
COFFEE = (58, 6, 574, 264)  # the same in coffee's


def compose() -> Image.Image:
    """Put the cat's face above the cup: a square of two halves, twice as wide as high."""
    photo = Image.new("RGB", (SIDE, SIDE))
    for top, pixels, box in [(0, data.chelsea(), CAT), (SIDE // 2, data.coffee(), COFFEE)]:
        half = Image.fromarray(pixels).resize((SIDE, SIDE // 2), Image.Resampling.LANCZOS, box=box)
        photo.paste(half, (0, top))
    return photo


if __name__ == "__main__":
    compose().save(sys.argv[1], quality=90)
    print(f"wrote {sys.argv[1]}")
