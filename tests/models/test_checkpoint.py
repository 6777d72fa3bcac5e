"""Checkpoints as training code leaves them: every kind is loaded to the very weights, or refused with what to do."""

import argparse
import shutil
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from clarp import models
from clarp.models.checkpoint import SavedWeights, read_state
from clarp.models.weights import load_weights


class Net(nn.Module):
    def __init__(self, classes=4, channels=3):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, 5, 3), nn.BatchNorm2d(5)
        self.blocks = nn.Sequential(nn.Conv2d(5, 5, 1), nn.ReLU(), nn.Conv2d(5, 5, 1))
        self.fc = nn.Linear(5, classes)

    def forward(self, x):
        return self.fc(self.blocks(self.norm(self.conv(x))).mean((2, 3)))


class AttributeDict(dict):
    """Lightning's settings are of a class like this one."""

    def __getattr__(self, name):
        return self[name]


def net(seed=1, **options):
    torch.manual_seed(seed)
    return Net(**options).eval()


TRAINED, AVERAGED = net(1).state_dict(), net(2).state_dict()


def prefixed(prefix, state=None):
    return {prefix + name: value for name, value in (TRAINED if state is None else state).items()}


def loaded(path):
    module = net(0)
    notes = load_weights(module, read_state(path), path.name)
    return module.state_dict(), notes


def same(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in other)


LIGHTNING = {
    "epoch": 3,
    "global_step": 100,
    "pytorch-lightning_version": "2.4.0",
    "state_dict": prefixed("model."),
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.9), "dirpath": Path("runs")}},
    "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}],
    "lr_schedulers": [],
    "hparams_name": "args",
    "hyper_parameters": AttributeDict(lr=0.1, args=argparse.Namespace(arch="resnet"), score=np.float64(0.5)),
}
BESIDE = {
    "epoch": torch.tensor(7),
    "best": np.float32(0.8),
    "args": argparse.Namespace(lr=0.1),
    "optimizer": {"state": {0: {"step": torch.zeros(2)}}, "param_groups": []},
}


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (TRAINED, None),
        (OrderedDict(TRAINED), None),
        ({**TRAINED, "epoch": 3, "args": argparse.Namespace(lr=1)}, None),
        ({"state_dict": TRAINED, **BESIDE}, "under 'state_dict' in a.pth"),
        ({"model": TRAINED, **BESIDE}, "under 'model' in a.pth"),
        ({"model_state_dict": TRAINED, **BESIDE}, "under 'model_state_dict'"),
        ({"net": TRAINED, "acc": 92.5, "epoch": 3}, "under 'net'"),
        ({"my_classifier": TRAINED, **BESIDE}, "under 'my_classifier'"),
        ({"state": {"model": {"module": TRAINED}}}, "under 'state / model / module'"),
        ({"model": prefixed("module."), **BESIDE}, "begin with 'module.' in a.pth"),
        (LIGHTNING, "begin with 'model.'"),
        (prefixed("_orig_mod."), "begin with '_orig_mod.'"),
        (prefixed("net."), "begin with 'net.'"),
        (prefixed("encoder."), "begin with 'encoder.'"),
        (prefixed("module._orig_mod.model."), "begin with 'module._orig_mod.model.'"),
        ({**prefixed("model."), "criterion.weight": torch.ones(4)}, "1 of a.pth that are not the model's were left out (criterion.weight)"),
        ({name.replace("blocks.", "blocks._orig_mod."): v for name, v in TRAINED.items()}, "'_orig_mod.' was taken out of the names"),
        ({name.replace("blocks.", "blocks._fsdp_wrapped_module."): v for name, v in TRAINED.items()}, "'_fsdp_wrapped_module.' was taken out"),
        ({name.replace("blocks.", "blocks.module."): v for name, v in TRAINED.items()}, "'module.' was taken out of the names"),
        ({name: v for name, v in prefixed("m.").items() if "num_batches" not in name}, "begin with 'm.'"),
        ({**prefixed("model."), **prefixed("teacher.", AVERAGED)}, "begin with 'model.'"),
    ],
)  # fmt: skip
def test_weights_are_unwrapped_and_the_notes_say_how(tmp_path, content, note):
    torch.save(content, tmp_path / "a.pth")
    state, notes = loaded(tmp_path / "a.pth")
    expected = dict(TRAINED)
    expected["norm.num_batches_tracked"] = state["norm.num_batches_tracked"]
    assert same(state, expected)
    assert notes == () if note is None else any(note in each for each in notes)
    assert all(each.startswith("weights: ") for each in notes)


def averaged_model(module):
    average = torch.optim.swa_utils.AveragedModel(module)
    average.load_state_dict({"n_averaged": torch.tensor(5), **prefixed("module.", AVERAGED)})
    return average.state_dict()


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": TRAINED, "state_dict_ema": AVERAGED, **BESIDE},
        {"model": TRAINED, "model_ema": averaged_model(net()), **BESIDE},
        {"model": TRAINED, "ema": {"module": AVERAGED, "updates": 3}},
        {**TRAINED, "ema": AVERAGED},
        {"model": TRAINED, "ema": {"shadow": AVERAGED, "decay": 0.999}},
        {"model": TRAINED, "ema_state_dict": prefixed("module.", AVERAGED)},
        {"state_dict": {**prefixed("model."), **prefixed("ema_model.module.", AVERAGED), "ema_model.n_averaged": torch.tensor(3)}},
        {"state_dict": {**prefixed("net."), **prefixed("net_ema.", AVERAGED)}},
        {**TRAINED, **prefixed("ema.", AVERAGED)},
        averaged_model(net()),
        {"n_averaged": torch.tensor(2), **AVERAGED},
    ],
)  # fmt: skip
def test_averages_count_before_other_weights(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    state, notes = loaded(tmp_path / "a.pth")
    assert same(state, AVERAGED)
    assert any("averages over training" in note for note in notes)


def test_averages_without_names_are_passed_over(tmp_path):
    content = {"model": TRAINED, "ema": {"shadow_params": list(AVERAGED.values()), "decay": 0.9}}
    torch.save(content, tmp_path / "a.pth")
    assert same(loaded(tmp_path / "a.pth")[0], TRAINED)


@pytest.mark.parametrize("wrapped", [False, True])
def test_averages_that_lack_a_batch_norms_statistics_are_passed_over(tmp_path, wrapped):
    parameters = {name: value for name, value in AVERAGED.items() if "running" not in name}
    plain = {"model": TRAINED} if wrapped else TRAINED
    torch.save({**plain, "ema": {"shadow": parameters, "decay": 0.9}}, tmp_path / "a.pth")
    state, notes = loaded(tmp_path / "a.pth")
    assert same(state, TRAINED)
    assert notes == (
        "weights: the averages over training (EMA) in a.pth lack 2 of the model's, so others were taken",
        *(("weights: those under 'model' in a.pth",) if wrapped else ()),
    )


def test_safetensors_with_a_prefix(tmp_path):
    save_file(prefixed("module."), tmp_path / "a.safetensors")
    state, notes = loaded(tmp_path / "a.safetensors")
    assert same(state, TRAINED)
    assert notes == ("weights: those whose names begin with 'module.' in a.safetensors",)


def test_a_wrapper_of_the_model_that_the_file_lacks():
    wrapper = nn.ModuleDict({"net": net(0)})
    notes = load_weights(wrapper, SavedWeights(dict(TRAINED)), "a.pth")
    assert same(wrapper["net"].state_dict(), TRAINED)
    assert notes == ("weights: 'net.' was put before the names in a.pth",)


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("state", "module", "said"),
        [
            (prefixed("module.", net(classes=7).state_dict()), net(), ["fc.weight (7, 5) instead of (4, 5)", "the head has another number of classes, 7 instead of 4", "read without 'module.'"]),
            (net(channels=1).state_dict(), net(), ["conv.weight (5, 1, 3, 3) instead of (5, 3, 3, 3)", "the first layer takes another number of channels, 1 instead of 3"]),
            (prefixed("backbone.", nn.Conv2d(3, 2, 1).state_dict()), net(), ["all 2 names start with 'backbone.', and none of the model's do"]),
            ({n: v for n, v in prefixed("m.").items() if "fc" not in n}, net(), ["2 missing (fc.weight, fc.bias)", "without 'm.'"]),
            ({**TRAINED, "extra.weight": torch.ones(1)}, net(), ["1 unexpected (extra.weight)"]),
            ({**prefixed("one."), **prefixed("two.", AVERAGED)}, net(), ["several times, under 'one.', 'two.'"]),
        ],
    )  # fmt: skip
    def test_the_layer_or_the_prefix_is_named(self, state, module, said):
        with pytest.raises(ValueError, match=r"^a\.pth: the weights") as error:
            load_weights(module, SavedWeights(state), "a.pth")
        assert all(part in str(error.value) for part in said), error.value

    def test_several_entries_with_weights(self, tmp_path):
        torch.save({"generator": TRAINED, "discriminator": AVERAGED}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="weights in several entries, generator, discriminator"):
            read_state(tmp_path / "a.pth")


class TestEntriesInEntries:
    @pytest.mark.parametrize("depth", [5, 6])
    def test_weights_are_looked_for_five_entries_deep(self, tmp_path, depth):
        content = TRAINED
        for level in range(depth):
            content = {f"level{level}": content}
        torch.save(content, tmp_path / "a.pth")
        if depth <= 5:
            assert same(read_state(tmp_path / "a.pth").tensors, TRAINED)
        else:
            with pytest.raises(ValueError, match="holds the entries level5, expected a state dict"):
                read_state(tmp_path / "a.pth")

    def test_an_entry_that_holds_itself(self, tmp_path):
        content = {"epoch": 3}
        content["own"] = content
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="holds the entries epoch, own, expected a state dict"):
            read_state(tmp_path / "a.pth")


class TestNothingIsExecuted:
    @pytest.mark.parametrize("old", [False, True])
    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_whole_model_is_refused_with_the_lines_that_make_weights_of_it(self, tmp_path, old, wrapped):
        path, model = tmp_path / "a.pth", nn.Sequential(nn.Linear(3, 2))
        torch.save({"model": model} if wrapped else model, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(ValueError, match="whole model") as error:
            read_state(path)
        assert "torch.nn.modules" in str(error.value)
        assert 'torch.load("a.pth", weights_only=False)' in str(error.value)
        assert 'torch.save(model.state_dict(), "weights.pt")' in str(error.value)
        assert old or ('["model"]' in str(error.value)) == wrapped

    def test_weights_beside_a_whole_model_are_taken(self, tmp_path):
        torch.save({"model": nn.Linear(3, 2), "state_dict": TRAINED}, tmp_path / "a.pth")
        assert same(loaded(tmp_path / "a.pth")[0], TRAINED)

    def test_code_in_the_file_does_not_run(self, tmp_path):
        path, trap = tmp_path / "a.pth", Trap(tmp_path / "ran")
        torch.save({"state_dict": TRAINED, "args": trap}, path)
        assert same(loaded(path)[0], TRAINED)
        torch.save(trap, path)
        with pytest.raises(ValueError, match="expected a state dict"):
            read_state(path)
        assert not trap.path.exists()
        torch.load(path, weights_only=False)
        assert trap.path.exists()

    def test_system_calls_are_refused_outright(self, tmp_path):
        torch.save({"state_dict": TRAINED, "args": Shell()}, tmp_path / "a.pth")
        with pytest.raises(ValueError, match="not loaded, because that may execute code"):
            read_state(tmp_path / "a.pth")

    def test_programs_are_called_by_name(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.save(torch.jit.trace(nn.Linear(3, 2), torch.ones(1, 3)), tmp_path / "a.pt")
        with pytest.raises(ValueError, match=r"TorchScript program.*torch\.jit\.load\(\"a\.pt\"\)"):
            read_state(tmp_path / "a.pt")
        torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(1, 3),)), tmp_path / "b.pt2")
        with pytest.raises(ValueError, match=r"exported program.*without --weights"):
            read_state(tmp_path / "b.pt2")


class Trap:
    """Copies this file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return shutil.copyfile, (__file__, str(self.path))


class Shell:
    def __reduce__(self):
        import os  # noqa: PLC0415

        return os.system, ("true",)


def test_the_notes_reach_the_classifier(tmp_path):
    module = models.load("resnet18", trained=False).module
    torch.save({"model": prefixed("module.", module.state_dict())}, tmp_path / "a.pth")
    classifier = models.load("resnet18", weights=tmp_path / "a.pth")
    assert any("'model' in a.pth" in note for note in classifier.notes)
    assert any("'module.' in a.pth" in note for note in classifier.notes)
    file = tmp_path / "mine.py"
    file.write_text(
        "import torchvision\ndef build():\n    return torchvision.models.resnet18().eval()\n"
        "def preprocess(photo):\n    import torch\n    return torch.zeros(3, 32, 32)\n"
    )
    own = models.load(f"{file}:build", weights=tmp_path / "a.pth")
    assert own.notes[:2] == (
        "weights: those under 'model' in a.pth",
        "weights: those whose names begin with 'module.' in a.pth",
    )
    assert own.weights_sha256() == classifier.weights_sha256()
