"""Methods for vision transformers that read attention between tokens, with a cell for each patch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from clarp.attention import TokenAttention
from clarp.method import RIVALS
from clarp.network import Network
from clarp.task import Task, TaskName, task_of


@dataclass(frozen=True, eq=False)
class TokenMap:
    """One value for each patch, interpolated bilinearly.

    With the attention weights A_b (heads h, queries i, keys j) of block b, and the target's logit z_t:

    - ``legrad``: ``sum_b mean_h mean_i ReLU(dz_t^b / dA_b)``, where z^b are the logits that the model's own
      last norm, pooling and head give of the tokens behind block b; scaled to 0 .. 1 (Bousselham et al.,
      ICCV 2025, arXiv 2404.03214; all blocks). Bias: only what raises the class, and the
      gradient alone, so a patch may be red that is hardly looked at.
    - ``chefer``: ``R <- R + mean_h ReLU(dz_t / dA_b * A_b) R`` from R = 1, the first block first (Chefer et
      al., ICCV 2021, arXiv 2103.15679, eq. 5 and 6). The map is the row of the class token, and in a model
      without one the mean of all rows.
    - ``chefer-lrp``: the same with the relevance of A_b in place of A_b (Chefer et al., CVPR 2021, arXiv
      2012.09838, eq. 13 and 14). The relevance starts at 1 at the target's logit, and goes back by clarp's
      rules that are nearest to theirs: z+ in linear layers, sums by size (theirs rescale the two sums as
      wholes), products in halves, the softmax linearised (theirs passes relevance through). Bias of both:
      no map has anything that speaks against the class, and multiplying attention over blocks assumes that
      a token stays at its patch.

    Attributes:
        name: one of the three.
        network: the model.
        task: what the last layer means; None: as the model ends.
    """

    name: str
    network: Network
    task: TaskName | None
    coarse: bool = True
    layered: bool = True
    _known: list[TokenAttention] = field(default_factory=list, repr=False)

    @classmethod
    def of(
        cls, name: str, network: Network, image: Tensor | None = None, task: TaskName | None = None
    ) -> "TokenMap":
        """For a captured model.

        Args:
            name: see above.
            network: the model.
            image: (C, H, W) as the model will see it; without one, whether it has attention is found at the
                first call.
            task: what the last layer means; None: as the model ends.

        Raises:
            ValueError: the model has no attention between all tokens of one grid of patches.
        """
        found = cls(name, network, task)
        if image is not None:
            found._attention(image)
        return found

    @property
    def definition(self) -> str:
        return f"{self.name}: {RIVALS[self.name]}, task {self.task}"

    def on(self, network: Network) -> "TokenMap":
        return TokenMap(self.name, network, self.task)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Tensor:
        """Heatmaps (B, H, W) of images (B, C, H, W) for targets (B,); the ids are not used.

        Raises:
            ValueError: the model has no such attention.
        """
        del ids
        attention = self._attention(images[0])
        task, targets = task_of(attention.graph, self.task, self.network.task), targets.to(images.device)
        values = attention.forward(images)
        if self.name == "legrad":
            tokens = _legrad(attention, values, task, targets)
        else:
            tokens = self._chefer(attention, values, task, targets)
        maps = attention.drawn(tokens, (images.shape[2], images.shape[3])).detach()
        return _scaled(maps) if self.name == "legrad" else maps

    def _attention(self, image: Tensor) -> TokenAttention:
        self.network.check_mode()
        graph = self.network.graph(tuple(image.shape), self.network.dtype or image.dtype)
        if not self._known or self._known[0].graph is not graph:
            try:
                self._known[:] = [TokenAttention.of(graph, self.network.name)]
            except ValueError as error:
                raise ValueError(f"{self.name}: {error} Leave {self.name} out.") from error
        return self._known[0]

    def _chefer(
        self, attention: TokenAttention, values: Mapping[str, Tensor], task: Task, targets: Tensor
    ) -> Tensor:
        """(B, n)."""
        logits = values[attention.graph.output]
        weights = [values[name] for name in attention.weights]
        gradients = torch.autograd.grad(_of(task.scores(logits), targets).sum(), weights)
        if self.name == "chefer-lrp":
            images = values[attention.graph.input].detach()
            seed = F.one_hot(task.columns(targets), logits.shape[1]).to(logits)
            weights = attention.relevance(images, seed)
        tokens = weights[0].shape[-1]
        found = torch.eye(tokens, dtype=logits.dtype, device=logits.device).expand(len(logits), -1, -1)
        for weight, gradient in zip(weights, gradients, strict=True):
            # The heads are the axes between batch and queries, and there may be none.
            one = (
                (gradient * weight.detach()).clamp(min=0).flatten(1, -3).mean(1)
                if weight.ndim > 3
                else ((gradient * weight.detach()).clamp(min=0))
            )
            found = found + one @ found
        return found[:, 0] if attention.in_front else found.mean(1)


def _legrad(attention: TokenAttention, values: Mapping[str, Tensor], task: Task, targets: Tensor) -> Tensor:
    """(B, n)."""
    found = torch.zeros((), dtype=values[attention.graph.output].dtype, device=targets.device)
    for block, name in enumerate(attention.weights):
        score = _of(task.scores(attention.logits_behind(block, values)), targets).sum()
        (gradient,) = torch.autograd.grad(score, values[name], retain_graph=True)
        found = found + gradient.clamp(min=0).flatten(1, -2).mean(1)
    return found


def _of(scores: Tensor, targets: Tensor) -> Tensor:
    return scores.gather(1, targets[:, None])


def _scaled(maps: Tensor) -> Tensor:
    """Each map from 0 to 1; a constant one is 0."""
    low, high = (end(maps.flatten(1), 1).view(-1, 1, 1) for end in (torch.amin, torch.amax))
    return (maps - low) / torch.where(high > low, high - low, 1)
