"""Code in a file that is given to ``--model`` or ``--weights``: where it runs, that is said; where we say that none does, none does."""

import io
import shutil
import zipfile

import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

import clarp
from clarp.cli import main
from clarp.models.checkpoint import read_state

BUILD = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
"""


class Trap:
    """Copies this file when it is unpickled."""

    def __init__(self, ran):
        self.ran = ran

    def __reduce__(self):
        return shutil.copyfile, (__file__, str(self.ran))


def pickled(thing):
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.fixture
def ran(tmp_path):
    """A file that is there once a trap was unpickled."""
    return tmp_path / "ran"


@pytest.fixture
def program(tmp_path, ran):
    """A .pt2 file whose example images are a trap."""
    whole, path = io.BytesIO(), tmp_path / "stranger.pt2"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    torch.export.save(torch.export.export(model, (torch.ones(1, 3, 8, 8),)), whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            trap = "sample_inputs" in name
            new.writestr(name, pickled(Trap(ran)) if trap else old.read(name))
    return path


def sentence(error):
    """The error says the danger, and the way around it."""
    said = str(error.value)
    return (
        "can execute code that is in it, even one that is refused" in said
        and "--weights (safetensors" in said
    )


class TestAProgram:
    """That the trap works is what makes the tests of weights able to fail."""

    @pytest.mark.filterwarnings("ignore")
    def test_it_runs_and_the_refusal_says_that_it_can(self, program, ran):
        with pytest.raises(ValueError, match="stranger") as error:
            clarp.models.load(str(program))
        assert sentence(error)
        assert ran.exists()

    def test_a_damaged_one_is_refused_in_these_words_everywhere(self, tmp_path):
        path = tmp_path / "damaged.pt2"
        path.write_bytes(b"PK\3\4 no more")
        for load in (clarp.Explainer, lambda file: clarp.models.load(str(file))):
            with pytest.raises(ValueError, match="damaged") as error:
                load(path)
            assert sentence(error)

    def test_given_as_weights_it_is_refused_unread(self, program, ran):
        with pytest.raises(ValueError, match="if you trust whoever made it"):
            read_state(program)
        assert not ran.exists()

    @pytest.mark.parametrize("command", ["explain", "compare", "evaluate", "plan", "serve"])
    def test_each_help_says_so(self, command, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "1000")
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert "A .pt2 file, an ultralytics file or a Python file can execute code when it is loaded." in said
        assert "nothing in it is executed" in said


STRANGERS = {
    "a pickle": pickled,
    "beside weights": lambda trap: pickled({"state_dict": {"a": torch.ones(2)}, "args": trap}),
    "among weights": lambda trap: pickled({"a": torch.ones(2), "b": trap}),
    "safetensors": lambda trap: save({"a": torch.ones(2)}, {"settings": pickled(trap).hex()}),
    "a pickle called safetensors": pickled,
    "safetensors with a pickle for numbers": lambda trap: save(
        {"a": torch.frombuffer(bytearray(pickled(trap)), dtype=torch.uint8)}
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_weights_execute_nothing_in_any_command(tmp_path, ran, kind, capsys):
    path = tmp_path / ("w.safetensors" if "safetensors" in kind else "w.pt")
    path.write_bytes(STRANGERS[kind](Trap(ran)))
    (tmp_path / "net.py").write_text(BUILD)
    given = ("--model", f"{tmp_path / 'net.py'}:build", "--weights", path)
    (tmp_path / "photos" / "class 0").mkdir(parents=True)
    photo = tmp_path / "photos" / "class 0" / "a.png"
    Image.new("RGB", (30, 30)).save(photo)
    for arguments in (
        ("explain", photo, *given),
        ("compare", photo, *given),
        ("evaluate", tmp_path / "photos", *given, "--out", tmp_path / "run"),
        ("plan", *given[1:]),
        ("serve", "--port", 0, *given),
    ):
        with pytest.raises(SystemExit) as ending:
            main([str(argument) for argument in arguments])
        assert ending.value.code == 2
        assert path.name in capsys.readouterr().err, arguments
    assert not ran.exists()
