"""VAR: another method's maps of several classes compete for each pixel."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clarp.explainer import Explainer
from clarp.network import Network

CLASSES = 5
TEMPERATURE = 10.0
MARGIN = 0.01


@dataclass(frozen=True)
class Competition:
    """VAR of one of clarp's methods: where the target's map is the strongest of K classes' maps.

    ``R_t = A_t M_t [M_t - 1/K > .01]``, ``M = softmax_k(10 |A_k| / max_k,i |A_ki|)`` in each pixel, over
    the maps A of the target and of the K - 1 = 4 most probable other classes (Walter, Vreeken and Fischer,
    arXiv 2503.07346; temperature, threshold and magnitudes as in the authors' code,
    github.com/nilspwalter/var). The division by the greatest magnitude of all K maps is
    ours: a softmax needs a scale, and theirs are those of gradients. The K maps are made in one forward
    pass, beside the one that tells which classes are probable.

    Bias: pixels where the target is not ahead are exactly zero, and thereby last in every order: scores of
    place gain. Magnitudes compete, so a pixel that speaks loudly against a rival is lost for the target.

    Attributes:
        explainer: makes the maps.
        name: ``var``, over ``lrp``; ``var@METHOD`` over another.
    """

    explainer: Explainer
    name: str
    coarse: bool = False
    layered: bool = False

    @property
    def definition(self) -> str:
        settings = f"{CLASSES} classes, temperature {TEMPERATURE}, margin {MARGIN}"
        return f"VAR, {settings}, of {self.explainer.method!r}"

    def on(self, network: Network) -> "Competition":
        own = self.explainer
        return Competition(Explainer(network, own.method, bounds=own.bounds, task=own.task), self.name)

    def __call__(self, images: Tensor, targets: Tensor, ids: Sequence[str] = ()) -> Tensor:
        """Heatmaps (B, H, W) of images (B, C, H, W) for targets (B,); the ids are not used."""
        del ids
        task, logits = self.explainer.task_and_logits(images)
        scores, targets = task.scores(logits), targets.to(logits.device)[:, None]
        others = scores.scatter(1, targets, -torch.inf).topk(min(CLASSES, scores.shape[1]) - 1).indices
        maps = self.explainer(images, target=torch.cat([targets, others], 1)).shown
        sizes = maps.abs()
        greatest = sizes.flatten(1).amax(1).view(-1, 1, 1, 1)
        won = (TEMPERATURE * sizes / torch.where(greatest > 0, greatest, 1)).softmax(1)[:, 0]
        return maps[:, 0] * won * (won - 1 / maps.shape[1] > MARGIN)
