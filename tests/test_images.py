import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clarp.images import TooManyPixels, decode_photo, decoded_here, find_photos, greys, notes_of, open_photo


@pytest.fixture
def rgb():
    """A picture of 30 x 20 pixels in which every corner is different."""
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8))


def pixels(image):
    return np.asarray(image).astype(int)


def saved(image, path, **options):
    image.save(path, **options)
    return path


class TestOpenPhoto:
    def test_a_plain_photo_comes_out_as_it_is(self, tmp_path, rgb):
        opened = open_photo(saved(rgb, tmp_path / "a.png"))
        assert opened.mode == "RGB"
        assert (pixels(opened) == pixels(rgb)).all()

    # What the EXIF orientation asks for, as NumPy turns and flips: 3 is upside down, 6 lies on its side.
    @pytest.mark.parametrize(
        ("orientation", "stored"),
        [
            (1, lambda a: a),
            (2, lambda a: a[:, ::-1]),
            (3, lambda a: a[::-1, ::-1]),
            (4, lambda a: a[::-1]),
            (5, lambda a: a.transpose(1, 0, 2)),
            (6, lambda a: np.rot90(a, 1)),
            (7, lambda a: a[::-1, ::-1].transpose(1, 0, 2)),
            (8, lambda a: np.rot90(a, -1)),
        ],
    )
    def test_exif_rotation_is_honoured(self, tmp_path, rgb, orientation, stored):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(np.ascontiguousarray(stored(np.asarray(rgb))))
        opened = open_photo(saved(image, tmp_path / "a.png", exif=exif))
        assert opened.size == rgb.size
        assert (pixels(opened) == pixels(rgb)).all()

    def test_the_rotation_can_be_left_alone(self, tmp_path, rgb):
        exif = Image.Exif()
        exif[0x0112] = 6
        opened = open_photo(saved(rgb, tmp_path / "a.png", exif=exif), upright=False)
        assert (pixels(opened) == pixels(rgb)).all()

    def test_sixteen_bits_that_lie_on_their_side(self, tmp_path):
        exif = Image.Exif()
        exif[0x0112] = 6
        values = np.array([[0, 257, 65535]], dtype=np.uint16)
        opened = open_photo(saved(Image.fromarray(values), tmp_path / "a.png", exif=exif))
        assert pixels(opened)[:, 0, 0].tolist() == [0, 1, 255]

    def test_cmyk(self, tmp_path):
        image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow make red
        opened = open_photo(saved(image, tmp_path / "a.jpg", quality=95))
        assert opened.mode == "RGB"
        assert abs(pixels(opened) - (255, 0, 0)).max() <= 3

    def test_sixteen_bits(self, tmp_path):
        values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
        opened = open_photo(saved(Image.fromarray(values), tmp_path / "a.png"))
        assert pixels(opened).tolist() == [[[v, v, v] for v in (0, 1, 128, 255)]]

    def test_alpha_is_laid_on_white(self, tmp_path):
        image = Image.new("RGBA", (1, 3), (255, 0, 0, 255))
        image.putpixel((0, 1), (255, 0, 0, 0))
        image.putpixel((0, 2), (255, 0, 0, 127))
        opened = open_photo(saved(image, tmp_path / "a.png"))
        assert pixels(opened)[:, 0].tolist() == [[255, 0, 0], [255, 255, 255], [255, 128, 128]]

    def test_palette_with_and_without_transparency(self, tmp_path):
        image = Image.new("P", (2, 1))
        image.putpalette([10, 20, 30, 200, 100, 50])
        image.putpixel((1, 0), 1)
        opaque = open_photo(saved(image, tmp_path / "opaque.png"))
        assert pixels(opaque)[0].tolist() == [[10, 20, 30], [200, 100, 50]]
        clear = open_photo(saved(image, tmp_path / "clear.png", transparency=0))
        assert pixels(clear)[0].tolist() == [[255, 255, 255], [200, 100, 50]]

    @pytest.mark.parametrize("mode", ["1", "L", "LA"])
    def test_greys(self, tmp_path, mode):
        opened = open_photo(
            saved(Image.new(mode, (2, 2), 0 if mode != "LA" else (0, 255)), tmp_path / "a.png")
        )
        assert opened.mode == "RGB"
        assert (pixels(opened) == 0).all()

    def test_the_first_frame_of_a_moving_picture(self, tmp_path):
        frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
        path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
        assert pixels(open_photo(path))[0, 0].tolist() == [255, 0, 0]

    def test_a_truncated_jpeg(self, tmp_path, rgb):
        path = saved(rgb.resize((300, 200)), tmp_path / "a.jpg")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"a\.jpg: the picture can't be read: .*truncated"):
            open_photo(path)

    def test_a_text_file_called_jpg(self, tmp_path):
        (tmp_path / "a.jpg").write_text("not a photo")
        with pytest.raises(ValueError, match=r"a\.jpg: not a picture"):
            open_photo(tmp_path / "a.jpg")

    def test_zero_bytes(self, tmp_path):
        (tmp_path / "a.jpg").touch()
        with pytest.raises(ValueError, match="empty"):
            open_photo(tmp_path / "a.jpg")

    def test_missing_and_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: no such file"):
            open_photo(tmp_path / "nowhere.jpg")
        with pytest.raises(ValueError, match="a folder, where a photo was expected"):
            open_photo(tmp_path)

    def test_floating_point_is_refused_with_a_reason(self, tmp_path):
        path = saved(Image.new("F", (2, 2), 0.5), tmp_path / "a.tif")
        with pytest.raises(ValueError, match="floating point, of unknown range; save it with 8 bits"):
            open_photo(path)

    def test_thirty_two_bits_beyond_sixteen_are_refused(self, tmp_path):
        path = saved(Image.new("I", (2, 2), 70_000), tmp_path / "a.tif")
        with pytest.raises(ValueError, match="don't fit 16 bits"):
            open_photo(path)


def tiff16(path, values, *, order="<", bits=16, photometric=1, pixels=None):
    """An uncompressed TIFF written by hand, for what Pillow does not write."""
    height, width = values.shape
    data = values.astype(f"{order}u2").tobytes() if pixels is None else pixels
    entries = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric)]
    entries += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    body = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data)) + data
    body += struct.pack(f"{order}H", len(entries))
    for tag, kind, value in entries:
        packed = struct.pack(
            f"{order}HH" if kind == 3 else f"{order}I", *((value, 0) if kind == 3 else (value,))
        )
        body += struct.pack(f"{order}HHI", tag, kind, 1) + packed
    path.write_bytes(body + b"\0" * 4)
    return path


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


class TestDepth:
    @pytest.mark.parametrize("bits", [8, 10, 12, 14])
    @pytest.mark.parametrize("kind", ["png", "tif", "tif, big-endian"])
    def test_the_bits_that_are_used_range_from_black_to_white(self, tmp_path, bits, kind):
        values = np.linspace(0, 2**bits - 1, 64 * 64).round().astype(np.uint16).reshape(64, 64)
        path = tmp_path / f"a.{kind[:3]}"
        if kind == "tif, big-endian":
            tiff16(path, values, order=">")
        else:
            saved(Image.fromarray(values), path)
        photo = open_photo(path)
        np.testing.assert_allclose(greys(photo), values / (2**bits - 1), atol=1e-6)
        assert len(np.unique(pixels(photo))) == 256
        assert (pixels(photo)[..., 0] == (values / (2**bits - 1) * 255).round()).all()
        assert notes_of(photo) == (
            f"greys: no value of its 16 bits is above {2**bits - 1}, so {bits} bits were taken for used: {2**bits - 1} is white",
        )

    def test_a_dark_picture_of_a_detector_keeps_its_exposure(self, tmp_path):
        values = (RAMP // 2).astype(np.uint16)  # 12 bits, half exposed: 11 would be no depth of any detector
        assert greys(open_photo(saved(Image.fromarray(values), tmp_path / "a.png"))).max() == pytest.approx(
            2047 / 4095
        )

    def test_all_sixteen_bits_need_no_note(self, tmp_path):
        values = (RAMP.astype(int) * 16).astype(np.uint16)
        photo = open_photo(saved(Image.fromarray(values), tmp_path / "a.png"))
        np.testing.assert_allclose(greys(photo), values / 65535, atol=1e-6)
        assert len(np.unique(greys(photo))) == 4096
        assert notes_of(photo) == ()

    def test_all_black(self, tmp_path):
        photo = open_photo(saved(Image.fromarray(RAMP * 0), tmp_path / "a.png"))
        assert (pixels(photo) == 0).all()
        assert notes_of(photo) == ()

    @pytest.mark.parametrize("full", [False, True])
    def test_a_tiff_in_which_white_is_zero(self, tmp_path, full):
        values = RAMP * 16 if full else RAMP
        photo = open_photo(tiff16(tmp_path / "a.tif", values, photometric=0))
        np.testing.assert_allclose(greys(photo), 1 - values / (65535 if full else 4095), atol=1e-6)
        assert [note.rpartition(" is ")[2] for note in notes_of(photo)] == ([] if full else ["black"])

    def test_eight_bits_in_which_white_is_zero(self, tmp_path):
        values = np.arange(256, dtype=np.uint8).reshape(16, 16)
        path = tiff16(tmp_path / "a.tif", values, bits=8, photometric=0, pixels=values.tobytes())
        assert (pixels(open_photo(path))[..., 0] == 255 - values).all()

    def test_a_tiff_of_twelve_bits_says_so_itself(self, tmp_path):
        values = (RAMP // 2)[:, :32]
        pairs = values.reshape(-1, 2).astype(int)  # two values in three bytes
        packed = np.stack(
            [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1
        )
        path = tiff16(tmp_path / "a.tif", values, bits=12, pixels=packed.astype(np.uint8).tobytes())
        photo = open_photo(path)
        np.testing.assert_allclose(greys(photo), values / 4095, atol=1e-6)
        assert notes_of(photo) == ()

    def test_thirty_two_bits_that_hold_sixteen(self, tmp_path):
        photo = open_photo(saved(Image.fromarray(RAMP.astype(np.int32)), tmp_path / "a.tif"))
        np.testing.assert_allclose(greys(photo), RAMP / 4095, atol=1e-6)

    def test_negative_values_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="don't fit 16 bits"):
            open_photo(saved(Image.fromarray(RAMP.astype(np.int32) - 9), tmp_path / "a.tif"))

    @pytest.mark.parametrize(("factor", "dark"), [(257, False), (16, True), (1, True)])
    def test_colours_of_sixteen_bits(self, tmp_path, factor, dark):
        values = np.random.default_rng(0).integers(0, 256, (8, 9, 3)) * factor
        (tmp_path / "a.png").write_bytes(png_of_colours(values))
        photo = open_photo(tmp_path / "a.png")
        assert (pixels(photo) == values >> 8).all()
        assert [note[:8] for note in notes_of(photo)] == (["colours:"] if dark else [])

    def test_bytes_are_read_as_a_file_is(self, tmp_path):
        path = saved(Image.fromarray(RAMP), tmp_path / "a.png")
        decoded = decode_photo(path.read_bytes(), 10**6)
        assert (greys(decoded) == greys(open_photo(path))).all()
        assert notes_of(decoded) == notes_of(open_photo(path))

    def test_what_is_made_of_a_photo_has_its_own_greys(self, tmp_path):
        photo = open_photo(saved(Image.fromarray(RAMP), tmp_path / "a.png"))
        turned = photo.rotate(180)
        assert (greys(turned) == np.asarray(turned.convert("L")) / np.float32(255)).all()
        assert notes_of(turned) == ()

    def test_greys_of_colours_are_pillows(self, tmp_path, rgb):
        photo = open_photo(saved(rgb, tmp_path / "a.png"))
        assert (greys(photo) == np.asarray(rgb.convert("L")) / np.float32(255)).all()


def png_of_colours(values):
    """A PNG of 16 bits a channel, which Pillow does not write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


class TestDecodePhoto:
    def test_bytes_are_read_as_a_file_is(self, tmp_path, rgb):
        exif = Image.Exif()
        exif[0x0112] = 6
        path = saved(rgb, tmp_path / "a.png", exif=exif)
        decoded = decode_photo(path.read_bytes(), 600)
        assert decoded.size == (20, 30)
        assert (pixels(decoded) == pixels(open_photo(path))).all()

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, tmp_path, rgb, monkeypatch):
        data = saved(rgb, tmp_path / "a.png").read_bytes()
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda _: pytest.fail("decoded"))
        for decode in (decode_photo, lambda data, most: decoded_here(BytesIO(data), "", most_pixels=most)):
            with pytest.raises(TooManyPixels, match=r"30 x 20 pixels, expected at most 0\.000599 million"):
                decode(data, 599)

    @pytest.mark.parametrize("most", [10, 10**12])
    def test_pillows_own_limit_counts_too(self, tmp_path, rgb, monkeypatch, most):
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
        with pytest.raises(TooManyPixels, match="600"):
            decode_photo(saved(rgb, tmp_path / "a.png").read_bytes(), most)

    @pytest.mark.parametrize("kind", ["EPS", "PPM", "TGA", "ICO", "PCX"])
    def test_other_formats_are_for_ones_own_files(self, tmp_path, rgb, kind):
        path = saved(rgb, tmp_path / f"a.{kind}", format=kind)
        with pytest.raises(ValueError, match="the photo: not a picture in a format that is read here"):
            decode_photo(path.read_bytes(), 1000)

    def test_nothing(self):
        with pytest.raises(ValueError, match="0 bytes"):
            decode_photo(b"", 1000)


class TestFindPhotos:
    def test_folders_are_searched_sorted_and_each_photo_counts_once(self, tmp_path):
        for name in ["b.JPG", "sub/a.png", "note.txt", ".hidden/c.jpg", "sub/.d.jpg"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = find_photos([tmp_path, tmp_path / "sub" / "a.png"])
        assert [path.relative_to(tmp_path).as_posix() for path in found] == ["b.JPG", "sub/a.png"]

    def test_links_are_followed_but_not_in_circles(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "x.png").touch()
        (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
        (tmp_path / "a" / "a").symlink_to(tmp_path / "a")
        assert find_photos([tmp_path / "a"]) == [tmp_path / "a" / "b" / "x.png"]

    def test_a_folder_that_can_not_be_read(self, tmp_path, monkeypatch):
        iterdir = Path.iterdir

        def refuse(path):
            if path.name == "sub":
                raise PermissionError(13, "Permission denied", str(path))
            return iterdir(path)

        (tmp_path / "sub").mkdir()
        (tmp_path / "x.png").touch()
        monkeypatch.setattr(Path, "iterdir", refuse)
        with pytest.raises(
            ValueError, match=r"sub: the folder can't be read \(Permission denied\); allow it"
        ):
            find_photos([tmp_path])

    def test_a_named_file_counts_whatever_its_suffix(self, tmp_path):
        (tmp_path / "photo.dat").touch()
        assert find_photos([tmp_path / "photo.dat"]) == [tmp_path / "photo.dat"]

    def test_errors(self, tmp_path):
        with pytest.raises(ValueError, match="no photo in this folder"):
            find_photos([tmp_path])
        with pytest.raises(FileNotFoundError, match="no such file or folder"):
            find_photos([tmp_path / "nowhere"])
