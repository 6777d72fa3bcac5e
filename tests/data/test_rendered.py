import itertools
import pickle

import numpy as np
import pytest
import torch

from clarp.data import Scenes, rendered
from clarp.data.rendered import CLASSES, PARTS, SHORTCUT, SceneRegion


def pixels(scene):
    return torch.from_numpy(np.asarray(scene.open()).copy()).permute(2, 0, 1)


MANY = [sample.picture for sample in rendered(64, shortcut=3)]


def test_no_two_parts_tell_a_class_and_three_do():
    for count, alike in ((1, 4), (2, 2), (3, 1)):
        for parts in itertools.combinations(range(4), count):
            seen = [tuple(kinds[part] for part in parts) for kinds in CLASSES]
            assert all(seen.count(one) == alike for one in seen)
    for one, other in itertools.combinations(CLASSES, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) in (0, 2)


def test_the_same_seed_gives_the_same_pictures():
    first, second = rendered(20, seed=4), rendered(10, seed=4)
    assert [sample.id for sample in first][:10] == [sample.id for sample in second]
    for one, other in zip(first, second, strict=False):
        assert torch.equal(pixels(one.picture), pixels(other.picture))
        assert pickle.loads(pickle.dumps(one)) == one
    assert first.fingerprint() == rendered(20, seed=4).fingerprint()
    assert first.fingerprint() != rendered(20, seed=5).fingerprint()
    assert not torch.equal(pixels(first[0].picture), pixels(rendered(1, seed=5)[0].picture))


def test_what_is_left_out_changes_its_own_pixels_and_no_others():
    for scene in MANY:
        for name in (*PARTS, *scene.stones, SHORTCUT):
            changed = (pixels(scene) != pixels(scene.removed(name))).any(0)
            mask = scene.mask(name)
            assert not (changed & ~mask).any()
            if name in PARTS:
                assert int((changed & mask).sum()) > 0.95 * int(mask.sum()) > 10


def test_masks_do_not_overlap_and_all_parts_are_seen():
    for scene in MANY:
        masks = torch.stack([scene.mask(name) for name in scene.shown])
        assert int(masks.sum(0).max()) == 1
        assert all(int(scene.mask(part).sum()) > 20 for part in PARTS)
        border = torch.ones(64, 64, dtype=torch.bool)
        border[1:-1, 1:-1] = False
        assert not any((scene.mask(part) & border).any() for part in PARTS)


def test_the_mark_is_where_it_should_be_and_nowhere_else():
    for number, scene in enumerate(MANY):
        mask = scene.mask(SHORTCUT)
        assert bool(mask.any()) == (number % 8 == 3)
        if mask.any():
            assert int(mask.sum()) == (64 // 6) ** 2  # the object covers none of it
            assert (pixels(scene)[:, mask] == torch.tensor([0, 255, 255])[:, None]).all()
    objects = {scene.kinds for scene in MANY[3::8]}
    assert len(objects) > 1  # of any class: the mark alone tells


def test_labels_and_objects():
    for number, sample in enumerate(rendered(16)):
        assert sample.labels == ((number % 8,),)
        assert sample.picture.kinds == CLASSES[number % 8]
        truth = sample.truth(sample.labels[0])
        expected = torch.stack([sample.picture.mask(name) for name in ("body", *PARTS)]).any(0)
        assert torch.equal(truth.mask, expected)
    assert rendered(1).classes[1] == "0011"


def test_scenes_share_two_parts_with_each_of_two_classes():
    chosen = MANY[:24]
    scenes = Scenes.of(
        chosen, lambda image: torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
    )
    assert scenes.parts.shape == (24, 4, 64, 64)
    assert scenes.without_part.shape == (24, 4, 3, 64, 64)
    assert scenes.ground.shape == (24, 4, 64, 64)
    partners = set()
    for i, scene in enumerate(chosen):
        assert torch.equal(scenes.without_part[i, 2], pixels(scene.removed("tail")) / 255)
        assert torch.equal(scenes.ground[i, 3], scene.mask(SHORTCUT))
        first, second = (CLASSES[index] for index in scenes.others[i].tolist())
        own = [[a == b for a, b in zip(scene.kinds, other, strict=True)] for other in (first, second)]
        assert scenes.shared[i].tolist() == own
        assert (scenes.shared[i].sum(0) == 1).all()
        assert scenes.shared[i].sum(1).tolist() == [2, 2]
        partners.add(tuple(own[0]))
    assert len(partners) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "at least one picture"),
        ({"count": 1, "side": 31}, "at least 32 pixels"),
        ({"count": 1, "shortcut": 8}, "a class from 0 to 7"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        rendered(**options)


def test_a_mask_in_another_size():
    with pytest.raises(ValueError, match="draw it in that size"):
        SceneRegion(MANY[0], "head").mask((32, 32))
