"""DICOM under fire: what a file asks for is asked of a process that can be ended, and its own words are not told."""

import os
import sys

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from clarp import decoding
from clarp.data import Photo, image_folder
from clarp.data.problems import UnreadableImageError
from clarp.images import TooManyPixels, find_photos, open_photo
from test_dicom import EXAMPLES, RAMP, write


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory elsewhere")
def test_pixels_that_inflate_beyond_the_memory(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", np.zeros((9000, 9000), np.uint8))
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    assert path.stat().st_size < 200_000
    monkeypatch.setattr(decoding, "OWN", decoding.DecodingLimits(10, 150 << 20))
    with pytest.raises(TooManyPixels, match=r"a\.dcm: decoding the picture takes more than 150 MiB"):
        open_photo(path)
    with pytest.raises(UnreadableImageError, match="takes more than 150 MiB"):
        Photo("a.dcm", tmp_path).size()


def test_damaged_files_are_pictures_or_errors_that_name_them_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "OWN", decoding.DecodingLimits(2, 1 << 30))
    generator = np.random.default_rng(17)
    names = (
        "MR_small_RLE",
        "MR_small_jp2klossless",
        "SC_rgb_jpeg_dcmtk",
        "image_dfl",
        "examples_palette",
        "rtplan",
    )
    path = tmp_path / "a.dcm"
    refused = []
    for number in range(60):
        content = bytearray((EXAMPLES / f"{names[number % len(names)]}.dcm").read_bytes())
        for place in generator.integers(132, min(2500, len(content)), 1 + number % 20):
            content[place] = generator.choice([0, 1, 127, 128, 255])
        path.write_bytes(content)
        for look in (open_photo, lambda path: Photo(path.name, path.parent).size()):
            try:
                look(path)
            except ValueError as error:
                refused.append(str(error))
    assert 20 < len(refused) < 120
    assert all("a.dcm: " in said for said in refused)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_nobody_waits_for_a_pipe_that_is_named_like_dicom(tmp_path):
    (tmp_path / "ill").mkdir()
    for name in ("IM000001", "a.dcm"):
        os.mkfifo(tmp_path / "ill" / name)
    write(tmp_path / "ill" / "IM000002", RAMP.astype(np.uint8))
    assert [path.name for path in find_photos([tmp_path])] == ["IM000002"]
    dataset = image_folder(tmp_path)
    assert [sample.size for sample in dataset] == [(12, 16)]
    assert [problem.reason for problem in dataset.problems] == ["a named pipe"] * 2
    for look in (Photo.size, Photo.open):
        with pytest.raises(UnreadableImageError, match="a named pipe"):
            look(Photo("ill/IM000001", tmp_path))


def test_words_of_a_file_are_not_told(tmp_path):
    path = write(tmp_path / "a.dcm", RAMP.astype(np.uint8), SOPClassUID="4711.5")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"a\.dcm: no picture in this DICOM file\.$"):
        open_photo(path)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of processor time there")
def test_elements_without_end(tmp_path, monkeypatch):
    path = write(tmp_path / "a.dcm", RAMP.astype(np.uint8))
    assert open_photo(path).size == (16, 12)
    count = 1_500_000
    elements = np.zeros(count, [("group", "<u2"), ("element", "<u2"), ("vr", "S2"), ("length", "<u2")])
    elements["group"], elements["element"] = (
        0x8001 + 2 * (np.arange(count) >> 15),
        np.arange(count) & 0x7FFF,
    )
    elements["vr"] = b"LO"
    path.write_bytes(path.read_bytes() + elements.tobytes())
    monkeypatch.setattr(decoding, "OWN", decoding.DecodingLimits(1, 4 << 30))
    with pytest.raises(ValueError, match=r"a\.dcm: the picture takes more than 1 s to decode"):
        open_photo(path)
