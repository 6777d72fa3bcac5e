import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clarp.models.checkpoint import SavedWeights, read_state
from clarp.models.weights import load_weights


def test_both_formats(tmp_path):
    state = nn.Linear(3, 2).state_dict()
    torch.save(state, tmp_path / "a.pth")
    save_file(state, tmp_path / "a.safetensors")
    for name in ("a.pth", "a.safetensors"):
        module = nn.Linear(3, 2)
        load_weights(module, read_state(tmp_path / name), name)
        assert torch.equal(module.weight, state["weight"])
        assert torch.equal(module.bias, state["bias"])


def test_half_precision_becomes_the_models_own():
    module = nn.Linear(3, 2)
    half = {name: value.half() for name, value in nn.Linear(3, 2).state_dict().items()}
    load_weights(module, SavedWeights(half), "half")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.weight, half["weight"].float())


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pth", b"text"), ("a.pth", b""), ("a.safetensors", b"text"), ("a.safetensors", b"")],
)
def test_a_damaged_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_state(tmp_path / name)


def test_a_truncated_file(tmp_path):
    path = tmp_path / "a.pth"
    torch.save(nn.Linear(300, 200).state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "held"),
    [({"epoch": 3, "state_dict": {}}, "the entries epoch, state_dict"), ([1, 2], "a list")],
)
def test_a_checkpoint_that_is_no_state_dict(tmp_path, content, held):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=f"holds {held}, expected a state dict"):
        read_state(tmp_path / "a.pth")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth: no such weights file"):
        read_state(tmp_path / "nowhere.pth")


def test_everything_that_does_not_fit_is_said_at_once_and_shortly():
    module = nn.Sequential(*[nn.Linear(2, 2) for _ in range(6)])
    state = {"0.weight": torch.zeros(5, 2), "0.bias": torch.zeros(2), "extra": torch.zeros(1)}
    with pytest.raises(ValueError, match="weights don't fit") as error:
        load_weights(module, SavedWeights(state), "a.pth")
    assert str(error.value) == (
        "a.pth: the weights don't fit the model: 10 missing (1.weight, 1.bias, 2.weight and 7 more); "
        "1 unexpected (extra); 1 of another shape (0.weight (5, 2) instead of (2, 2)); "
        "the head has another number of classes, 5 instead of 2: give their names (--labels), or build the model with as many."
    )
