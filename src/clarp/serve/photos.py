"""The photos that people asked about last: as the model gets them, and as they were sent."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from clarp.images import decode_photo, notes_of
from clarp.render import Seen
from clarp.render.look import MOST
from clarp.render.palette import Bytes
from clarp.serve import answers
from clarp.serve.limits import Limits
from clarp.session import Session


@dataclass(eq=False)
class Prepared:
    """A photo as the model gets it.

    Attributes:
        photo: what was sent.
        image: (C, H, W), preprocessed.
        probabilities: of all classes, (N,).
        seen: (H, W, 3), what the model sees.
        whole: the photo itself, of at most :data:`~clarp.render.look.MOST` pixels a side; None until it is
            asked for.
    """

    photo: answers.PhotoAnswer
    image: Tensor
    probabilities: Tensor
    seen: Bytes
    whole: Seen | None = None


class Photos:
    """Prepares photos, and keeps the last few, because people ask again and again about one.

    Args:
        session: with the model.
        limits: see :class:`Limits`.
    """

    def __init__(self, session: Session, limits: Limits) -> None:
        self._session, self._limits = session, limits
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
        image = self._session.preprocessed(photo)
        prepared = Prepared(
            answers.PhotoAnswer(
                sha256=key, width=photo.width, height=photo.height, notes=list(notes_of(photo))
            ),
            image,
            self._session.probabilities(image),
            self._session.classifier.photo(image),
        )
        self._kept[key] = prepared
        if len(self._kept) > self._limits.photos:
            self._kept.popitem(last=False)
        return prepared

    def whole(self, data: bytes, side: int) -> Seen:
        """The photo itself and the part of it that the model sees.

        Pictures beyond the usual size are not kept.

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
        return self._session.framing.seen(photo, prepared.image, side)
