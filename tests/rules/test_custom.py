"""Operations that a user registers: their rule, their gradient, and what is refused."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import clarp
from clarp import rules
from oracle.calls import apart, images

NUMBERS = itertools.count()


def snake(x: Tensor, a: float) -> Tensor:
    return x + torch.sin(a * x).square() / a


def slope(g: Tensor, x: Tensor, a: float) -> Tensor:
    return g * (1 + torch.sin(2 * a * x))


def operation(function: Callable[..., Tensor] = snake) -> Any:
    """A new custom operation, opaque to the export."""
    made = torch.library.custom_op(f"clarptest::op{next(NUMBERS)}", function, mutates_args=())
    made.register_fake(lambda x, *_: torch.empty_like(x))
    return made


class Net(nn.Module):
    """Selection at the inputs of ``conv`` and ``late``: the gradient at the first comes through the middle."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.conv, self.late = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 2), nn.Conv2d(4, 4, 2)
        self.head = nn.Linear(4, 5)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        x = self.late(self.middle(self.conv(self.first(x).relu())))
        return self.head(x.relu().mean((2, 3)))


def net(middle: Callable[[Tensor], Tensor]) -> nn.Module:
    return Net(middle).double().eval()


X = images(2, 3, 7, 6)


@pytest.mark.parametrize("method", ["lrp", "sglrp"])
def test_pass_is_that_of_a_known_activation(method: str) -> None:
    """A ReLU in disguise gives the ReLU's own map."""
    made = operation(lambda_relu)
    rules.register(made, rules.Pass())
    ours = clarp.Explainer(net(made), method)(X, [1, 2])
    theirs = clarp.Explainer(net(torch.relu), method)(X, [1, 2])
    assert apart(ours.relevance, theirs.relevance) < 1e-12
    assert any(row["rule"] == "Pass()" and row["operation"] == "Custom" for row in ours.ledger.rows())


def lambda_relu(x: Tensor) -> Tensor:
    return x.clamp(min=0.0)


@pytest.mark.parametrize("how", ["formula", "autograd"])
def test_selection_asks_for_the_gradient(how: str) -> None:
    """The map of SSGLRP, with the gradient given, or registered with the operation, equals that of the traced function."""
    made = operation(lambda_relu)
    step = lambda g, x: g * (x > 0)  # noqa: E731
    if how == "formula":
        rules.register(made, rules.Pass(), gradient=step)
    else:
        made.register_autograd(
            lambda ctx, g: step(g, *ctx.saved_tensors),
            setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
        )
        rules.register(made, rules.Pass())
    ours = clarp.Explainer(net(made), "ssglrp")(X, [[1, 2], [3, 4]])
    theirs = clarp.Explainer(net(torch.relu), "ssglrp")(X, [[1, 2], [3, 4]])
    assert apart(ours.relevance, theirs.relevance) < 1e-12


@dataclass(frozen=True)
class Proportional(rules.Rule):
    """``R_in = x f'(x) / f(x) R``."""

    keeps: ClassVar[frozenset[str]] = frozenset({"inputs", "output"})

    def propagate(self, relevance: Tensor, context: Any) -> rules.rule.Shares:
        x, y = context.record.input(), context.record.result()
        (back,) = context.operation.gradient(relevance / y, context.record, context.tensors)
        return rules.rule.Shares((x * back,))


def test_a_rule_of_ones_own() -> None:
    """By hand: one operation between two known ones, under the zero rule everywhere else."""
    made = operation()
    rules.register(made, Proportional(), gradient=slope)
    torch.manual_seed(1)
    head = nn.Linear(12, 3).double()
    model = nn.Sequential(nn.Flatten(), Call(made, 0.7), head).eval()
    x = images(1, 3, 2, 2).abs() + 0.1
    seed = images(1, 3, seed=4)
    method = clarp.Method(clarp.seeds.Vector(seed), composite="zero")
    e = clarp.Explainer(model, method)(x, 0)
    flat = x.flatten()
    y = snake(flat, 0.7)
    with torch.no_grad():
        relevance = (head.weight * y).t() @ (seed[0] / (head.weight @ y + head.bias))
    expected = flat * (1 + torch.sin(1.4 * flat)) / y * relevance
    assert apart(e.relevance, expected.view(x.shape)) < 1e-12
    assert e.ledger.total("epsilon").item() == pytest.approx((relevance - expected).sum().item())


class Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *arguments: Any) -> None:
        super().__init__()
        self.function, self.arguments = function, arguments

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.arguments)


class Weighted(nn.Module):
    """An operation with a learnt tensor among its arguments."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function
        self.scale = nn.Parameter(torch.tensor([2.0, 1.0, 3.0, 0.5]).view(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.scale)


def scaled(x: Tensor, scale: Tensor) -> Tensor:
    return x * scale


def test_constant_tensors_are_arguments_too() -> None:
    made = operation(scaled)
    rules.register(made, rules.Pass(), gradient=lambda g, x, scale: g * scale)
    for method in ("lrp", "ssglrp"):
        e = clarp.Explainer(net(Weighted(made)), method, dtype=torch.float64)(X, 1)
        with torch.no_grad():
            assert apart(e.logits, net(Weighted(scaled))(X)) < 1e-12
        assert torch.isfinite(e.relevance).all()


def test_operations_of_pytorch_that_were_refused() -> None:
    """The remedy that the refusal names works."""
    model = net(torch.special.bessel_j0)
    with pytest.raises(clarp.UnsupportedOperation, match=r"special_bessel_j0(.|\n)*clarp\.rules\.register"):
        clarp.Explainer(model, "lrp")(X)
    rules.register("aten::special_bessel_j0", rules.Pass())
    e = clarp.Explainer(model, "lrp")(X, 1)
    assert torch.isfinite(e.relevance).all()
    with torch.no_grad():
        assert apart(e.logits, model(X)) < 1e-12


def test_without_a_gradient_selection_says_so() -> None:
    made = operation(lambda_relu)
    rules.register(made, rules.Pass())
    with pytest.raises(ValueError, match=r"no gradient.*gradient=.*'sglrp'"):
        clarp.Explainer(net(made), "ssglrp")(X)


def test_a_gradient_of_another_shape() -> None:
    made = operation(lambda_relu)
    rules.register(made, rules.Pass(), gradient=lambda g, x: g.sum())
    with pytest.raises(ValueError, match=r"gradient registered.*gives the shapes \[\(\)\]"):
        clarp.Explainer(net(made), "ssglrp")(X)


class Own(torch.autograd.Function):
    """The export sees what it does, not that it is one: here a clamp, with a gradient that is not used."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0.0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return g * 100


@pytest.mark.parametrize("method", ["lrp", "ssglrp"])
def test_autograd_functions_are_what_they_do(method: str) -> None:
    ours = clarp.Explainer(net(Own.apply), method)(X, 1).relevance
    assert apart(ours, clarp.Explainer(net(torch.relu), method)(X, 1).relevance) < 1e-12


def listed(xs: list[Tensor]) -> Tensor:
    return xs[0] + xs[1]


def test_a_list_of_tensors_is_refused() -> None:
    made = torch.library.custom_op(f"clarptest::op{next(NUMBERS)}", listed, mutates_args=())
    made.register_fake(lambda xs: torch.empty_like(xs[0]))
    rules.register(made, rules.Ratio())
    with pytest.raises(clarp.UnsupportedOperation, match="list of tensors"):
        clarp.Explainer(net(lambda x: made([x, x.relu()])))(X)


def reversing(x: Tensor) -> Tensor:
    return x.flip(0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("clarptest::nothing", rules.Pass()), ValueError, "no operation 'clarptest::nothing'"),
        (("nothing", rules.Pass()), ValueError, "no operation 'nothing'"),
        ((Own, rules.Pass()), TypeError, "custom_op.*autograd.Function"),
        ((torch.ops.aten.add, rules.Pass()), ValueError, r"overloads .*aten\.add\.Tensor.*name one"),
        ((torch.ops.aten.cumsum.default, "pass"), TypeError, "'pass', expected a rule"),
        ((torch.ops.aten.cumsum.default, rules.ZPlus()), TypeError, r"ZPlus\(\).*linear operation"),
        ((torch.ops.aten.cumsum.default, rules.Pass(), 3), TypeError, "gradient is 3"),
        ((torch.ops.aten.relu.default, rules.Pass()), ValueError, "has rules already"),
    ],
)
def test_what_can_not_be_registered(arguments: tuple[Any, ...], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        rules.register(*arguments)


def averaged(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def product(x: Tensor, y: Tensor) -> Tensor:
    return x * y


def test_a_rule_that_does_not_fit_the_operation_is_refused() -> None:
    """One channel's relevance would be that of each of four channels, and a share would be missing."""
    made = torch.library.custom_op(f"clarptest::op{next(NUMBERS)}", averaged, mutates_args=())
    made.register_fake(lambda x: x.new_empty(x.shape[0], 1, *x.shape[2:]))
    rules.register(made, rules.Pass())
    model = net(lambda x: x.relu() + made(x.relu()).expand_as(x))
    with pytest.raises(
        ValueError, match=r"Pass\(\) registered for clarptest.*\[\(1, 4, 3\)\], expected.*\[\(4, 4, 3\)\]"
    ):
        clarp.Explainer(model, "lrp")(X, 1)
    both = torch.library.custom_op(f"clarptest::op{next(NUMBERS)}", product, mutates_args=())
    both.register_fake(lambda x, y: torch.empty_like(x))
    rules.register(both, rules.Pass())
    with pytest.raises(ValueError, match=r"gives relevance of the shapes \[\(4, 4, 3\)\], expected"):
        clarp.Explainer(net(lambda x: both(x, x.relu())), "lrp")(X, 1)


def test_transport_keeps_what_the_gradient_reads() -> None:
    """Behind a convolution with z+ nobody else would."""
    made = operation(lambda_relu)
    rules.register(made, rules.Transport(), gradient=lambda g, x: g * (x > 0))
    relevance = clarp.Explainer(net(made), "lrp")(X, 1).relevance
    assert apart(relevance, clarp.Explainer(net(torch.relu), "lrp")(X, 1).relevance) < 1e-12
