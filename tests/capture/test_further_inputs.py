"""Further inputs beside the images: held constant, whatever a model does with them."""

import copy
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp.network import Network
from oracle.calls import captured

SIZE = 6
Forward = Callable[["Net", Tensor, Any], Tensor]


class Net(nn.Module):
    """Features of an image, and a forward of them and one further input."""

    def __init__(self, forward: Forward, classes_in: int = 4) -> None:
        super().__init__()
        generator = torch.random.get_rng_state()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(classes_in, 3)
        self.table = nn.Linear(5, 4)
        self.names = nn.Embedding(7, 4)
        self.query = nn.Linear(4, 4)
        self.pair = nn.Conv2d(6, 4, 3)
        torch.random.set_rng_state(generator)
        self.step = forward
        self.double().eval()

    def maps(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images))

    def forward(self, images: Tensor, other: Any = None) -> Tensor:
        return self.step(self, images, other)


class Bound(nn.Module):
    """The same model with the further input as a part of it."""

    other: Tensor

    def __init__(self, net: Net, other: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("other", other)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images, self.other.expand(images.shape[0], *self.other.shape[1:]))
        return logits


def beside(net: Net, images: Tensor, table: Tensor) -> Tensor:
    logits: Tensor = net.head(torch.cat([net.maps(images).mean((2, 3)), net.table(table).exp()], 1))
    return logits


def film(net: Net, images: Tensor, table: Tensor) -> Tensor:
    scale, shift = net.table(table).chunk(2, 1)
    maps = net.maps(images)
    shifted = maps * scale.repeat(1, 2)[:, :, None, None] + shift.repeat_interleave(2, 1)[:, :, None, None]
    logits: Tensor = net.head(shifted.relu().mean((2, 3)))
    return logits


def embedded(net: Net, images: Tensor, number: Tensor) -> Tensor:
    logits: Tensor = net.head(net.maps(images).mean((2, 3)) + net.names(number))
    return logits


def attended(net: Net, images: Tensor, mask: Tensor) -> Tensor:
    tokens = net.maps(images).flatten(2).mT
    query = net.query(tokens).unflatten(2, (2, 2)).transpose(1, 2)
    value = tokens.unflatten(2, (2, 2)).transpose(1, 2)
    found = F.scaled_dot_product_attention(query, query, value, attn_mask=mask[:, None, None])
    logits: Tensor = net.head(found.transpose(1, 2).flatten(2).mean(1))
    return logits


def masked_scores(net: Net, images: Tensor, mask: Tensor) -> Tensor:
    tokens = net.maps(images).flatten(2).mT
    scores = net.query(tokens) @ tokens.mT
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(-1)
    logits: Tensor = net.head((weights @ tokens).mean(1))
    return logits


def weighted_tokens(net: Net, images: Tensor, mask: Tensor) -> Tensor:
    tokens = net.maps(images).flatten(2).mT
    kept = mask.to(tokens.dtype)
    logits: Tensor = net.head(torch.einsum("bn,bnc->bc", kept, tokens) / kept.sum(1, keepdim=True))
    return logits


def temperature(net: Net, images: Tensor, value: Any) -> Tensor:
    logits: Tensor = net.head(net.maps(images).mean((2, 3))) / value
    return logits


def side_by_side(net: Net, images: Tensor, other: Tensor) -> Tensor:
    logits: Tensor = net.head(F.relu(net.pair(torch.cat([images, other], 1))).mean((2, 3)))
    return logits


def siamese(net: Net, images: Tensor, other: Tensor) -> Tensor:
    first, second = (net.maps(x).mean((2, 3)) for x in (images, other))
    logits: Tensor = net.head(torch.cat([first - second, first * second], 1))
    return logits


def less_reference(net: Net, images: Tensor, other: Tensor) -> Tensor:
    logits: Tensor = net.head(net.maps(images - other).mean((2, 3)))
    return logits


def covered(net: Net, images: Tensor, mask: Tensor) -> Tensor:
    logits: Tensor = net.head(net.maps(images * mask).mean((2, 3)))
    return logits


def at_grid(net: Net, images: Tensor, theta: Tensor) -> Tensor:
    grid = F.affine_grid(theta, [images.shape[0], 3, SIZE, SIZE], align_corners=False)
    logits: Tensor = net.head(net.maps(F.grid_sample(images, grid, align_corners=False)).mean((2, 3)))
    return logits


def chosen(net: Net, images: Tensor, table: Tensor) -> Tensor:
    maps = net.maps(images)
    logits: Tensor = net.head(torch.where(table[:, :4, None, None] > 0.5, maps, 0.1 * maps).mean((2, 3)))
    return logits


def matmul(net: Net, images: Tensor, other: Tensor) -> Tensor:
    logits: Tensor = net.head((net.maps(images).flatten(2) @ other).mean(2))
    return logits


TABLE = torch.rand(2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
MASK = torch.tensor([[True, False] * 8, [True] * 10 + [False] * 6])
OTHER = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
THETA = torch.tensor([[[1.0, 0.1, 0.0], [0.0, 0.9, 0.1]], [[0.8, 0.0, 0.1], [0.1, 1.0, 0.0]]]).double()
SPELLINGS: dict[str, tuple[Forward, Tensor, int]] = {
    "a table beside the features": (beside, TABLE, 8),
    "FiLM": (film, TABLE, 4),
    "an embedding of a number": (embedded, torch.tensor([2, 5]), 4),
    "a mask of attention": (attended, MASK, 4),
    "scores filled by a mask": (masked_scores, MASK, 4),
    "a mean over what a mask keeps": (weighted_tokens, MASK, 4),
    "a temperature for each image": (temperature, torch.tensor([[0.5], [2.0]]).double(), 4),
    "two images as six channels": (side_by_side, OTHER, 4),
    "two images through one network": (siamese, OTHER, 8),
    "less a reference": (less_reference, OTHER, 4),
    "a mask over the pixels": (covered, (OTHER > 0.3).double(), 4),
    "a grid": (at_grid, THETA, 4),
    "a choice": (chosen, TABLE, 4),
    "a matrix": (matmul, OTHER.flatten(1)[:, :64].unflatten(1, (16, 4)), 4),
}

FOLDED = ("FiLM", "an embedding of a number", "two images through one network")
"""As a constant of the model these are part of the layer before or behind them, and another rule sees them."""
ALONE = ("a mean over what a mask keeps", "a matrix")
"""These have no rule as a constant for all images."""


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@cache
def spelt(spelling: str) -> tuple[Net, tuple[Bound, ...]]:
    """The model, and one for each row as its own constant: for every method, so that each is captured once."""
    forward, other, width = SPELLINGS[spelling]
    net = Net(forward, width)
    return net, tuple(Bound(net, other[k : k + 1]) for k in range(2))


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost")
@pytest.mark.parametrize("method", ["lrp", "ssglrp"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_map_is_that_of_a_model_whose_own_constant_it_is(
    spelling: str, method: str, images: Tensor
) -> None:
    (net, bound), other = spelt(spelling), SPELLINGS[spelling][1]
    options: dict[str, Any] = {"composite": "epsilon-plus-box", "bounds": (0.0, 1.0)}
    explainer = clarp.Explainer(captured(net), method, **options)
    found = explainer(images, target=1, inputs=(other,))
    torch.testing.assert_close(found.logits, net(images, other))
    for k in range(2):
        one, row = images[k : k + 1], other[k : k + 1]
        alone = explainer(one, target=1, inputs=(row,))
        torch.testing.assert_close(alone.relevance[0], found.relevance[k], rtol=1e-9, atol=1e-12)
        if spelling not in FOLDED + ALONE:
            own = clarp.Explainer(captured(bound[k]), method, **options)(one, target=1).relevance[0]
            torch.testing.assert_close(found.relevance[k], own, rtol=1e-4, atol=1e-5 * float(own.abs().max()))
    assert float(found.relevance.abs().sum()) > 0
    ledger = found.ledger
    torch.testing.assert_close(
        ledger.seed, ledger.pixels + sum(ledger.total(what) for what in ("selection", "bias", "epsilon"))
    )


@pytest.mark.filterwarnings("ignore::clarp.RelevanceLost")
def test_what_stays_with_a_table_is_in_the_ledger_as_bias(images: Tensor) -> None:
    net = Net(beside, 8)
    found = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0))(images, target=[[0, 1, 2]] * 2, inputs=(TABLE,))
    entry = next(entry for entry in found.ledger if type(entry.node.operation).__name__ == "Concatenate")
    assert bool((entry.bias != 0).any())
    torch.testing.assert_close(entry.arrived, entry.handed_on + entry.bias)


@pytest.mark.parametrize(
    "other",
    [0.5, torch.tensor(0.5), torch.tensor([0.5]), torch.tensor([[0.5]]), torch.tensor([0.5, 1.0, 2.0])],
    ids=lambda value: str(tuple(value.shape)) if isinstance(value, Tensor) else "a number",
)
def test_one_for_all_images(other: float | Tensor, images: Tensor) -> None:
    net = Net(temperature)
    other = other.double() if isinstance(other, Tensor) else other
    explainer = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0))
    for count in (1, 2):
        found = explainer(images[:count], target=1, inputs=(other,))
        torch.testing.assert_close(found.logits, net(images[:count], other))
    three = torch.cat(
        [images, images[:1]]
    )  # as many as there are classes: values of one for all may look like rows
    torch.testing.assert_close(explainer(three, target=1, inputs=(other,)).logits, net(three, other))
    again = explainer(images, target=1, inputs=(2 * other,))
    torch.testing.assert_close(again.logits, net(images, 2 * other))


def test_by_name_with_rows_and_without(images: Tensor) -> None:
    class Named(Net):
        def forward(  # type: ignore[override]
            self, images: Tensor, *, table: Tensor, scale: float = 1.0, add: bool = False
        ) -> Tensor:
            logits = beside(self, images, table) * scale
            return logits + 1 if add else logits

    net = Named(beside, 8)
    explainer = clarp.Explainer(net, "sglrp", bounds=(0.0, 1.0))
    for given in ({"table": TABLE}, {"table": TABLE, "scale": 2.0}, {"add": True, "table": TABLE}):
        torch.testing.assert_close(explainer(images, inputs=given).logits, net(images, **given))
    torch.testing.assert_close(
        explainer.probabilities(images, inputs={"table": TABLE}), net(images, table=TABLE).softmax(1)
    )


def test_other_rows_are_not_captured_anew(images: Tensor) -> None:
    net = Net(beside, 8)
    network = Network(net)
    explainer = clarp.Explainer(network, "lrp", bounds=(0.0, 1.0))
    explainer(images, target=1, inputs=(TABLE,))
    assert "Concatenate" in str(explainer.plan())
    assert explainer.layers() == ("body", "head")
    graph = network.graph((3, SIZE, SIZE), torch.float64, explainer._further)
    other = explainer(images[:1], target=1, inputs=(TABLE[1:],))
    torch.testing.assert_close(other.logits, net(images[:1], TABLE[1:]))
    assert network.graph((3, SIZE, SIZE), torch.float64, explainer._further) is graph


def test_in_parts_with_several_targets_and_in_other_types(images: Tensor) -> None:
    net = Net(film)
    explainer = clarp.Explainer(net, "ssglrp", bounds=(0.0, 1.0))
    many, table = images.repeat(3, 1, 1, 1), torch.cat([TABLE, 2 * TABLE, 3 * TABLE])
    whole = explainer(many, target=[[0, 2]] * 6, inputs=(table,))
    for size in (1, 4, "auto"):
        part = explainer(many, target=[[0, 2]] * 6, inputs=(table,), batch_size=size)  # type: ignore[arg-type]
        torch.testing.assert_close(part.relevance, whole.relevance)
    single = Net(film).float()
    for dtype in ("float32", "float64", "bfloat16"):
        e = clarp.Explainer(single, "lrp", bounds=(0.0, 1.0), dtype=dtype)(  # type: ignore[arg-type]
            images, target=1, inputs=(TABLE.float(),)
        )
        torch.testing.assert_close(
            e.logits.float(), single(images.float(), TABLE.float()), rtol=1e-4, atol=1e-4
        )


def test_compiled(images: Tensor) -> None:
    net = Net(beside, 8)
    plain = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0))
    compiled = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0), compile="eager")
    for table in (TABLE, 2 * TABLE):
        torch.testing.assert_close(
            compiled(images, target=1, inputs=(table,)).relevance,
            plain(images, target=1, inputs=(table,)).relevance,
        )


def test_an_exported_program_takes_them_too(images: Tensor) -> None:
    net = Net(beside, 8)
    expected = clarp.attribute(net, images, 1, bounds=(0.0, 1.0), inputs=(TABLE,))
    batch = {0: torch.export.Dim.AUTO}
    for shapes in (None, (batch, batch)):
        program = torch.export.export(net, (images, TABLE), dynamic_shapes=shapes)
        found = clarp.attribute(program, images, 1, bounds=(0.0, 1.0), inputs=(TABLE,))
        torch.testing.assert_close(found, expected)
        with pytest.raises(ValueError, match=r"takes 1 beside the images: inputs="):
            clarp.attribute(program, images, 1)


def test_the_graph_is_cached_and_read_again(
    tmp_path: Path, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(embedded)
    numbers = torch.tensor([2, 5])
    expected = clarp.Explainer(Network(net, cache=tmp_path), "lrp", bounds=(0.0, 1.0))(
        images, target=1, inputs=(numbers,)
    )
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("clarp.network.capture_module", lambda *_, **__: pytest.fail("captured anew"))
    again = clarp.Explainer(Network(copy.deepcopy(net), cache=tmp_path), "lrp", bounds=(0.0, 1.0))
    found = again(images, target=1, inputs=(numbers.flip(0),))
    torch.testing.assert_close(found.logits, net(images, numbers.flip(0)))
    torch.testing.assert_close(again(images, target=1, inputs=(numbers,)).relevance, expected.relevance)


def test_threads_and_copies(images: Tensor) -> None:
    net = Net(film)
    explainer = clarp.Explainer(net, "lrp", bounds=(0.0, 1.0))
    tables = [k * TABLE for k in range(1, 5)]
    found: dict[int, Tensor] = {}

    def explain(k: int) -> None:
        found[k] = explainer(images, target=1, inputs=(tables[k],)).relevance

    threads = [Thread(target=explain, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other = copy.deepcopy(explainer)
    for k, relevance in found.items():
        torch.testing.assert_close(relevance, other(images, target=1, inputs=(tables[k],)).relevance)


def needs_table(net: Net, images: Tensor, table: Tensor) -> Tensor:
    return beside(net, images, table)


class Needs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net(beside, 8)
        self.eval()

    def forward(self, images: Tensor, table: Tensor) -> Tensor:
        logits: Tensor = self.net(images, table)
        return logits


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ((), r"needs table beside the images.*inputs=\(table,\)"),
        (
            (TABLE, TABLE),
            r"inputs has 2 value\(s\), and the model's forward \(images, table\) takes at most 1",
        ),
        ({"tabel": TABLE}, r"inputs has 'tabel', which is no further argument"),
        ({"images": TABLE, "table": TABLE}, r"inputs has 'images'"),
        (TABLE, r"inputs is a Tensor, expected a tuple"),
        ((TABLE.numpy(),), r"inputs\[0\] is a ndarray, expected a tensor"),
        ((TABLE.to("meta"),), r"inputs\[0\] is on meta, and the model on cpu"),
        ((TABLE * torch.nan,), r"inputs\[0\] holds NaN"),
        ((TABLE.cfloat(),), r"inputs\[0\] is of type torch.complex64"),
        ((torch.rand(3, 5).double(),), r"inputs\[0\] \(3, 5\) of torch.float64, one for all images"),
        ((torch.rand(2, 6).double(),), r"inputs\[0\] \(2, 6\) of torch.float64, a row for each image"),
        ((torch.ones(2, 5, dtype=torch.long),), r"inputs\[0\] \(2, 5\) of torch.int64.*same dtype"),
        (({},), r"inputs\[0\] is a dict"),
    ],
)
def test_wrong_inputs_are_one_sentence(inputs: Any, said: str, images: Tensor) -> None:
    with pytest.raises((ValueError, TypeError), match=said) as error:
        clarp.Explainer(Needs(), "lrp", bounds=(0.0, 1.0))(images, target=1, inputs=inputs)
    assert "\n" not in str(error.value)


def test_what_python_reads_of_an_input_is_refused(images: Tensor) -> None:
    def branches(net: Net, images: Tensor, table: Tensor) -> Tensor:
        return beside(net, images, table) * (2 if table[0, 0] > 0.5 else 1)

    with pytest.raises(
        clarp.CaptureError, match=r"reads a value of the image in Python at .*\(or of a further input\)"
    ):
        clarp.attribute(Net(branches, 8), images, 1, inputs=(TABLE,))


def test_an_input_mixed_over_the_batch_is_refused(images: Tensor) -> None:
    def mixes(net: Net, images: Tensor, table: Tensor) -> Tensor:
        return beside(net, images, table - table.mean(0))

    with pytest.raises(clarp.CaptureError, match="depends on those of the others"):
        clarp.attribute(Net(mixes, 8), images, 1, inputs=(TABLE,))


def test_an_explainer_with_inputs_pickles(images: Tensor) -> None:
    explainer = clarp.Explainer(Needs(), "lrp", bounds=(0.0, 1.0))
    explainer.network.model.net.step = needs_table  # type: ignore[union-attr]
    expected = explainer(images, target=1, inputs=(TABLE,)).relevance
    again = pickle.loads(pickle.dumps(explainer))
    torch.testing.assert_close(again(images, target=1, inputs=(TABLE,)).relevance, expected)
