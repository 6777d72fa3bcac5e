"""Programs that were exported for a fixed number of images: the maps are those of the model, for any number."""

from functools import cache

import pytest
import torch
from torch import Tensor, nn

import clarp
from capture.test_layouts import sequence_first, stacked, tokens, windows, wrapped
from oracle.calls import apart, captured, images

INDEX = torch.arange(8).flip(0)


def attention() -> nn.Module:
    """Of torch's own, with the sequence in front: heads and steps both join the batch, on either side of it."""
    layer = nn.MultiheadAttention(4, 2).double().eval()

    def call(x: Tensor) -> Tensor:
        sequence = x.flatten(2).permute(2, 0, 1)
        return layer(sequence, sequence, sequence, need_weights=False)[0].transpose(0, 1)

    return wrapped(call)


def turned(x: Tensor) -> Tensor:
    """Places that are constants with a batch axis of their own."""
    return x.gather(3, INDEX.expand(x.shape))


MODELS = {
    "windows": lambda: wrapped(windows),
    "sequence first": lambda: wrapped(sequence_first),
    "class tokens": lambda: wrapped(tokens),
    "qkv in front of the batch": lambda: wrapped(stacked),
    "gather": lambda: wrapped(turned),
    "attention": attention,
}


@cache
def made(name: str) -> nn.Module:
    """One for all batches, so that it is captured once; no test changes it."""
    return MODELS[name]()


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
@pytest.mark.parametrize("name", MODELS)
def test_the_maps_of_the_model(name: str, batch: int) -> None:
    model, x = made(name), images(3, 2, 6, 8)
    program = torch.export.export(model, (images(batch, 2, 6, 8, seed=5),))
    before = program.graph_module.code
    ours, theirs = (
        clarp.Explainer(each, "lrp")(x, 1, layers=["convolution"]) for each in (program, captured(model))
    )
    assert apart(ours.logits, theirs.logits) < 1e-12
    assert apart(ours.relevance, theirs.relevance) < 1e-9
    assert apart(ours.layers["convolution"], theirs.layers["convolution"]) < 1e-9
    assert program.graph_module.code == before


@pytest.mark.parametrize("batch", [1, 3])
def test_a_program_that_is_left_as_it_is(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the batch comes first everywhere, a fixed one is as good; constants are those of all its images."""
    monkeypatch.setattr("clarp.capture.export.for_any_batch", lambda *_: None)
    model, x = made("gather"), images(2, 2, 6, 8)
    program = torch.export.export(model, (images(batch, 2, 6, 8, seed=5),))
    ours, theirs = (clarp.Explainer(each, "lrp")(x, 1) for each in (program, captured(model)))
    assert apart(ours.relevance, theirs.relevance) < 1e-9


def test_a_batch_that_is_not_found_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clarp.capture.export.for_any_batch", lambda *_: None)
    program = torch.export.export(wrapped(stacked), (images(3, 2, 6, 8),))
    with pytest.raises(
        clarp.UnsupportedOperation, match=r"for exactly 3 image\(s\): export it for any number"
    ):
        clarp.Explainer(program, "lrp")(images(3, 2, 6, 8))


@pytest.mark.parametrize("mix", [lambda x: x + x.mean(0, keepdim=True), lambda x: x + x.roll(1, 0)])
def test_images_that_meet_each_other_are_refused(mix: object) -> None:
    program = torch.export.export(wrapped(mix), (images(3, 2, 6, 8),))  # type: ignore[arg-type]
    with pytest.raises(clarp.CaptureError, match=r"batch|sample"):
        clarp.Explainer(program, "lrp")(images(3, 2, 6, 8))
