import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from clarp.models import Classifier


def to_unit(image):
    """(3, H, W) in 0 to 1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def bgr_caffe(image):
    """Channels in blue, green, red, on the 0 to 255 scale, the mean subtracted."""
    return to_unit(image).flip(0) * 255 - torch.tensor([103.9, 116.8, 123.7])[:, None, None]


def upside_down(image):
    """Larger is darker."""
    return 1 - 2 * to_unit(image)


def grey(image):
    return to_unit(image.convert("L").convert("RGB"))[:1] * 4 - 2


def standardised(image):
    x = to_unit(image)
    return (x - x.mean()) / (x.std() + 1e-5)


def vignette(image):
    x = to_unit(image)
    return x * torch.linspace(0, 1, x.shape[2])


def classifier(labels=("a", "b"), preprocess=to_unit):
    return Classifier("toy", nn.Linear(2, 2).eval(), tuple(labels), preprocess)


@pytest.fixture
def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))


class TestBounds:
    @pytest.mark.parametrize(
        ("preprocess", "low", "high"),
        [
            (to_unit, [0, 0, 0], [1, 1, 1]),
            (bgr_caffe, [-103.9, -116.8, -123.7], [151.1, 138.2, 131.3]),
            (upside_down, [-1, -1, -1], [1, 1, 1]),
            (grey, [-2], [2]),
        ],
    )
    def test_they_are_what_black_and_white_become(self, preprocess, low, high):
        measured_low, measured_high = classifier(preprocess=preprocess).bounds
        assert measured_low.tolist() == pytest.approx(low, abs=1e-4)
        assert measured_high.tolist() == pytest.approx(high, abs=1e-4)

    @pytest.mark.parametrize("preprocess", [standardised, vignette, lambda image: to_unit(image) * torch.nan])
    def test_there_are_none_where_a_plain_picture_does_not_stay_plain(self, preprocess):
        assert classifier(preprocess=preprocess).bounds is None


class TestPhoto:
    @pytest.mark.parametrize("preprocess", [to_unit, bgr_caffe, upside_down])
    def test_the_way_back_is_exact(self, photo, preprocess):
        back = classifier(preprocess=preprocess).photo(preprocess(photo))
        assert back.dtype == np.uint8
        assert (back == np.asarray(photo)).all()

    def test_one_channel_comes_back_grey(self, photo):
        """With its own black and white, although neither is in the photo."""
        pale = photo.point(lambda level: 60 + level // 2)
        back = classifier(preprocess=grey).photo(grey(pale))
        assert (back == np.asarray(pale.convert("L"))[..., None]).all()

    def test_without_a_scale_it_is_grey_from_black_to_white(self, photo):
        back = classifier(preprocess=standardised).photo(standardised(photo))
        assert back.shape == (20, 30, 3)
        assert (back.min(), back.max()) == (0, 255)
        assert (back == back[..., :1]).all()

    def test_without_a_scale_a_plain_picture_is_black_not_a_failure(self):
        plain = Image.new("RGB", (4, 4), "red")
        nothing = classifier(preprocess=lambda image: standardised(image).mean(0, keepdim=True))
        assert (nothing.photo(nothing.preprocess(plain)) == 0).all()


class TestClassIndex:
    toy = classifier(
        ["tench, Tinca tinca", "Cardigan", "cardigan", "great_white_shark", "Egyptian cat", "tiger cat", "7"]
    )

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            (3, 3),
            ("3", 3),
            ("7", 6),  # a label first, then a number
            ("Cardigan", 1),
            ("cardigan", 2),
            ("tench", 0),
            ("tinca TINCA", 0),
            ("tench, tinca tinca", 0),
            ("Great white shark", 3),
            ("  egyptian   CAT ", 4),
        ],
    )
    def test_found(self, name, index):
        assert self.toy.class_index(name) == index

    def test_ambiguous(self):
        with pytest.raises(
            ValueError, match=r"'CARDIGAN' of toy is ambiguous: 1 \(Cardigan\), 2 \(cardigan\)"
        ):
            self.toy.class_index("CARDIGAN")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("cat", "nearest names are 'Egyptian cat', 'tiger cat'"),
            ("egyptain cat", "nearest names are 'Egyptian cat'"),
            ("qqqq", "nor one with a similar name"),
            ("", "nor one with a similar name"),
            (8, "its 7 classes are 0 to 6"),
            (-1, "its 7 classes are 0 to 6"),
            ("12", "its 7 classes are 0 to 6"),
            ("-1", "its 7 classes are 0 to 6"),
        ],
    )
    def test_unknown(self, name, message):
        with pytest.raises(ValueError, match=message):
            self.toy.class_index(name)

    @pytest.mark.parametrize("name", [True, 1.0, None])
    def test_wrong_type(self, name):
        with pytest.raises(TypeError, match="by its index or its name"):
            self.toy.class_index(name)


class TestWeightsHash:
    def test_it_depends_on_every_number_and_on_nothing_else(self):
        def build(module):
            return Classifier("any name", module, ("a",), to_unit).weights_sha256()

        first, second = nn.Linear(3, 2), nn.Linear(3, 2)
        assert build(first) != build(second)
        second.load_state_dict(first.state_dict())
        assert build(first) == build(second)
        with torch.no_grad():
            second.bias[1] += 1e-6
        assert build(first) != build(second)

    def test_it_is_what_the_docstring_says(self):
        module = nn.Linear(1, 1, dtype=torch.bfloat16)
        with torch.no_grad():
            module.weight.fill_(1)
            module.bias.fill_(0)
        parts = b"bias torch.bfloat16 (1,)\n\x00\x00weight torch.bfloat16 (1, 1)\n\x80\x3f"
        assert Classifier("", module, (), to_unit).weights_sha256() == hashlib.sha256(parts).hexdigest()
