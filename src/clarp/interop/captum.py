"""An explainer as one of captum's attribution methods: for NoiseTunnel, infidelity, sensitivity and more."""

from typing import Any

import torch
from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from clarp.explainer import Explainer
from clarp.targets import Against

Images = Tensor | tuple[Tensor, ...]


class RelevanceAttribution(Attribution):  # type: ignore[misc]  # captum has no annotations
    """An explainer as captum calls its methods.

    Args:
        explainer: is shared, and so are its captured graphs.

    Example:
        >>> import clarp
        >>> from captum.attr import NoiseTunnel
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5)).eval()
        >>> relevance = RelevanceAttribution(clarp.Explainer(model, "lrp"))
        >>> NoiseTunnel(relevance).attribute(torch.rand(2, 3, 4, 4), nt_samples=4, target=1).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(self, explainer: Explainer) -> None:
        super().__init__(explainer.network.model)
        self.explainer = explainer

    @log_usage()  # type: ignore[untyped-decorator]  # captum's tools unwrap it
    def attribute(
        self,
        inputs: Images,
        target: int | list[int] | Tensor,
        additional_forward_args: Any = None,
        *,
        against: Against = None,
    ) -> Images:
        """The relevance of the images.

        Args:
            inputs: images (B, C, H, W), or a tuple of one such tensor, as captum's own tools pass them.
            target: the class, one for all images or one for each. Of a binary task, 1 is the class that the
                logit speaks for, and 0 the other.
            additional_forward_args: what the model takes beside the images, one value or a tuple.
            against: the classes that the target is contrasted with; None: those of the task.

        Returns:
            Relevance of the shape of the images; a tuple of one if ``inputs`` is one.

        Raises:
            ValueError: several input tensors, or a target that is no class for each image; and as
                :class:`clarp.Explainer`.
        """
        images, several = (inputs, False) if isinstance(inputs, Tensor) else (inputs[0], len(inputs) > 1)
        if several:
            raise ValueError(
                f"inputs has {len(inputs)} tensors, expected the images alone, which get all relevance. Pass "
                "what the model takes besides as additional_forward_args."
            )
        further = additional_forward_args
        relevance = self.explainer(
            images,
            _classes(target),
            against,
            inputs=() if further is None else further if isinstance(further, tuple) else (further,),
        ).relevance
        return relevance if isinstance(inputs, Tensor) else (relevance,)


def _classes(target: Any) -> int | Tensor:
    """One class for all images, or (B,)."""
    found = None if target is None else torch.as_tensor(target)
    if found is None or found.ndim > 1:
        given = None if found is None else f"of shape {tuple(found.shape)}"
        raise ValueError(
            f"target is {given}, expected one class, or one for each image, (B,): captum's tools call with "
            "many variants of an image, whose most probable class may differ."
        )
    return int(found) if found.numel() == 1 else found
