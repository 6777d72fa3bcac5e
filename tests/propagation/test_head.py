"""The last layer, whose weights CLRP2 negates: there must be one."""

import pytest
import torch
from torch import Tensor, nn

import clarp
from oracle.calls import apart, images

X = images(2, 3, 6, 5)


class Headed(nn.Module):
    """Features, and what ``spelling`` makes logits of them by."""

    def __init__(self, spelling: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head, self.other = nn.Conv2d(3, 4, 3), nn.Linear(4, 5, bias=False), nn.Linear(4, 5)
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).relu().mean((2, 3))
        if self.spelling == "einsum":
            return torch.einsum("bc,nc->bn", x, self.head.weight)
        if self.spelling == "distilled":
            return (self.head(x) + self.other(x)) / 2
        return self.head(x) + x.mean(1, keepdim=True) if self.spelling == "skipped" else self.head(x)


def net(spelling: str) -> nn.Module:
    return Headed(spelling).double().eval()


def test_a_head_written_as_a_contraction_is_the_head() -> None:
    ours, theirs = (clarp.Explainer(net(s), "clrp2")(X, [1, 2]).relevance for s in ("einsum", "module"))
    assert apart(ours, theirs) < 1e-12


@pytest.mark.parametrize(
    ("spelling", "heads"), [("distilled", "head, other|other, head"), ("skipped", "head")]
)
def test_several_heads_are_refused(spelling: str, heads: str) -> None:
    """The share through the one that is not negated would cancel, without a word."""
    with pytest.raises(ValueError, match=rf"several results \(.*({heads}).*\).*two_pass"):
        clarp.Explainer(net(spelling), "clrp2")(X, [1, 2])
    assert clarp.Explainer(net(spelling), "clrp1")(X, [1, 2]).relevance.isfinite().all()
