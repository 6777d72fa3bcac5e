"""A pipeline of transformers that explains: as "image-classification", and each class has its heatmap."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from clarp.images import as_rgb, open_photo
from clarp.method import Method
from clarp.models import Classifier
from clarp.models.hugging_face import of_parts
from clarp.render import Scale
from clarp.render.explained import Drawable
from clarp.session import Session
from clarp.targets import Against

Photo = str | Path | Image.Image


class ExplanationPipeline:
    """Explains what a pipeline of transformers, or another classifier, says of photos.

    Args:
        classifier: what ``transformers.pipeline("image-classification", ...)`` returned, or a classifier of
            :func:`clarp.models.load`. The model stays as it is.
        method: as of :class:`clarp.Explainer`.

    Raises:
        TypeError: neither of the two.

    Example:
        >>> import clarp
        >>> from importlib.resources import files
        >>> explain = ExplanationPipeline(clarp.models.load("efficientnet-lite0"))
        >>> photo = files("clarp") / "assets" / "cat_and_coffee.jpg"
        >>> both = ["espresso", "Egyptian cat"]
        >>> first, _ = explain(photo, candidate_labels=both, against=both)
        >>> first["label"], first["heatmap"].size
        ('Egyptian cat', (448, 448))
    """

    def __init__(self, classifier: Any, method: str | Method = "ssglrp") -> None:
        if not isinstance(classifier, Classifier):
            model, processor = (getattr(classifier, name, None) for name in ("model", "image_processor"))
            if model is None or processor is None:
                raise TypeError(
                    f"classifier is a {type(classifier).__name__}, expected a pipeline of transformers for "
                    '"image-classification", or what clarp.models.load() returns.'
                )
            classifier = of_parts(model, processor, model.name_or_path or type(model).__name__)
        self._session = Session(classifier)
        self._explainer = self._session.explainer(method)

    def __call__(
        self,
        images: Photo | Sequence[Photo],
        *,
        top_k: int = 5,
        candidate_labels: Sequence[str] | None = None,
        against: Against = None,
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Explain the most probable classes of photos.

        Args:
            images: the path of a photo, a PIL photo, or a list of these.
            top_k: how many classes of each.
            candidate_labels: these classes instead, by name.
            against: the classes that each is contrasted with, by name or number; None: those of the task.

        Returns:
            For each class, the most probable first, its ``label``, its probability ``score``, and
            ``heatmap``, the photo with the map over it: red speaks for the class, blue against it, on one
            scale for all classes of the photo. A list of such lists for a list of photos.

        Raises:
            FileNotFoundError: there is no such photo.
            ValueError: no such class; and as :class:`clarp.Explainer`.
        """
        if isinstance(images, Sequence) and not isinstance(images, str):
            return [self._one(image, top_k, candidate_labels, against) for image in images]
        return self._one(images, top_k, candidate_labels, against)

    def _one(
        self, image: Photo, top_k: int, names: Sequence[str] | None, against: Against
    ) -> list[dict[str, Any]]:
        photo = (
            as_rgb(ImageOps.exif_transpose(image))
            if isinstance(image, Image.Image)
            else open_photo(Path(image))
        )
        pixels = self._session.preprocessed(photo)
        batch = pixels[None].to(self._session.device)
        shares = self._explainer.probabilities(batch)[0]
        classes = shares.argsort(descending=True).tolist()
        if names is None:
            classes = classes[:top_k]
        else:
            asked = set(self._session.classes(names))
            classes = [index for index in classes if index in asked]
        e = replace(
            self._explainer(batch, [classes], against), photos=(self._session.framing.seen(photo, pixels),)
        )
        drawn = Drawable.of(e)
        (heatmaps,) = drawn.pictures(Scale.of(*drawn.maps[0]))
        return [
            {"label": e.label(index), "score": float(shares[index]), "heatmap": heatmap}
            for index, heatmap in zip(classes, heatmaps, strict=True)
        ]
