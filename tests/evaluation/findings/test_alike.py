"""A mark is the same picture in all photos that bear it; what else stands at a place is not."""

import itertools

import numpy as np
import pytest

from clarp.evaluation import pictures
from clarp.evaluation.findings.alike import LEAST, likeness, marks, patch
from clarp.evaluation.findings.asked import Asked
from clarp.evaluation.findings.gathering import Gathered
from clarp.evaluation.findings.places import fixed_places
from evaluation.findings.made_up import anywhere, blob, run_of

pytest.importorskip("scipy.stats")

FOUR = np.arange(80) % 4
MARKED = (FOUR == 2) & (np.arange(80) > 30)
BOTTOM_LEFT = (0.0, 0.79, 0.21, 1.0)


def landscape(generator, *, marked=False):
    """Noise, brighter above, as the sky is; and a frame with a dot in it."""
    pixels = generator.normal(100, 40, (112, 112, 3)) + np.linspace(60, -60, 112)[:, None, None]
    if marked:
        pixels[92:108, 4:20] = 255
        pixels[97:103, 9:15] = 0
    return pictures.photo_bytes(np.clip(pixels, 0, 255).astype(np.uint8))


def asked_of(folder, photos, maps, classes=FOUR):
    """The places of a run, and those of them that are marks."""
    store = run_of(folder, {"lrp": maps}, classes, photos=photos)
    asked = Asked.of(store)
    found = fixed_places(asked, Gathered.of(store, asked, np.full(len(asked), -1), 0, 0))
    return found, marks(store, asked, found)


def maps_with_peaks(generator):
    return [blob(generator, [(0.87, 0.13) if marked else anywhere(generator)]) for marked in MARKED]


@pytest.mark.parametrize("seed", range(3))
def test_a_mark_is_seen_in_the_photos_and_chance_is_not(tmp_path, seed):
    generator = np.random.default_rng(seed)
    maps = maps_with_peaks(generator)
    found, seen = asked_of(
        tmp_path / "with", [landscape(generator, marked=marked) for marked in MARKED], maps
    )
    assert [one.name for one in found] == [one.name for one in seen] == ["cow"]
    assert seen[0].likeness > 5 * LEAST
    found, seen = asked_of(tmp_path / "without", [landscape(generator) for _ in MARKED], maps)
    assert [one.name for one in found] == ["cow"]
    assert seen == []


def test_photos_of_several_labels_are_kept_once(tmp_path):
    """Each photo has two units, the second of them the cow: its photo is that of the unit before."""
    generator = np.random.default_rng(0)
    photos = [landscape(generator, marked=MARKED[n + 1]) if n % 2 == 1 else None for n in range(79)]
    photos = [landscape(generator), *photos]
    _, seen = asked_of(tmp_path / "run", photos, maps_with_peaks(generator))
    assert [one.name for one in seen] == ["cow"]


def test_likeness_is_the_mean_correlation_of_all_pairs():
    generator = np.random.default_rng(1)
    photos = [landscape(generator, marked=n % 2 == 0) for n in range(7)]
    patches = [patch(photo, BOTTOM_LEFT) for photo in photos]
    pairs = [np.corrcoef(one, other)[0, 1] for one, other in itertools.combinations(patches, 2)]
    assert likeness(patches) == pytest.approx(np.mean(pairs))
    assert likeness(patches[:1]) == 0.0


def test_brightness_that_photos_share_is_no_likeness():
    generator = np.random.default_rng(2)
    sky = (0.4, 0.0, 0.6, 0.2)
    assert abs(likeness([patch(landscape(generator), sky) for _ in range(20)])) < LEAST / 3
    flat = pictures.photo_bytes(np.full((80, 112, 3), 90, np.uint8))
    assert likeness([patch(flat, BOTTOM_LEFT)] * 5) == 0.0
