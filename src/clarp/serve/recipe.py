"""The lines of Python that make a map again."""

import json
from collections.abc import Sequence
from pathlib import Path

_LINES = """\
from pathlib import Path

import clarp
from clarp.images import open_photo
from clarp.models import load

classifier = load({model})
image = classifier.preprocess(open_photo(Path("photo.jpg"))).unsqueeze(0)
explainer = clarp.Explainer(classifier.module, {method}, bounds=classifier.bounds)
explanation = explainer(image, target={target}, against={against})  # {what}
heatmap = explanation.heatmap[0]  # (height, width)
"""


def recipe(model: str, method: str, target: int, against: Sequence[int], labels: Sequence[str]) -> str:
    """The lines, for a photo called photo.jpg.

    Args:
        model: as on the command line. Of a file only the name is told, so the lines run in its folder.
        method: a name.
        target: the class explained.
        against: its rivals; empty: all others, or nothing where the method has none.
        labels: of all classes.
    """
    named = [_quoted(labels[index]) for index in against]
    return _LINES.format(
        model=_quoted(Path(model).name),
        method=_quoted(method),
        target=target,
        against=list(against) or None,
        what=_quoted(labels[target]) + (f" against {', '.join(named)}" if named else ""),
    )


def _quoted(text: str) -> str:
    """Text as a literal on one line, whatever is in it; what JSON escapes, Python reads alike."""
    return json.dumps(text)
