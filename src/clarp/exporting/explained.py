"""A classifier and its explanation as one module of tensors, which can be recorded as one program."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from clarp.bounds import ends
from clarp.parts import ExplainerParts
from clarp.passes import Maps, Passes
from clarp.targets import all_others


def buffer_names(names: Iterable[str]) -> dict[str, str]:
    """What a graph's constants are called in a recorded program: their own names have dots."""
    return {name: f"w{number}" for number, name in enumerate(names)}


class ExplainedModel(nn.Module):
    """``(images, target) -> (logits, heatmap, lost)``, without a decision that depends on values.

    What can't be explained is NaN in the heatmap and 1 in ``lost``: an image with a value that is not finite,
    a class that the model does not have, a target whose logit is infinite, a target that is its own only
    rival.

    Args:
        parts: what to explain with.
        half: whether the weights are stored in float16; they are computed with in float32.

    Shapes:
        images (B, C, H, W); target int64 (B,) or (B, K); rivals, where they are an input, bool (B, N), where
            a row without any stands for those of the task.
        logits (B, N); heatmap (B, H, W) or (B, K, H, W); lost (B,) or (B, K).
    """

    def __init__(self, parts: ExplainerParts, *, half: bool = False) -> None:
        super().__init__()
        self.parts = parts
        tensors = parts.program.tensors
        self._names = buffer_names(tensors)
        self._types = {name: tensor.dtype for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            stored = tensor.half() if half and tensor.is_floating_point() else tensor
            self.register_buffer(self._names[name], stored)
        self.eval()

    def _tensors(self) -> Mapping[str, Tensor]:
        return {name: getattr(self, own).to(self._types[name]) for name, own in self._names.items()}

    def forward(
        self, images: Tensor, target: Tensor, rivals: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        parts = self.parts
        program = parts.program.reading(self._tensors())
        cached = program.forward(images)
        logits = cached.logits
        chosen = (target.unsqueeze(1) if target.ndim == 1 else target).t()
        known = (chosen >= 0) & (chosen < parts.task.classes)
        chosen = chosen.clamp(0, parts.task.classes - 1)
        columns = parts.task.columns(chosen)
        others = self._rivals(chosen, columns, logits, rivals)
        seed = parts.method.seed.relevance(logits, columns, others)
        bounds = ends(parts.bounds, parts.method.rules.first, images, parts.channels.axis)
        passes = Passes(parts.method, program, cached, columns, others, seed, bounds, parts.channels.axis)
        maps = passes.maps(()).signed(parts.task.signs(chosen))
        relevance = maps.relevance.clamp(min=0) if parts.method.rectify else maps.relevance
        heatmap = relevance.sum(parts.channels.axis + 1)
        good = known & images.isfinite().flatten(1).all(1)
        if rivals is not None:
            good = good & (others.any(-1) | ~rivals.any(-1))
        good = good & heatmap.isfinite().flatten(2).all(2)
        heatmap = torch.where(good.view(*good.shape, *(1,) * (heatmap.ndim - 2)), heatmap, torch.nan)
        lost = torch.where(good, lost_share(maps), 1.0)
        if target.ndim == 1:
            return logits, heatmap[0], lost[0]
        return logits, heatmap.transpose(0, 1), lost.t()

    def _rivals(self, chosen: Tensor, columns: Tensor, logits: Tensor, rivals: Tensor | None) -> Tensor:
        """Which logits each target is contrasted with, bool (K, B, N)."""
        count = logits.shape[1]
        usual = self.parts.task.own_rivals(chosen, count)
        if rivals is None:
            return usual
        some = rivals.any(-1, keepdim=True)
        # Not torch.where, which ONNX Runtime has for numbers alone.
        return (some & rivals & all_others(columns, count)) | (~some & usual)


def lost_share(maps: Maps) -> Tensor:
    """The share of the initial relevance that never reached the pixels, (K, B), between 0 and 1.

    What the operations absorbed, ``sum_l |absorbed_l| / sum_n |R_n|``; of two passes, the one that lost more.
    Where a target is contrasted with rivals in one pass, what both lose at one operation cancels in its sum,
    and this is the least that was lost.
    """
    ledger = maps.passes
    absorbed = sum((entry.absorbed.abs() for entry in ledger.entries), torch.zeros_like(ledger.size))
    share = absorbed / ledger.size.clamp(min=torch.finfo(ledger.size.dtype).tiny)
    return share.unflatten(0, (-1, maps.ledger.size.shape[0])).amax(0).clamp(0, 1)
