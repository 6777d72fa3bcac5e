"""A session: what it gives must be what its parts give by themselves."""

import pytest
import torch
from PIL import Image
from torch import nn

from clarp.explainer import Explainer
from clarp.maps import PhotoMaps
from clarp.models import Classifier
from clarp.render import Look
from clarp.session import Session, device_named

LABELS = ("ant", "bee", "cow", "dog")


def preprocess(photo):
    if photo.size == (13, 13):
        raise RuntimeError("unlucky size")
    pixels = torch.frombuffer(bytearray(photo.resize((12, 12)).tobytes()), dtype=torch.uint8)
    return pixels.view(12, 12, 3).permute(2, 0, 1) / 255


@pytest.fixture
def session():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)
    )
    return Session(Classifier("toy", model.eval(), LABELS, preprocess))


@pytest.fixture
def images():
    return torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("target", [[1, 3], [[1, 3], [0, 2]], None])
def test_photo_maps_are_the_explanations_rows(session, images, target):
    explanation = Explainer(session.classifier.module, "sglrp")(images, target=target)
    for row, maps in enumerate(PhotoMaps.explained(explanation, [2])):
        targets = explanation.target[row].view(-1).tolist()
        assert maps.targets == targets
        assert torch.equal(maps.shown, explanation.shown[row].view(-1, 12, 12))
        assert torch.equal(maps.relevance, explanation.relevance[row].view(-1, 3, 12, 12))
        assert [maps.rivals(k) for k in range(len(targets))] == [[] if k == 2 else [2] for k in targets]
        pixels = torch.tensor(explanation.ledger.summary()["pixels"])[row].view(-1).tolist()
        assert [ledger["pixels"] for ledger in maps.ledgers] == pixels


def test_methods_come_in_the_order_of_their_names_and_once(session, images):
    names = ("random", "sglrp", "lrp", "random")
    assert [found.name for found in session.attributors(names, images[0])] == ["random", "sglrp", "lrp"]


def test_rivals_are_named_to_methods_that_have_some(session, images):
    lrp, sglrp, centre = session.attributors(("lrp", "sglrp", "centre"), images[0])
    found = [session.maps(method, images[0], [1], [3]) for method in (lrp, sglrp, centre)]
    assert [maps.against for maps in found] == [[], [3], []]
    alone = session.explainer("sglrp")(images[:1], target=1, against=3)
    assert torch.equal(found[1].shown, alone.shown)


def test_captions_name_class_probability_and_rivals(session, images):
    (method,) = session.attributors(("sglrp",), images[0])
    probabilities = torch.tensor([0.1, 0.6, 0.2, 0.1])
    maps = session.maps(method, images[0], [1, 2], [3])
    caption, names = session.words(maps, 0, probabilities, Look(), "a.jpg")
    assert caption.splitlines()[0] == "bee (60.0%) against dog"
    assert caption.splitlines()[1].endswith("toy · a.jpg")
    assert names is None
    caption, names = session.words(maps, 0, probabilities, Look("versus"))
    assert (caption.splitlines()[0], names) == ("bee or cow", ("bee", "cow"))


def test_the_caption_of_one_logit_names_both_answers(images):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 1, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    session = Session(Classifier("toy", model.eval(), ("not a bee", "bee"), preprocess))
    (method,) = session.attributors(("lrp",), images[0])
    for target, words in enumerate(
        ("red speaks for not a bee, blue for bee", "red speaks for bee, blue for not a bee")
    ):
        maps = session.maps(method, images[0], [target], [])
        caption, _ = session.words(maps, 0, torch.tensor([0.4, 0.6]), Look())
        assert words in caption


def test_probabilities_sum_to_one_and_tell_the_task(session, images):
    assert session.task is None
    assert float(session.probabilities(images[0]).sum()) == pytest.approx(1)
    assert session.task.name == "multiclass"


def test_what_fails_says_so(session):
    with pytest.raises(ValueError, match="the preprocessing failed with RuntimeError: unlucky size"):
        session.preprocessed(Image.new("RGB", (13, 13)))
    with pytest.raises(ValueError, match="--device warp can't be used here"):
        device_named("warp")
