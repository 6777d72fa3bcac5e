"""The common frame against plain loops."""

import numpy as np
import pytest

from clarp.evaluation.findings.frame import (
    ALONG,
    FIELDS,
    NONE,
    PEAKS,
    PLACES,
    box_of,
    covered,
    evidence,
    framed,
    in_a_box,
    name_of,
    near,
    peaks,
    windowed,
)


@pytest.fixture
def generator():
    return np.random.default_rng(3)


@pytest.mark.parametrize("size", [(14, 14), (56, 42), (9, 30), (7, 21), (1, 56)])
def test_framed_divides_by_area(generator, size):
    shares = generator.random((2, *size))
    shares /= shares.sum(axis=(1, 2), keepdims=True)
    # Each cell as FIELDS x FIELDS equal pieces: then every field is a whole number of pieces.
    fine = np.kron(shares, np.ones((FIELDS, FIELDS))) / FIELDS**2
    expected = fine.reshape(2, FIELDS, size[0], FIELDS, size[1]).sum(axis=(2, 4))
    np.testing.assert_allclose(framed(shares), expected, rtol=1e-5)


def test_evidence_is_what_speaks_for_the_class():
    codes = np.array([[[127, -127], [-128, 64]], [[-1, 0], [0, -128]]], np.int8)
    shares, totals = evidence(codes)
    assert totals.tolist() == [1 + (64 / 127) ** 2, 0]
    np.testing.assert_allclose(shares[0] * totals[0], [[1, 0], [0, (64 / 127) ** 2]])
    assert not shares[1].any()


def test_windows_and_peaks_equal_loops(generator):
    frames = generator.random((20, FIELDS, FIELDS)) ** 6
    windows = windowed(frames)
    found = peaks(windows)
    for frame, window, places in zip(frames, windows, found, strict=True):
        expected = {}
        for row in range(ALONG):
            for column in range(ALONG):
                value = frame[row : row + 3, column : column + 3].sum()
                assert window[row, column] == pytest.approx(value)
                around = window[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
                if window[row, column] == around.max() and window[row, column] >= window.max() / 2:
                    expected[row * ALONG + column] = window[row, column]
        strongest = sorted(expected, key=lambda place: -expected[place])[:PEAKS]
        assert places.tolist() == strongest + [NONE] * (PEAKS - len(strongest))


def test_a_map_without_evidence_has_no_peak():
    assert (peaks(np.zeros((1, ALONG, ALONG))) == NONE).all()


def test_near_is_a_field_around(generator):
    found = generator.integers(0, PLACES, (30, PEAKS)).astype(np.uint8)
    found[:, 2:][generator.random((30, 2)) < 0.5] = NONE
    hits = near(found)
    for places, own in zip(found, hits, strict=True):
        for place in range(PLACES):
            row, column = divmod(place, ALONG)
            expected = any(
                max(abs(row - p // ALONG), abs(column - p % ALONG)) <= 1
                for p in places.astype(int)
                if p != NONE
            )
            assert own[place] == expected


def test_the_part_in_boxes():
    boxes = [0.0, 0.0, 0.25, 0.5, 0.125, 0.25, 0.5, 0.5]  # two that overlap
    inside = covered(boxes, 4, 8)
    expected = np.zeros((4, 8))
    expected[:2, :2] = 1
    expected[1, 1:4] = 1
    assert inside.tolist() == expected.tolist()
    assert covered([0.0, 0.0, 0.5, 0.125], 4, 2)[0].tolist() == [0.5, 0.0]
    assert not covered([], 3, 3).any()
    assert in_a_box(0, [0.0, 0.0, 0.2, 0.2])
    assert not in_a_box(0, [0.11, 0.0, 0.2, 0.2])  # its middle is at 1.5 / 14


def test_a_place_is_named_by_the_third_of_its_middle():
    for place in range(PLACES):
        left, top, right, bottom = box_of(place)
        assert right - left == pytest.approx(3 / FIELDS)
        words = name_of(place).split()
        for start, end, names in ((top, bottom, ("top", "bottom")), (left, right, ("left", "right"))):
            middle = (start + end) / 2
            assert (names[0] in words) == (middle < 1 / 3)
            assert (names[1] in words) == (middle >= 2 / 3)
