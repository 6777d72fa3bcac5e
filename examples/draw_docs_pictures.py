"""Draw the pictures of the documentation, those of docs/your-own-classifier.md by following it.

python examples/draw_docs_pictures.py             # or the folder in place of docs/pictures
"""

import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from PIL import Image

from clarp.render import STYLES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = DOCS / "pictures"
OWN = {
    "own-against": "clarp-out/both.0-circle.ssglrp.png",
    "own-nodule": "clarp-out/ill.1-nodule.ssglrp.png",
    "own-no-nodule": "clarp-out/well.1-nodule.ssglrp.png",
    "own-finding": "findings/both.0-circle.ssglrp.png",
}
"""What docs/your-own-classifier.md shows, and where its commands draw it."""
PHOTO = resources.files("clarp") / "assets" / "cat_and_coffee.jpg"
BOTH = "Egyptian cat,espresso"
BOXES = ("--boxes", "Egyptian cat:0,0,448,224", "--boxes", "espresso:0,224,448,448")


def draw(folder: Path) -> None:
    """The sheet of three methods, and one map in every style."""
    command = [sys.executable, "-m", "clarp"]
    sheet = ["--methods", "lrp,sglrp,ssglrp", *BOXES, "--out", str(folder / "compare.png")]
    subprocess.run([*command, "compare", str(PHOTO), *sheet], check=True)
    for style in STYLES:
        target = BOTH if style == "versus" else "Egyptian cat"
        options = ["--target", target, "--against", BOTH, "--style", style, "--out", str(folder / style)]
        subprocess.run([*command, "explain", str(PHOTO), *options], check=True)


def stored(source: Path, out: Path, width: int) -> None:
    """Write a smaller copy as JPEG."""
    with Image.open(source) as picture:
        height = round(picture.height * width / picture.width)
        small = picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    small.save(out.with_suffix(".jpg"), quality=82, optimize=True)


def main(out: Path) -> None:
    """Draw all of them."""
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as held:
        draw(Path(held))
        stored(Path(held) / "compare.png", out / "compare", 720)
        for style in STYLES:
            (found,) = (Path(held) / style).glob("*.png")
            stored(found, out / style, {"heatmap": 400, "region": 300}.get(style, 600))
        own = Path(held) / "own"
        own.mkdir()
        subprocess.run(
            [sys.executable, Path(__file__).with_name("follow_page.py"), DOCS / "your-own-classifier.md"],
            cwd=own,
            check=True,
        )
        for name, source in OWN.items():
            stored(own / source, out / name, 750)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
