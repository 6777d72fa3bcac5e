import os
import stat

import pytest

from clarp.files import write_atomically


def test_it_writes_everything_and_leaves_nothing_else(tmp_path):
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"abc"))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"abc"}


def test_a_failure_keeps_the_old_file_and_leaves_nothing_half_written(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, fail)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.bin": b"old"}


def test_the_new_file_appears_only_when_it_is_whole(tmp_path):
    target = tmp_path / "a.bin"

    def write(file):
        file.write(b"x" * 100_000)
        assert not target.exists()

    write_atomically(target, write)
    assert target.stat().st_size == 100_000


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_the_permissions_are_the_usual_ones(tmp_path):
    (tmp_path / "usual").write_bytes(b"")
    write_atomically(tmp_path / "ours", lambda file: file.write(b""))
    usual, ours = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours"))
    assert ours == usual


def test_a_missing_folder_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "a.bin", lambda file: file.write(b""))
