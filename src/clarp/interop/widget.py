"""A widget for Jupyter and marimo: click class A, click class B, and see what speaks for A rather than B."""

from base64 import b64encode
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image, ImageOps

from clarp.images import as_rgb, open_photo
from clarp.maps import PhotoMaps
from clarp.method import Method
from clarp.models import Classifier
from clarp.optional import optional
from clarp.render import picture
from clarp.render.encoding import encoded
from clarp.render.look import Look
from clarp.session import Session

if TYPE_CHECKING:
    import traitlets
    from anywidget import AnyWidget
else:
    AnyWidget = optional("anywidget", "A widget", "interop").AnyWidget
    traitlets = optional("traitlets", "A widget", "interop")


class ClassWidget(AnyWidget):  # type: ignore[misc,unused-ignore]
    """A photo with its most probable classes as buttons; the map follows the clicks.

    The first class that is clicked is explained against the classes of the task. A second one is what it is
    contrasted with. A click on a chosen class takes it back.

    Args:
        classifier: what :func:`clarp.models.load` returns.
        photo: the path of a photo, or a PIL photo.
        method: as of :class:`clarp.Explainer`; with rivals, so that the second click means something.
        top: how many classes have buttons.

    Attributes:
        chosen: the numbers of the chosen classes, none to two; may be set from Python too.
        picture: the photo with the map over it, as a data URL.
        caption: what it shows.

    Raises:
        FileNotFoundError: there is no such photo.
        ValueError: as :class:`clarp.Explainer`.
    """

    _esm: ClassVar[str] = (files("clarp.interop") / "widget.js").read_text(encoding="utf-8")
    classes: Any = traitlets.List().tag(sync=True)
    chosen: Any = traitlets.List(traitlets.Int(), maxlen=2).tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        classifier: Classifier,
        photo: str | Path | Image.Image,
        method: str | Method = "ssglrp",
        *,
        top: int = 8,
    ) -> None:
        opened = (
            as_rgb(ImageOps.exif_transpose(photo))
            if isinstance(photo, Image.Image)
            else open_photo(Path(photo))
        )
        self._session = Session(classifier)
        self._explainer = self._session.explainer(method)
        pixels = self._session.preprocessed(opened)
        self._batch = pixels[None].to(self._session.device)
        self._seen = self._session.framing.seen(opened, pixels)
        self._probabilities = self._explainer.probabilities(self._batch)[0].double().cpu()
        best = self._probabilities.topk(min(top, len(self._probabilities)))
        classes = [
            {"index": index, "label": self._session.spoken(index), "probability": share}
            for index, share in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]
        self._plain = _url(opened)
        super().__init__(classes=classes, picture=self._plain, caption="Click a class.")

    @traitlets.observe("chosen")  # type: ignore[untyped-decorator,unused-ignore]
    def _changed(self, _: Any) -> None:
        self.picture, self.caption = self._drawn(self.chosen)

    def _drawn(self, chosen: list[int]) -> tuple[str, str]:
        """The picture of these classes, as a data URL, and its caption."""
        if not chosen:
            return self._plain, "Click a class."
        first, *rivals = chosen
        e = self._explainer(self._batch, [[first]], rivals or None)
        (maps,) = PhotoMaps.explained(e, rivals)
        title, _ = self._session.words(maps, 0, self._probabilities, Look(), maps.remark(0))
        heatmap = e.shown[0, 0].double().cpu().numpy()
        drawn = picture(np.asarray(heatmap), self._seen, "", Look(caption=False))
        return _url(drawn), title.replace("\n", ". ")


def _url(drawn: Image.Image) -> str:
    return f"data:image/png;base64,{b64encode(encoded(drawn)).decode()}"
