"""Where the batch is not the first axis, or not alone in it; constants that depend on its size; products with constants.

All of these are linear in the image, so LRP-0 is gradient times input, which autograd knows.
"""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clarp
from oracle.calls import apart, images

BEFORE, BEHIND, MIXING = images(1, 4, 6, 8, seed=1), images(7, 8, seed=2), images(8, 3, 8, seed=3)
TOKEN = images(1, 1, 8, seed=4)


def windows(x: Tensor) -> Tensor:
    """Swin's: windows join the batch, each is treated alone, and all go back."""
    batch = x.shape[0]
    x = x.view(batch, 4, 2, 3, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(batch * 4, 12, 4)
    x = (x @ BEHIND[:4, :4].t()).transpose(1, 2).flip(2)
    return x.reshape(batch, 2, 2, 4, 3, 4).roll((1, -1), (1, 2)).permute(0, 3, 1, 4, 2, 5).reshape(batch, -1)


def sequence_first(x: Tensor) -> Tensor:
    """``nn.MultiheadAttention``'s: (T, B, D), then heads join the batch in the second axis."""
    batch = x.shape[0]
    x = x.flatten(2).view(batch, 8, 24).permute(2, 0, 1)
    heads = x.reshape(24, batch * 2, 4).transpose(0, 1)
    heads = heads.view(batch, 2, 24, 4)[:, :, 3:] * 2.0
    return heads.permute(2, 0, 1, 3).reshape(21, batch, 8).transpose(0, 1)


def tokens(x: Tensor) -> Tensor:
    """A class token for each image, and another one behind."""
    x = x.flatten(2).transpose(1, 2)
    token = TOKEN[..., :4]
    x = torch.cat([token.expand(x.shape[0], -1, -1), x, token.repeat(x.shape[0], 2, 1)], 1)
    return x[:, 1:] @ BEHIND[:, :4].t()


def stacked(x: Tensor) -> Tensor:
    """qkv in front of the batch."""
    q, k, v = x.reshape(x.shape[0], 2, 3, 4, 8).permute(2, 0, 1, 3, 4).unbind(0)
    return torch.stack([q + v, k, torch.cat(v.chunk(2, -1)[::-1], -1)], 0)[1:].transpose(0, 1)


def blank(x: Tensor) -> Tensor:
    """Constants made from the shape of a value, and written to."""
    mask = x.new_zeros(x.shape[0], 1, 6, 8)
    mask[:, :, 2:4] = 1.0
    return x * mask + x.new_full((), 3.0)


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "windows": windows,
    "sequence first": sequence_first,
    "class tokens": tokens,
    "stacked": stacked,
    "blank": blank,
    "repeated images": lambda x: x.repeat_interleave(3, 0).flip(2).reshape(x.shape[0], -1),
    "repeated windows": lambda x: (
        x.reshape(-1, 2, 6, 8).repeat_interleave(3, 0).roll(1, 3).reshape(x.shape[0], -1)
    ),
    "repeated rows": lambda x: x.repeat_interleave(3, 2),
    "tiled": lambda x: x.repeat(1, 2, 3, 1),
    "expanded": lambda x: x.unsqueeze(2).expand(-1, -1, 5, -1, -1),
    "a matrix behind": lambda x: x @ BEHIND.t(),
    "matrices before": lambda x: BEFORE @ x.mT,
    "einsum without an arrow": lambda x: torch.einsum("bchw,wi", x, MIXING[:, 0]),
    "einsum with a constant": lambda x: torch.einsum("bchw,wkv->bchkv", x, MIXING),
    "einsum at each position": lambda x: torch.einsum("bchw,wkh->bkcw", x, MIXING.new_ones(8, 3, 6)),
    "bicubic": lambda x: F.interpolate(x, size=(5, 9), mode="bicubic"),
    "bicubic by a factor": lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"),
    "bicubic, smoothed": lambda x: F.interpolate(x, size=(3, 9), mode="bicubic", antialias=True),
    "bilinear, smoothed": lambda x: F.interpolate(x, size=(3, 5), mode="bilinear", antialias=True),
    "folded windows": lambda x: F.fold(F.unfold(x, 3, padding=1).flip(2), (6, 8), 3, padding=1),
    "einsum of windows": lambda x: torch.einsum(
        "bhw,wkh->bk", x.flip(1).reshape(-1, 6, 8), MIXING[..., :6]
    ).reshape(x.shape[0], -1),
    "einsum with a token for each image": lambda x: torch.einsum(
        "biw,bhw->bih", MIXING[None, :, 0].expand(x.shape[0], -1, -1), x.flatten(1, 2)
    ),
    "a matrix before a column for each image": lambda x: (MIXING.flatten(1)[:3, :8] @ x.mean((1, 2)).t()).t(),
    "channels in the batch, repeated at the edge": lambda x: F.pad(
        x.reshape(-1, 1, 6, 8), (1, 2, 0, 1), mode="replicate"
    ).reshape(x.shape[0], -1),
    "narrow": lambda x: x.narrow(2, 1, 3).select(3, -1),
    "narrow from the end": lambda x: torch.cat(
        [x.narrow(2, -2, 2), x.narrow(2, -6, 3), x.narrow(2, 0, 6)], 2
    ),
    "split unevenly": lambda x: torch.cat(x.split([1, 5], 2)[::-1], 2).tensor_split(2, 3)[1],
}


class Wrapped(nn.Module):
    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.convolution, self.call = nn.Conv2d(2, 4, 3, padding=1), call
        self.head = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.call(self.convolution(x)).flatten(1))


def wrapped(call: Callable[[Tensor], Tensor]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # lazy modules are new
        model = Wrapped(call).double()
    model(images(1, 2, 6, 8))
    return model.eval()


@pytest.mark.parametrize("name", CALLS)
def test_gradient_times_input(name: str) -> None:
    model, x = wrapped(CALLS[name]), images(3, 2, 6, 8)
    zero = clarp.composites.get("zero", residual="proportional")
    explainer = clarp.Explainer(model, "lrp", composite=zero)
    explanation = explainer(x, target=1)
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), leaf)
    assert apart(explanation.logits, logits.detach()) < 1e-12
    assert apart(explanation.relevance, x * gradient) < 1e-9
    assert apart(explainer(x[:1], target=1).relevance, explanation.relevance[:1]) < 1e-9
    ledger = explanation.ledger
    assert apart(ledger.pixels + ledger.total("bias") + ledger.total("epsilon"), ledger.seed) < 1e-9


MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "rolled through the batch": lambda x: x.roll(1, 0),
    "flipped batch": lambda x: x.flip(0),
    "softmax over the batch": lambda x: x.softmax(0),
    "attention between images": lambda x: (x.flatten(1) @ x.flatten(1).t()) @ x.flatten(1),
    "constants that differ between images": lambda x: (
        x + torch.arange(x.shape[0], dtype=x.dtype).view(-1, 1, 1, 1)
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_images_that_meet_each_other_are_refused(name: str) -> None:
    """What one image gets must not depend on the others."""
    with pytest.raises(clarp.UnsupportedOperation, match=r"batch|sample"):
        clarp.Explainer(wrapped(MIXED[name]), "lrp")(images(2, 2, 6, 8))


def test_a_write_into_a_parameter_is_refused() -> None:
    """Constants are computed while capturing, but the model's own memory is never written to."""

    class Writes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(48, 3)
            self.register_buffer("seen", torch.zeros(48))

        def forward(self, x: Tensor) -> Tensor:
            self.seen[2:5] = 1.0
            return self.head(x.flatten(1) * self.seen)

    model = Writes().eval()
    with pytest.raises(clarp.UnsupportedOperation):
        clarp.Explainer(model, "lrp")(images(2, 1, 6, 8, dtype=torch.float32))
    assert (model.seen == 0).all()


def test_einsum_of_heads_in_the_batch_is_that_of_heads_beside_it() -> None:
    def beside(x: Tensor) -> Tensor:
        return torch.einsum("bcij,bckj->bcik", x.flip(1), x)

    def inside(x: Tensor) -> Tensor:
        first, second = (y.reshape(-1, 6, 8) for y in (x.flip(1), x))
        return torch.einsum("bij,bkj->bik", first, second).reshape(x.shape[0], -1)

    x = images(3, 2, 6, 8)
    torch.manual_seed(0)
    model = wrapped(beside)
    expected = clarp.Explainer(model, "lrp", composite="epsilon")(x, target=1)
    model.call = inside  # type: ignore[assignment]
    found = clarp.Explainer(model, "lrp", composite="epsilon")(x, target=1)
    torch.testing.assert_close(found.relevance, expected.relevance)
