"""No file can take the machine: time and memory of a decode are bounded, and its process can be ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

import bombs
from clarp import decoding
from clarp.data.photo import Photo
from clarp.data.problems import UnreadableImageError
from clarp.decoding import DecodingError, DecodingLimits
from clarp.images import TooManyPixels, decode_photo, greys, open_photo

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
GOOD = bombs.saved(PICTURE, "PNG")


@pytest.fixture
def short(monkeypatch):
    """One second for all photos."""
    monkeypatch.setattr(decoding, "OWN", DecodingLimits(1, 4 << 30))
    monkeypatch.setattr(decoding, "STRANGERS", DecodingLimits(1, 1536 << 20))


def good() -> bool:
    return decode_photo(GOOD, 1000).tobytes() == PICTURE.tobytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
class TestTime:
    BOMB = bombs.scans(4096, 4000)  # 24 s without a bound

    def test_a_jpeg_of_few_bytes_with_thousands_of_scans(self):
        assert len(self.BOMB) < 200_000
        began = time.monotonic()
        with pytest.raises(
            ValueError, match="4005 scans of 4096 x 4096 pixels; save it anew as a plain JPEG"
        ):
            decode_photo(self.BOMB, 50_000_000)
        assert time.monotonic() - began < 2
        assert good()

    def test_a_jpeg_with_thousands_of_segments(self, short):
        began = time.monotonic()
        with pytest.raises(
            ValueError, match="the photo: the picture takes more than 1 s to decode; save it anew"
        ):
            decode_photo(bombs.segments(1_500_000), 50_000_000)
        assert time.monotonic() - began < 8
        assert good()

    def test_whoever_waits_can_be_told_to_stop_waiting(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(self.BOMB)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(open_photo, path)
            time.sleep(0.5)
            began = time.monotonic()
            decoding.interrupt()
            with pytest.raises(ValueError, match=r"a\.jpg: the picture can't be read: its decoder ended"):
                asked.result()
        assert time.monotonic() - began < 5
        assert good()

    def test_usual_scans_of_a_large_photo(self):
        assert decode_photo(bombs.scans(7000, 15), 50_000_000).size == (7000, 7000)

    def test_wherever_photos_are_opened(self, short, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(self.BOMB)
        with pytest.raises(ValueError, match=r"a\.jpg: the picture takes more than 1 s"):
            open_photo(path)
        for look in (Photo.open, Photo.open_with_alpha, Photo.indices):
            with pytest.raises(
                UnreadableImageError, match=r"a\.jpg: damaged \(the picture takes more than 1 s"
            ):
                look(Photo("a.jpg", tmp_path))

    def test_a_head_that_takes_long_is_no_way_around(self, short, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(bombs.segments(1_500_000))
        with pytest.raises(UnreadableImageError, match="takes more than 1 s"):
            Photo("a.jpg", tmp_path).size()

    def test_the_bound_is_of_each_photo_not_of_all(self, short):
        busy = bombs.scans(2048, 70)  # about an eighth of a second
        for _ in range(16):
            decode_photo(busy, 50_000_000)

    def test_a_decoder_whose_parent_was_killed_ends_too(self, tmp_path):
        path = tmp_path / "a.jpg"
        path.write_bytes(self.BOMB)
        code = (
            "import sys; from pathlib import Path; from clarp import decoding, images\n"
            "decoding.OWN = decoding.DecodingLimits(2, 1 << 30); images.open_photo(Path(sys.argv[1]))"
        )
        parent = subprocess.Popen([sys.executable, "-c", code, path])
        process = psutil.Process(parent.pid)
        end = time.monotonic() + 20
        while not (children := process.children()) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.5)  # it is at work now
        parent.kill()
        parent.wait()
        assert psutil.wait_procs(children, timeout=15)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="no limit of memory elsewhere")
class TestMemory:
    def test_what_is_beyond_the_bound_is_refused(self, monkeypatch):
        monkeypatch.setattr(decoding, "STRANGERS", DecodingLimits(10, 100 << 20))
        with pytest.raises(
            TooManyPixels, match="the photo: decoding the picture takes more than 100 MiB; make it smaller"
        ):
            decode_photo(bombs.png(5000, 5000, 8, 6), 50_000_000)
        assert good()

    @pytest.mark.parametrize(
        ("depth", "colour"), [(16, 0), (8, 6), (16, 4)], ids=["grey of 16 bits", "RGBA", "LA of 16 bits"]
    )
    def test_what_the_server_allows_fits(self, depth, colour):
        assert decode_photo(bombs.png(7000, 7000, depth, colour), 50_000_000).size == (7000, 7000)

    def test_this_process_holds_the_picture_only(self, tmp_path):
        before = psutil.Process().memory_info().rss
        photo = decode_photo(bombs.png(5000, 5000, 16, 0), 50_000_000)
        assert psutil.Process().memory_info().rss - before < 250 << 20
        assert photo.getpixel((0, 0)) == (0, 0, 0)  # it holds 100 MB of pixels, and as many of greys
        assert greys(photo).nbytes == 100_000_000


SMALL = {
    "text": bombs.inflated(b"zTXt", b"x\0\0", 80_000_000),
    "many texts": bombs.inflated(b"zTXt", b"x\0\0", 1_000_000, 400),
    "international texts": bombs.inflated(b"iTXt", b"x\0\1\0\0\0", 1_000_000, 400),
    "a colour profile": bombs.inflated(b"iCCP", b"x\0\0", 100_000_000),
    "a tag of two thousand million values": bombs.tiff(2**31),
    "comments": bombs.comments(4 << 20),
    "strips that are one": bombs.strips(4000, 4000),
    "frames of GIF": bombs.frames("GIF", 400),
    "frames of WebP": bombs.frames("WEBP", 100),
    "frames of PNG": bombs.frames("PNG", 400),
}


@pytest.mark.parametrize("which", SMALL)
def test_files_that_swell(which):
    began = time.monotonic()
    with suppress(ValueError):
        decode_photo(SMALL[which], 50_000_000)
    assert time.monotonic() - began < 8
    assert good()


def test_avif_is_for_ones_own_files_and_its_first_frame_counts(tmp_path):
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    path = tmp_path / "a.avif"
    path.write_bytes(bombs.frames("AVIF", 20))
    assert open_photo(path).size == (64, 64)
    with pytest.raises(ValueError, match="not a picture in a format that is read here"):
        decode_photo(path.read_bytes(), 1000)


def test_a_decoder_that_crashes_costs_one_photo(monkeypatch):
    decoding.close()
    assert good()
    (decoder,) = decoding._idle
    ask = decoding._Decoder.ask

    def killed(self, *arguments):
        self._process.send_signal(signal.SIGKILL)
        return ask(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(decoding._Decoder, "ask", killed)
        with pytest.raises(DecodingError, match="its decoder ended with signal 9"):
            good()
    assert not decoder.lives
    assert good()


def test_a_decoder_that_died_while_it_waited_is_noticed():
    assert good()
    for decoder in decoding._idle:
        decoder._process.kill()
        decoder._process.wait()
    assert good()


def test_several_threads_have_several_decoders():
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: good(), range(40)))
    assert 1 <= len(decoding._idle) <= 4


def test_descriptors_and_processes_go_when_they_are_closed():
    decoding.close()
    before = psutil.Process().num_fds(), len(psutil.Process().children())
    for _ in range(3):
        assert good()
        decoding.close()
    assert (psutil.Process().num_fds(), len(psutil.Process().children())) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_has_decoders_of_its_own():
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_decoding as here\n"
        "assert here.good(); child = os.fork(); fine = here.good()\n"
        "if not child: os._exit(0 if fine else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0 and fine and here.good()"
    )
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, Path(__file__).parent], check=True, timeout=60
    )


class TestWhatIsNoFile:
    """Nobody waits for a pipe, and a device is not read to its end."""

    def refused(self, path: Path, words: str) -> None:
        with pytest.raises(ValueError, match=f"{path.name}: {words}, where a photo was expected"):
            open_photo(path)
        for look in (Photo.size, Photo.open, Photo.open_with_alpha, Photo.indices):
            with pytest.raises(UnreadableImageError, match=words):
                look(Photo(path.name, path.parent, outside=True))

    def test_a_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "a.jpg")
        self.refused(tmp_path / "a.jpg", "a named pipe")

    def test_a_socket(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as own:
            own.bind("a.jpg")
            self.refused(tmp_path / "a.jpg", "a socket")

    def test_a_device(self, tmp_path):
        (tmp_path / "a.jpg").symlink_to("/dev/zero")
        self.refused(tmp_path / "a.jpg", "a device")
