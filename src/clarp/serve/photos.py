"""The photos that people asked about last: as the model gets them, and as they were sent."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from clarp.framing import Framing
from clarp.images import decode_photo, notes_of
from clarp.models import Classifier
from clarp.render import Seen
from clarp.render.look import MOST
from clarp.render.palette import Bytes
from clarp.serve.answers import Photo
from clarp.serve.limits import Limits


@dataclass(eq=False)
class Prepared:
    """A photo as the model gets it.

    Attributes:
        photo: what was sent.
        image: (1, C, H, W), preprocessed.
        probabilities: of all classes, (N,).
        seen: (H, W, 3), what the model sees.
        whole: the photo itself, of at most :data:`~clarp.render.look.MOST` pixels a side; None until it is asked for.
    """

    photo: Photo
    image: Tensor
    probabilities: Tensor
    seen: Bytes
    whole: Seen | None = None


class Photos:
    """Prepares photos, and keeps the last few, because people ask again and again about one.

    Args:
        classifier: whose preprocessing they get.
        limits: see :class:`Limits`.
        probabilities: of the classes, (N,), of one image (1, C, H, W).
    """

    def __init__(
        self, classifier: Classifier, limits: Limits, probabilities: Callable[[Tensor], Tensor]
    ) -> None:
        self._classifier, self._limits, self._probabilities = classifier, limits, probabilities
        self._framing = Framing(classifier)
        self._kept: OrderedDict[str, Prepared] = OrderedDict()

    def prepared(self, data: bytes) -> Prepared:
        """A photo as the model gets it.

        Raises:
            ValueError: it can't be read, or is beyond the limits.
        """
        key = hashlib.sha256(data).hexdigest()
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        photo = decode_photo(data, self._limits.pixels)
        if max(photo.size) > self._limits.aspect * min(photo.size):
            raise ValueError(
                f"the photo has {photo.width} x {photo.height} pixels, expected a longer side of at most "
                f"{self._limits.aspect} times the shorter one; cut out the part that matters."
            )
        try:
            image = self._classifier.preprocess(photo)
        except Exception as error:  # the user's own preprocessing may raise anything
            raise ValueError(f"the preprocessing failed with {type(error).__name__}: {error}.") from error
        prepared = Prepared(
            Photo(sha256=key, width=photo.width, height=photo.height, notes=list(notes_of(photo))),
            image.unsqueeze(0),
            self._probabilities(image.unsqueeze(0)),
            self._classifier.photo(image),
        )
        self._kept[key] = prepared
        if len(self._kept) > self._limits.photos:
            self._kept.popitem(last=False)
        return prepared

    def whole(self, data: bytes, side: int) -> Seen:
        """The photo itself and the part of it that the model sees; pictures beyond the usual size are not kept.

        Args:
            data: the photo's file.
            side: pixels of the longer side, if it has more.

        Raises:
            ValueError: as of :meth:`prepared`.
        """
        prepared = self.prepared(data)
        if side > MOST:
            return self._seen(data, prepared, side)
        if prepared.whole is None:
            prepared.whole = self._seen(data, prepared, MOST)
        return prepared.whole

    def _seen(self, data: bytes, prepared: Prepared, side: int) -> Seen:
        photo = decode_photo(data, self._limits.pixels)
        return self._framing.seen(photo, prepared.image[0], side)
