"""The task: whatever a model's end looks like, the question that clarp answers is the one that the model was trained for."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from clarp.models.logits import Logits
from clarp.network import Network
from oracle.calls import captured

METHODS = clarp.methods()
End = Callable[[Tensor], Tensor]
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(3, 1, 12, 12, generator=GENERATOR, dtype=torch.float64)


def as_it_is(z: Tensor) -> Tensor:
    return z


class Head(nn.Module):
    """A small network with ``outputs`` logits, and what is done to them at its end."""

    def __init__(self, outputs: int, end: End = as_it_is, features: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, features, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.last, self.end = nn.Linear(features, outputs), end
        with torch.no_grad():
            self.last.weight.mul_(4.0)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.end(self.last(self.body(images)))

    def logits(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.last(self.body(images))


@cache
def head(outputs: int, end: End = as_it_is) -> Head:
    """One for all tests that do not change it, so that it is captured once."""
    return Head(outputs, end)


def explain(
    model: nn.Module | Network, method: str | clarp.Method, target: object = None, **keywords: object
) -> clarp.Explanation:
    against = keywords.pop("against", None)
    if isinstance(model, nn.Module) and "output" not in keywords:
        model = captured(model)
    return clarp.Explainer(model, method, bounds=(0.0, 1.0), **keywords)(X, target, against)  # type: ignore[arg-type]


def shape_of(heatmap: Tensor) -> Tensor:
    """The map without its scale."""
    return heatmap / heatmap.abs().amax((-2, -1), keepdim=True)


PLAIN: dict[str, End] = {
    "one logit": lambda z: z,
    "(B,)": lambda z: z[:, 0],
    "squeezed": lambda z: z.squeeze(),
    "(B, 1, 1, 1)": lambda z: z[:, :, None, None],
    "a sigmoid": torch.sigmoid,
    "a log-sigmoid": F.logsigmoid,
    "a sigmoid behind a view": lambda z: z.sigmoid().view(-1),
    "a sigmoid of a view": lambda z: z.view(-1).sigmoid(),
    "expit": torch.special.expit,
    "a clamped sigmoid": lambda z: z.sigmoid().clamp(1e-6, 1 - 1e-6),
    "percent": lambda z: 100 * z.sigmoid(),
    "a sigmoid and a copy": lambda z: z.sigmoid().float().clone(),
    "1 - sigmoid(-z)": lambda z: 1 - (-z).sigmoid(),
    "log(sigmoid)": lambda z: z.sigmoid().log(),
    "1 / (1 + exp(-z))": lambda z: 1 / (1 + (-z).exp()),
    "exp(z) / (1 + exp(z))": lambda z: 1 - 1 / (1 + z.exp()),
    "-softplus(-z)": lambda z: -F.softplus(-z),
    "(tanh(z/2) + 1) / 2": lambda z: ((z / 2).tanh() + 1) / 2,
    "nan_to_num": lambda z: z.sigmoid().nan_to_num(),
    "logit(sigmoid)": lambda z: z.sigmoid().logit(),
    "logit with eps": lambda z: z.sigmoid().logit(1e-9),
    "hstack": lambda z: torch.hstack([1 - z.sigmoid(), z.sigmoid()]),
    "(0, z)": lambda z: torch.cat([torch.zeros_like(z), z], 1),
    "(-z/2, z/2)": lambda z: torch.cat([-z, z], 1) / 2,
    "a stack": lambda z: torch.stack([-z[:, 0] / 2, z[:, 0] / 2], 1),
    "a product with (-1, 1)": lambda z: z * torch.tensor([-0.5, 0.5], dtype=z.dtype),
    "a padding": lambda z: F.pad(z, (1, 0)),
    "(1 - p, p)": lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1),
    "(1 - p, p), clamped": lambda z: torch.cat([1 - z.sigmoid().clamp(1e-6), z.sigmoid().clamp(1e-6)], 1),
    "(sigmoid(-z), sigmoid(z))": lambda z: torch.cat([(-z).sigmoid(), z.sigmoid()], 1),
    "log-sigmoids": lambda z: torch.cat([F.logsigmoid(-z), F.logsigmoid(z)], 1),
    "log((1 - p, p))": lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1).log(),
    "softmax of (0, z)": lambda z: torch.cat([torch.zeros_like(z), z], 1).softmax(1),
    "log-softmax of (-z/2, z/2)": lambda z: (torch.cat([-z, z], 1) / 2).log_softmax(1),
    "sigmoid of (-z, z)": lambda z: torch.cat([-z, z], 1).sigmoid(),
    "the second column of a softmax of (0, z)": lambda z: F.pad(z, (1, 0)).softmax(1)[:, 1],
    "(z, 0) turned round": lambda z: F.pad(z, (0, 1)).flip(1),
}


@cache
def one_logit() -> tuple[Head, Network]:
    """The plain model, captured once."""
    return head(1), captured(head(1))


@pytest.mark.parametrize("spelling", PLAIN)
def test_one_value_is_the_binary_question_about_it(spelling: str) -> None:
    network, (plain, plain_network) = Network(Head(1, PLAIN[spelling])), one_logit()
    (z,) = plain.logits(X).unbind(1)
    for method in METHODS:
        e, want = explain(network, method, [[1, 0]] * 3), explain(plain_network, method, [[1, 0]] * 3)
        assert (e.task, e.logits.shape, e.probabilities.shape) == ("binary", (3, 1), (3, 2))
        torch.testing.assert_close(e.logits[:, 0], z, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(e.probabilities, torch.stack([-z, z], 1).sigmoid(), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(shape_of(e.heatmap), shape_of(want.heatmap), rtol=1e-5, atol=1e-6)
        assert not e.empty.any()


@pytest.mark.parametrize("method", METHODS)
def test_it_is_not_is_the_negative_of_it_is_so(method: str) -> None:
    model = one_logit()[1]
    so, not_so = explain(model, method, 1), explain(model, method, 0)
    assert torch.equal(not_so.relevance, -so.relevance)
    assert torch.equal(not_so.ledger.pixels, -so.ledger.pixels)
    assert torch.equal(not_so.ledger.size, so.ledger.size)
    both = explain(model, method, [[1, 0]] * 3)
    torch.testing.assert_close(both.relevance[:, 1], -so.relevance)
    assert torch.equal(so.target, torch.ones(3, dtype=torch.long))


class Zero(Head):
    """Two logits of a dense layer, whose first is nothing but zero: (0, z)."""

    def __init__(self, plain: Head, constant: float = 0.0) -> None:
        super().__init__(2)
        with torch.no_grad():
            self.body.load_state_dict(plain.body.state_dict())
            self.last.weight.copy_(torch.cat([0 * plain.last.weight, plain.last.weight]))
            self.last.bias.copy_(torch.cat([0 * plain.last.bias + constant, plain.last.bias + constant]))


@cache
def zero_and_z(constant: float) -> Zero:
    """One for all methods, so that it is captured once; no test changes it."""
    return Zero(one_logit()[0], constant)


@pytest.mark.parametrize("constant", [0.0, 1.5])
@pytest.mark.parametrize("method", METHODS)
def test_a_binary_model_gets_what_the_logits_0_and_z_get(method: str, constant: float) -> None:
    """The constant moves both logits alike, which changes no probability, and no map."""
    for target in (0, 1):
        e, want = explain(one_logit()[1], method, target), explain(zero_and_z(constant), method, target)
        torch.testing.assert_close(e.relevance, want.relevance, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(e.probabilities, want.probabilities, rtol=1e-9, atol=1e-12)


def test_seeds_of_a_binary_question() -> None:
    """On (0, z): the logit z and the gradient 1; for class 0 the same with the other sign."""
    model, _ = one_logit()
    z = model.logits(X)[:, 0]
    for method, want in {
        "lrp": z,
        "clrp1": z,
        "sglrp": torch.ones(3),
        "slrp": z,
        "ssglrp": torch.ones(3),
        "clarp": z,
    }.items():
        for target, sign in ((1, 1.0), (0, -1.0)):
            seed = explain(model, method, target).ledger.seed
            torch.testing.assert_close(seed, sign * want.double(), rtol=1e-9, atol=1e-12)
    scaled = clarp.Method(clarp.seeds.SoftmaxGradient(scaled=True))
    torch.testing.assert_close(explain(model, scaled, 1).ledger.seed, z.sigmoid() * (-z).sigmoid())


@cache
def five_and_the_third(end: End) -> tuple[Head, Head]:
    """Five findings, and the third of them alone; no test changes them."""
    model, alone = Head(5, end), Head(1)
    alone.body.load_state_dict(model.body.state_dict())
    with torch.no_grad():
        alone.last.weight.copy_(model.last.weight[2:3])
        alone.last.bias.copy_(model.last.bias[2:3])
    return model, alone


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "end",
    [torch.sigmoid, F.logsigmoid, lambda z: z.sigmoid().view(-1, 5), lambda z: z],
    ids=["sigmoid", "log", "view", "told"],
)
def test_each_finding_is_a_question_of_its_own(end: End, method: str) -> None:
    """The map of a finding is that of a model with this finding alone, whatever the others are."""
    (model, alone), told = five_and_the_third(end), {}
    if end(torch.zeros(1, 5))[0, 0] == 0:
        told = {"task": "multilabel"}
    e, want = explain(model, method, 2, **told), explain(alone, method, 1)
    assert e.task == "multilabel"
    torch.testing.assert_close(e.relevance, want.relevance, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(e.probabilities, model.logits(X).sigmoid(), rtol=1e-12, atol=0)
    assert torch.equal(explain(model, method, **told).target, model.logits(X).argmax(1))


@pytest.mark.parametrize("method", ["clrp1", "sglrp", "ssglrp", "clarp"])
def test_rivals_of_a_finding_are_those_that_are_named(method: str) -> None:
    sigmoids, softmax = head(5, torch.sigmoid), head(5)
    e, want = explain(sigmoids, method, 2, against=[0, 4]), explain(softmax, method, 2, against=[0, 4])
    assert torch.equal(e.relevance, want.relevance)
    assert not torch.equal(e.relevance, explain(sigmoids, method, 2).relevance)


def test_rivals_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="nobody is left to be a rival"):
        explain(head(1), "sglrp", 1, against=1)
    with pytest.raises(ValueError, match="against has"):
        explain(head(1), "sglrp", 1, against=2)
    with pytest.raises(ValueError, match="has no rivals"):
        explain(head(5, torch.sigmoid), "lrp", 1, against=2)
    a, b = explain(head(1), "sglrp", 1, against=0), explain(head(1), "sglrp", 1)
    assert torch.equal(a.relevance, b.relevance)


def _over_sum(x: Tensor) -> Tensor:
    return x / x.sum(1, keepdim=True)


SOFTMAX: dict[str, tuple[End, str]] = {
    "logits": (lambda z: z, "assumed"),
    "a softmax": (lambda z: z.softmax(1), "softmax"),
    "temperature": (lambda z: (z / 0.5).softmax(1), "softmax"),
    "a logarithm of a softmax": (lambda z: torch.log(z.softmax(1) + 1e-12), "softmax"),
    "a clamped softmax": (lambda z: z.softmax(-1).clamp(1e-9, 1), "softmax"),
    "exp of a log-softmax": (lambda z: z.log_softmax(1).exp(), "softmax"),
    "a softmax behind a view": (lambda z: z.softmax(1)[:, :, None, None].flatten(1), "softmax"),
    "by hand": (lambda z: _over_sum(z.exp()), "softmax"),
    "by hand, from the greatest": (lambda z: _over_sum((z - z.amax(1, keepdim=True)).exp()), "softmax"),
    "a softmax over its sum": (lambda z: _over_sum(z.softmax(1)), "softmax"),
    "a softmax of maps": (lambda z: z[:, :, None, None].softmax(1), "softmax"),
}


@pytest.mark.parametrize("spelling", SOFTMAX)
def test_one_of_the_classes(spelling: str) -> None:
    end, source = SOFTMAX[spelling]
    model, plain = head(5, end), Head(5, lambda z: z / 0.5) if spelling == "temperature" else head(5)
    e, want = explain(model, "ssglrp", 2), explain(plain, "ssglrp", 2)
    assert e.task == "multiclass"
    assert source in e.question.source
    assert (e.notes == ()) == (source != "assumed")
    torch.testing.assert_close(shape_of(e.heatmap), shape_of(want.heatmap), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(e.probabilities, want.probabilities, rtol=1e-9, atol=1e-12)


def test_one_column_of_a_softmax_of_two_real_logits() -> None:
    """It is the binary question about the difference of the logits."""
    model = Head(2, lambda z: z.softmax(1)[:, 1])
    e = explain(model, "sglrp", 1)
    z = model.logits(X)
    assert e.task == "binary"
    torch.testing.assert_close(e.logits[:, 0], z[:, 1] - z[:, 0])
    torch.testing.assert_close(e.probabilities[:, 1], model(X))


class Ensemble(nn.Module):
    """The mean of the results of two networks, whose end nothing can undo."""

    def __init__(self, outputs: int, end: End, *, pair: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.pair = Head(outputs, end), Head(outputs, end), pair
        with torch.no_grad():
            self.b.last.weight.mul_(-0.5).add_(0.3)
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        p = (self.a(images) + self.b(images)) / 2
        return torch.cat([1 - p, p], 1) if self.pair else p


@pytest.mark.parametrize(
    ("outputs", "end", "pair", "task", "source"),
    [
        (5, torch.sigmoid, False, "multilabel", "each by itself"),
        (5, lambda z: z.softmax(1), False, "multiclass", "which sum to 1"),
        (1, torch.sigmoid, False, "binary", "each by itself"),
        (1, torch.sigmoid, True, "binary", "made of one value"),
    ],
    ids=["findings", "classes", "one", "(1 - p, p)"],
)
def test_probabilities_that_are_made_in_another_way(
    outputs: int, end: End, pair: bool, task: str, source: str
) -> None:
    """They are not softmaxed once more: their logits are their logarithms or log-odds."""
    model = Ensemble(outputs, end, pair=pair)
    with torch.no_grad():
        shares = model(X)
    shares = torch.cat([1 - shares, shares], 1) if shares.shape[1] == 1 else shares
    network = Network(model)
    for method in METHODS[:2] + METHODS[3:]:  # clrp2 negates one last layer
        e = explain(network, method, 1)
        assert (e.task, e.question.source.endswith(source)) == (task, True)
        torch.testing.assert_close(e.probabilities, shares, rtol=1e-9, atol=1e-12)
        assert not e.empty.any()
    torch.testing.assert_close(Logits.of(model, network, X[0]).probabilities(X), shares, rtol=1e-6, atol=1e-9)
    if task == "binary":
        assert torch.equal(explain(network, "sglrp", 0).relevance, -explain(network, "sglrp", 1).relevance)


def test_a_softmax_over_groups_of_classes() -> None:
    """Two questions of three answers each are not one of six."""
    model = Head(6, lambda z: z.view(-1, 2, 3).softmax(2).flatten(1))
    with torch.no_grad():
        shares = model(X)
    e = explain(model, "sglrp", 1)
    assert e.question.source == "assumed: its results are probabilities, each by itself"
    torch.testing.assert_close(e.probabilities, shares, rtol=1e-9, atol=1e-12)


def test_the_negative_of_a_share() -> None:
    """(p, 1 - p): class 1 is what p is not."""

    class Turned(Ensemble):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images).flip(1)

    e, want = (
        explain(Turned(1, torch.sigmoid, pair=True), "lrp", 0),
        explain(Ensemble(1, torch.sigmoid, pair=True), "lrp", 1),
    )
    torch.testing.assert_close(e.probabilities, want.probabilities.flip(1))
    torch.testing.assert_close(e.logits, -want.logits)


def test_a_sigmoid_head_beside_a_softmax_head() -> None:
    class Two(Head):
        def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
            z = self.last(self.body(images))
            return {"findings": z[:, :3].sigmoid(), "view": z[:, 3:].softmax(1)}

    model = Two(5)
    findings, view = explain(model, "sglrp", 1, output="findings"), explain(model, "sglrp", 1, output="view")
    assert (findings.task, view.task) == ("multilabel", "multiclass")
    z = model.logits(X)
    torch.testing.assert_close(findings.probabilities, z[:, :3].sigmoid())
    torch.testing.assert_close(view.probabilities, z[:, 3:].softmax(1))


@pytest.mark.parametrize(
    "end", ["a sigmoid", "(1 - p, p)", "(B,)", "a sigmoid behind a view", "1 - sigmoid(-z)"]
)
def test_exported_programs(end: str) -> None:
    model = Head(1, PLAIN[end])
    program = torch.export.export(model, (X[:2],), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    e, want = explain(program, "ssglrp", 1), explain(head(1), "ssglrp", 1)
    assert e.task == "binary"
    torch.testing.assert_close(shape_of(e.heatmap), shape_of(want.heatmap), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(e.probabilities, want.probabilities, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("problem", "outputs", "task", "noted"),
    [
        ("multi_label_classification", 5, "multilabel", False),
        ("single_label_classification", 5, "multiclass", False),
        (None, 5, "multiclass", True),
        (None, 1, "binary", True),
        ("multi_label_classification", 1, "multilabel", False),
    ],
)
def test_what_a_model_says_of_itself(problem: str | None, outputs: int, task: str, noted: bool) -> None:
    model = Head(outputs)
    model.config = SimpleNamespace(problem_type=problem)
    e = explain(model, "sglrp")
    assert e.task == task
    assert bool(e.notes) == noted


def test_an_assumed_softmax_says_what_follows_and_what_to_do() -> None:
    (said,) = explain(Head(5), "sglrp").notes
    assert said == (
        "task: multiclass (assumed: it ends in 5 logits), so probabilities sum to 1 and rivals are all other "
        "classes, which is wrong if several classes may be there at once: say so by `--task multilabel` or "
        '`task="multilabel"`'
    )


@pytest.mark.parametrize(
    ("outputs", "end", "task", "message"),
    [
        (5, lambda z: z, "binary", "5 logits, expected one.*multilabel"),
        (2, lambda z: z, "binary", "2 logits.*multiclass"),
        (1, lambda z: z, "multiclass", "one logit.*binary"),
        (1, lambda z: z.softmax(1), None, "softmax over one class"),
        (5, lambda z: z, "multi-label", "task is 'multi-label', expected 'multiclass'"),
    ],
)
def test_tasks_that_can_not_be(outputs: int, end: End, task: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(Head(outputs, end), "lrp", task=task)


def test_names() -> None:
    model = Head(5)
    labels = ["normal", "covid", "tuberculosis, TB", "flu", "other"]
    e = explain(model, "sglrp", "covid", against="normal", labels=labels)
    assert torch.equal(e.relevance, explain(model, "sglrp", 1, against=0).relevance)
    several = explain(model, "sglrp", [["TB", "flu"]] * 3, against=["normal", 4], labels=labels)
    assert torch.equal(several.relevance, explain(model, "sglrp", [[2, 3]] * 3, against=[0, 4]).relevance)
    assert explain(model, "lrp", ["flu", 1, "COVID"], labels=labels).target.tolist() == [3, 1, 1]
    predictions = e.predictions(2)
    assert [p.label for p in predictions[0]] == [labels[k] for k in model.logits(X)[0].topk(2).indices]
    assert all(a.probability >= b.probability for a, b in pairwise(predictions[0]))
    with pytest.raises(ValueError, match="no class 'covit'; the nearest names are 'covid'"):
        explain(model, "lrp", "covit", labels=labels)
    with pytest.raises(ValueError, match=r"the classes have no names.*labels="):
        explain(model, "lrp", "covid")
    with pytest.raises(ValueError, match=r"2 label.*5 classes"):
        explain(model, "lrp", labels=["a", "b"])
    for wrong in ("covid", [1, 2], 7):
        with pytest.raises(TypeError, match="labels is"):
            explain(model, "lrp", labels=wrong)


@pytest.mark.parametrize(
    ("given", "labels"), [(["covid"], ("not covid", "covid")), (["no", "yes"], ("no", "yes"))]
)
def test_names_of_a_binary_model(given: list[str], labels: tuple[str, str]) -> None:
    model = head(1, torch.sigmoid)
    e = explain(model, "ssglrp", labels[0], labels=given)
    assert e.labels == labels
    assert e.target.tolist() == [0, 0, 0]
    assert {p.label for p in e.predictions()[0]} == set(labels)
    with pytest.raises(ValueError, match="3 label"):
        explain(model, "lrp", labels=["a", "b", "c"])


ENDS = {**PLAIN, **{name: end for name, (end, _) in SOFTMAX.items()}, "sigmoids": torch.sigmoid}


@pytest.mark.parametrize(
    "end",
    [
        "a sigmoid",
        "(1 - p, p)",
        "sigmoid of (-z, z)",
        "(0, z)",
        "log-sigmoids",
        "percent",
        "softmax of (0, z)",
        "the second column of a softmax of (0, z)",
    ],
)
def test_the_model_is_asked_the_same_question(end: str) -> None:
    """What evaluation and the page measure is what the explanation says."""
    model = Head(1, PLAIN[end])
    network = Network(model)
    e = explain(network, "lrp")  # type: ignore[arg-type]
    logits = Logits.of(model, network, X[0])
    torch.testing.assert_close(logits.probabilities(X), e.probabilities, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits(X), e.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clarp.Explainer(network).probabilities(X), e.probabilities)


@pytest.mark.parametrize(("outputs", "task"), [(4, "multiclass"), (1, "binary"), (4, "multilabel")])
def test_the_lead_is_the_log_odds_of_the_probability(outputs: int, task: str) -> None:
    model = head(outputs)
    explainer = clarp.Explainer(model, "lrp", task=task)
    found, logits = explainer.task_and_logits(X)
    assert found.name == task
    torch.testing.assert_close(logits, model.logits(X))
    probabilities = explainer.probabilities(X)
    for target in range(found.classes):
        chosen = torch.full((3,), target)
        torch.testing.assert_close(found.lead(logits, chosen), probabilities[:, target].logit())


def test_the_lead_does_not_round_to_a_sure_class() -> None:
    task, _ = clarp.Explainer(head(4), "lrp").task_and_logits(X)
    logits = torch.tensor([[1000.0, 0.0, 990.0, -5.0], [0.0, 1000.0, 1000.0, 0.0]])
    leads = task.lead(logits, torch.tensor([0, 1]))
    assert leads.tolist() == pytest.approx([10.0, 0.0], abs=1e-3)


@pytest.mark.parametrize("size", [1, 2, "auto"])
def test_parts_of_a_batch(size: int | str) -> None:
    for model, target in (
        (Head(1), [[1, 0], [0, 1], [1, 1]]),
        (Head(5, torch.sigmoid), [[1, 4], [0, 1], [3, 2]]),
    ):
        explainer = clarp.Explainer(
            model,
            "ssglrp",
            bounds=(0.0, 1.0),
            labels=["a"] if target[0][0] == 1 and model.last.out_features == 1 else None,
        )
        whole, parts = explainer(X, target), explainer(X, target, batch_size=size)  # type: ignore[arg-type]
        torch.testing.assert_close(whole.relevance, parts.relevance)
        assert torch.equal(whole.empty, parts.empty)
        assert whole.labels == parts.labels
        assert parts.task == whole.task


class Cancels(nn.Module):
    """Two logits of two different values that are the same: nothing tells that one is made of the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(144, 3)
        with torch.no_grad():
            self.a.weight[1] = self.a.weight[0]
            self.a.bias.zero_()
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.a(images.flatten(1))


def test_a_map_whose_relevance_cancelled_says_so_every_time(tmp_path) -> None:
    import json  # noqa: PLC0415

    explainer = clarp.Explainer(Cancels(), "sglrp", composite="zero")
    for _ in range(2):
        with pytest.warns(
            clarp.EmptyMap, match=r"1 map\(s\) have no relevance \(image 0, class 1\).*cancelled"
        ) as caught:
            e = explainer(X[:1], target=1, against=0)
    assert caught[0].message.maps == ((0, 1),)
    assert e.empty.tolist() == [True]
    saved = json.loads(e.save(tmp_path).read_text())
    assert saved["empty"] == [True]
    assert saved["explanations"][0]["empty"] is True
    assert not explainer(X[:1], target=2, against=0).empty.any()


def test_a_map_that_never_was_says_so() -> None:
    """LRP's seed is the logit; where that is zero, there is nothing to hand on."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    with pytest.warns(clarp.EmptyMap, match="the seed is zero there, because the logit is.*'sglrp'"):
        e = clarp.Explainer(model, "lrp")(X, 1)
    assert e.empty.all()


def test_an_empty_map_travels_as_an_error() -> None:
    import pickle  # noqa: PLC0415

    again = pickle.loads(pickle.dumps(clarp.EmptyMap(((0, 1),), seed=True)))
    assert (again.maps, again.seed, str(again)) == (
        ((0, 1),),
        True,
        str(clarp.EmptyMap(((0, 1),), seed=True)),
    )


def test_an_assumption_is_noted(tmp_path) -> None:
    e = explain(Head(1), "lrp")
    assert e.notes == ("task: binary (assumed: it has one logit)",)
    assert "assumed" in repr(e)
    assert e.describe()["task"] == {"name": "binary", "source": "assumed: it has one logit"}
    assert explain(Head(1), "lrp", task="binary").notes == ()


def test_layers_of_a_model_whose_end_is_cut_off() -> None:
    model = Head(1, PLAIN["(1 - p, p)"])
    explainer = clarp.Explainer(model, "lrp", bounds=(0.0, 1.0))
    e = explainer(X, 0, layers=["last", "body.2"])
    want = clarp.Explainer(Head(1), "lrp", bounds=(0.0, 1.0))(X, 0, layers=["last", "body.2"])
    for name in ("last", "body.2"):
        torch.testing.assert_close(e.layers[name], want.layers[name], rtol=1e-6, atol=1e-9)
    assert set(explainer.layers()) == set(clarp.Explainer(Head(1)).layers((1, 12, 12)))


def test_a_vector_says_it_all() -> None:
    e = explain(Head(1), clarp.Method(clarp.seeds.Vector(torch.ones(1))))
    assert (e.ledger.seed == 1).all()
