"""DICOM: the greys are those of the standard's formulas, and what can't be read is said."""

import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from clarp import decoding, dicom
from clarp.cli import main
from clarp.data import Photo, image_folder
from clarp.images import decode_photo, decoded_here, find_photos, greys, notes_of, open_photo

EXAMPLES = Path(os.path.dirname(pydicom.data.__file__)) / "test_files"  # noqa: PTH120  the package's, installed with it
RAMP = np.arange(12 * 16, dtype=np.int32).reshape(12, 16)


def write(path, values, **elements):
    """A file with these stored values, (H, W), (F, H, W) or (H, W, 3)."""
    values = np.asarray(values)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711-secret"
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.SamplesPerPixel = 1
    if values.ndim == 3 and values.shape[-1] == 3:
        dataset.SamplesPerPixel, dataset.PlanarConfiguration = 3, 0
        dataset.PhotometricInterpretation = "RGB"
        dataset.Rows, dataset.Columns = values.shape[:2]
    else:
        dataset.Rows, dataset.Columns = values.shape[-2:]
        if values.ndim == 3:
            dataset.NumberOfFrames = len(values)
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    dataset.BitsAllocated = dataset.BitsStored = 8 * values.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelData = values.astype(values.dtype.newbyteorder("<")).tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def no_pydicom(tmp_path_factory, monkeypatch):
    """The processes that decode photos don't find it."""
    folder = tmp_path_factory.mktemp("absent")
    (folder / "pydicom.py").write_text("raise ModuleNotFoundError('none', name='pydicom')")
    decoding.close()
    monkeypatch.syspath_prepend(folder)
    yield
    decoding.close()


def linear(values, centre, width):
    """PS3.3 C.11.2.1.2.1, from 0 to 1."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def item(**elements):
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


class TestGreys:
    @pytest.mark.parametrize("stored", [np.uint8, np.uint16, np.int16])
    def test_a_window(self, tmp_path, stored):
        photo = open_photo(write(tmp_path / "a.dcm", RAMP.astype(stored), WindowCenter=100, WindowWidth=120))
        expected = linear(RAMP, 100, 120)
        np.testing.assert_allclose(greys(photo), expected, atol=1e-6)
        assert photo.mode == "RGB"
        assert (np.asarray(photo)[..., 1] == (expected * 255).round()).all()
        assert notes_of(photo) == ("DICOM: greys by the file's window (centre 100, width 120)",)

    def test_slope_and_intercept_come_before_the_window(self, tmp_path):
        stored = (RAMP * 10 - 800).astype(np.int16)  # signed
        path = write(
            tmp_path / "a.dcm",
            stored,
            RescaleSlope=2,
            RescaleIntercept=-1024,
            WindowCenter=-1500,
            WindowWidth=1600,
        )
        np.testing.assert_allclose(
            greys(open_photo(path)), linear(stored * 2.0 - 1024, -1500, 1600), atol=1e-6
        )

    def test_a_negative_slope_turns_dark_into_bright(self, tmp_path):
        path = write(
            tmp_path / "a.dcm",
            RAMP.astype(np.uint16),
            RescaleSlope=-1,
            RescaleIntercept=200,
            WindowCenter=100,
            WindowWidth=100,
        )
        np.testing.assert_allclose(greys(open_photo(path)), linear(200.0 - RAMP, 100, 100), atol=1e-6)

    def test_monochrome1_is_inverted_once(self, tmp_path):
        path = write(
            tmp_path / "a.dcm",
            RAMP.astype(np.uint16),
            PhotometricInterpretation="MONOCHROME1",
            PresentationLUTShape="INVERSE",
            WindowCenter=100,
            WindowWidth=120,
        )
        photo = open_photo(path)
        np.testing.assert_allclose(greys(photo), 1 - linear(RAMP, 100, 120), atol=1e-6)
        assert notes_of(photo)[0].endswith("; inverted (MONOCHROME1)")

    @pytest.mark.parametrize(
        ("function", "formula"),
        [
            ("LINEAR_EXACT", lambda x, c, w: np.clip((x - c) / w + 0.5, 0, 1)),
            ("SIGMOID", lambda x, c, w: 1 / (1 + np.exp(-4 * (x - c) / w))),
        ],
    )
    def test_the_other_window_functions(self, tmp_path, function, formula):
        path = write(
            tmp_path / "a.dcm",
            RAMP.astype(np.int16),
            WindowCenter=90,
            WindowWidth=50,
            VOILUTFunction=function,
        )
        np.testing.assert_allclose(greys(open_photo(path)), formula(RAMP, 90, 50), atol=1e-6)

    def test_the_first_of_several_windows(self, tmp_path):
        photo = open_photo(
            write(tmp_path / "a.dcm", RAMP.astype(np.uint16), WindowCenter=[100, 40], WindowWidth=[120, 10])
        )
        np.testing.assert_allclose(greys(photo), linear(RAMP, 100, 120), atol=1e-6)
        assert "the first of 2" in notes_of(photo)[0]

    def test_a_table(self, tmp_path):
        table = (np.arange(200) ** 2 % 1024).astype(np.uint16)
        lut = item(LUTDescriptor=[200, 10, 10], LUTData=table.tolist())
        lut["LUTData"].VR = "US"
        photo = open_photo(write(tmp_path / "a.dcm", RAMP.astype(np.uint16), VOILUTSequence=[lut]))
        np.testing.assert_allclose(greys(photo), table[np.clip(RAMP - 10, 0, 199)] / 1023, atol=1e-6)
        assert "VOI table" in notes_of(photo)[0]

    @pytest.mark.parametrize(
        "window", [{}, {"WindowCenter": 5, "WindowWidth": 0}, {"WindowCenter": None, "WindowWidth": None}]
    )
    @pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
    def test_without_a_window_the_values_range_from_black_to_white(self, tmp_path, window, kind):
        stored = (RAMP * 7 - 500).astype(np.int16)
        photo = open_photo(write(tmp_path / "a.dcm", stored, PhotometricInterpretation=kind, **window))
        expected = RAMP / RAMP.max()
        np.testing.assert_allclose(greys(photo), expected if kind[-1] == "2" else 1 - expected, atol=1e-6)
        ends = ("black", "white") if kind[-1] == "2" else ("white", "black")
        assert f"smallest value (-500) is {ends[0]}, and its greatest (837) {ends[1]}" in notes_of(photo)[0]

    def test_padding_is_no_value(self, tmp_path):
        stored = (RAMP + 1000).astype(np.int16)
        stored[:3] = -2000
        photo = open_photo(write(tmp_path / "a.dcm", stored, PixelPaddingValue=-2000))
        expected = np.clip((stored - 1048.0) / 143, 0, 1)
        np.testing.assert_allclose(greys(photo), expected, atol=1e-6)

    def test_one_value_only(self, tmp_path):
        assert (greys(open_photo(write(tmp_path / "a.dcm", np.full((3, 4), 7, np.uint8)))) == 0).all()

    def test_frames_and_the_windows_of_enhanced_files(self, tmp_path):
        frames = np.stack([RAMP, RAMP.T.reshape(12, 16), RAMP * 0]).astype(np.uint16)
        shared = item(
            PixelValueTransformationSequence=[item(RescaleSlope=3, RescaleIntercept=-10, RescaleType="US")]
        )
        own = [item(FrameVOILUTSequence=[item(WindowCenter=c, WindowWidth=200)]) for c in (300, 20, 30)]
        path = write(
            tmp_path / "a.dcm",
            frames,
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=own,
        )
        photo = open_photo(path)
        np.testing.assert_allclose(greys(photo), linear(RAMP * 3.0 - 10, 300, 200), atol=1e-6)
        assert notes_of(photo)[0] == "DICOM: the first of 3 frames"

    def test_twelve_bits_keep_all_their_greys(self, tmp_path):
        stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
        photo = open_photo(write(tmp_path / "a.dcm", stored, BitsStored=12, HighBit=11))
        assert len(np.unique(greys(photo))) == 4096
        assert len(np.unique(np.asarray(photo))) == 256

    def test_colours(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        photo = open_photo(write(tmp_path / "a.dcm", colours))
        assert (np.asarray(photo) == colours).all()
        assert notes_of(photo) == ()

    @pytest.mark.parametrize(
        ("name", "size"),
        [
            ("MR_small_RLE", (64, 64)),
            ("MR_small_bigendian", (64, 64)),
            ("MR_small_jp2klossless", (64, 64)),
            ("SC_rgb_jpeg_dcmtk", (100, 100)),
            ("image_dfl", (512, 512)),
            ("examples_palette", (350, 800)),
            ("examples_ybr_color", (240, 320)),
        ],
    )
    def test_syntaxes_that_are_decoded(self, name, size):
        path = EXAMPLES / f"{name}.dcm"
        photo = open_photo(path)
        assert (photo.height, photo.width) == dicom.dicom_size(path, path.name) == size
        if name.startswith("MR_small"):
            plain = open_photo(EXAMPLES / "MR_small.dcm")
            assert (greys(photo) == greys(plain)).all()


class TestRefusals:
    def test_a_compression_without_decoder_is_named_with_its_packages(self):
        with pytest.raises(
            ValueError,
            match=r"JPEG Lossless.*1\.2\.840\.10008\.1\.2\.4\.70.*no decoder is installed; pip install.*pylibjpeg-libjpeg",
        ):
            open_photo(EXAMPLES / "SC_rgb_jpeg_gdcm.dcm")

    def test_twelve_bit_jpeg(self):
        with pytest.raises(
            ValueError, match=r"compressed as JPEG Extended.*a kind that the installed decoders don't read"
        ):
            open_photo(EXAMPLES / "JPGExtended.dcm")

    def test_no_picture(self):
        with pytest.raises(ValueError, match=r"no picture in this DICOM file \(it is a RT Plan Storage\)"):
            open_photo(EXAMPLES / "rtplan.dcm")

    @pytest.mark.parametrize(
        "content", [b"text", b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICM" + b"\xff" * 200]
    )
    def test_damaged(self, tmp_path, content):
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.dcm: (the DICOM file can't be read|no picture)"):
            open_photo(tmp_path / "a.dcm")

    def test_truncated_pixels(self, tmp_path):
        path = write(tmp_path / "a.dcm", RAMP.astype(np.uint16))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(ValueError, match="the DICOM file can't be read") as error:
            open_photo(path)
        assert "Doe" not in str(error.value)

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, tmp_path, monkeypatch):
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 50)
        monkeypatch.setattr("pydicom.pixels.pixel_array", lambda *_, **__: pytest.fail("decoded"))
        with pytest.raises(ValueError, match="too many pixels, 16 x 12"):
            decoded_here(write(tmp_path / "a.dcm", RAMP.astype(np.uint8)), "a.dcm")

    def test_the_limit_on_pixels_holds_in_the_decoder_too(self, tmp_path, monkeypatch):
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 50)
        with pytest.raises(ValueError, match=r"a\.dcm: too many pixels, 16 x 12"):
            open_photo(write(tmp_path / "a.dcm", RAMP.astype(np.uint8)))

    def test_without_pydicom_it_says_how_to_install_it(self, tmp_path, no_pydicom):
        path = write(tmp_path / "a.dcm", RAMP.astype(np.uint8))
        for look in (open_photo, lambda path: Photo(path.name, path.parent).size()):
            with pytest.raises(ModuleNotFoundError, match=r'pip install "clarp\[dicom\]"'):
                look(path)

    @pytest.mark.parametrize("rows", [[12, 12], 0])
    def test_odd_sizes_are_damage(self, tmp_path, rows):
        path = write(tmp_path / "a.dcm", RAMP.astype(np.uint8), Rows=rows)
        for look in (open_photo, lambda path: Photo(path.name, path.parent).size()):
            with pytest.raises(ValueError, match=r"a\.dcm: (the DICOM|damaged \(the DICOM|.*no picture)"):
                look(path)

    def test_the_server_says_that_it_does_not_read_it(self, tmp_path):
        with pytest.raises(ValueError, match="DICOM file, which is not read here"):
            decode_photo(write(tmp_path / "a.dcm", RAMP.astype(np.uint8)).read_bytes(), 10**6)


class TestFolders:
    def test_files_are_found_by_suffix_or_mark(self, tmp_path):
        for name in ("a.dcm", "B.DCM", "IM000001", "1.2.840.99", "DICOMDIR", "notes.txt"):
            write(tmp_path / name, RAMP.astype(np.uint8))
        (tmp_path / "README").write_text("no picture")
        assert [path.name for path in find_photos([tmp_path])] == ["1.2.840.99", "B.DCM", "IM000001", "a.dcm"]

    def test_data_sets(self, tmp_path):
        for name in ("ill", "well"):
            (tmp_path / name).mkdir()
            write(tmp_path / name / "x.dcm", RAMP.astype(np.uint16), WindowCenter=100, WindowWidth=120)
        dataset = image_folder(tmp_path)
        assert [sample.size for sample in dataset] == [(12, 16), (12, 16)]
        np.testing.assert_allclose(greys(dataset[0].image()), linear(RAMP, 100, 120), atol=1e-6)
        assert Photo("ill/x.dcm", tmp_path).open().mode == "RGB"


MODEL = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
"""


@pytest.fixture
def hospital(tmp_path):
    """A model of greys in a file, and a folder with one DICOM file per class and a PNG of 12 bits."""
    (tmp_path / "grey.py").write_text(MODEL)
    generator = np.random.default_rng(0)
    for name in ("class 0", "class 1", "class 2"):
        (tmp_path / "scans" / name).mkdir(parents=True)
        values = generator.integers(0, 3000, (250, 240)).astype(np.uint16)
        write(tmp_path / "scans" / name / "scan.dcm", values, WindowCenter=1500, WindowWidth=2000)
    Image.fromarray(values).save(tmp_path / "scans" / "class 2" / "scan.png")
    return tmp_path


def run(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments)])
    return stopped.value.code


class TestCommands:
    def test_explain(self, hospital, capsys):
        out = hospital / "maps"
        assert run("explain", hospital / "scans", "--model", f"{hospital}/grey.py:build", "--out", out) == 0
        error = capsys.readouterr().err
        assert "the model takes 1 channel" in error
        assert "scan.dcm: DICOM: greys by the file's window (centre 1500, width 2000)" in error
        text = (out / "manifest.json").read_text()
        manifest = json.loads(text)
        assert [len(photo["notes"]) for photo in manifest["photos"]] == [1] * 4
        assert "12 bits were taken for used" in manifest["photos"][3]["notes"][0]
        assert "Doe" not in text
        assert "4711" not in text
        assert "Doe" not in error
        assert "4711" not in error
        relevance = np.load(out / manifest["photos"][0]["explanations"][0]["relevance"])
        assert relevance.shape == (1, 224, 224)

    def test_explain_names_what_it_can_not_read(self, hospital, capsys):
        bad = hospital / "scans" / "class 0" / "scan.dcm"
        bad.write_bytes((EXAMPLES / "SC_rgb_jpeg_gdcm.dcm").read_bytes())
        model, out = f"{hospital}/grey.py:build", hospital / "maps"
        assert run("explain", hospital / "scans", "--model", model, "--out", out) == 1
        assert "its pixels are compressed as JPEG Lossless" in capsys.readouterr().err

    def test_explain_without_pydicom(self, hospital, capsys, no_pydicom):
        model, out = f"{hospital}/grey.py:build", hospital / "maps"
        assert run("explain", hospital / "scans", "--model", model, "--out", out) == 1
        assert capsys.readouterr().err.count('pip install "clarp[dicom]"') == 3
        assert len(json.loads((out / "manifest.json").read_text())["photos"]) == 1

    def test_compare(self, hospital, capsys):
        photo, out = hospital / "scans" / "class 0" / "scan.dcm", hospital / "sheet.png"
        model = f"{hospital}/grey.py:build"
        assert run("compare", photo, "--model", model, "--methods", "lrp,gradient", "--out", out) == 0
        assert "greys by the file's window" in capsys.readouterr().err
        assert json.loads(out.with_suffix(".json").read_text())["photo"]["notes"]

    def test_evaluate(self, hospital, capsys):
        model, out = f"{hospital}/grey.py:build", hospital / "run"
        assert run("evaluate", hospital / "scans", "--model", model, "--methods", "lrp", "--out", out) == 0
        error = capsys.readouterr().err
        assert "greys by the file's window (centre 1500, width 2000); the like of 2 other pictures" in error
        assert "12 bits were taken for used" in error
