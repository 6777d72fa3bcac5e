"""A callback of Lightning that logs the maps of the same photos while a network learns."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clarp.explainer import Explainer
from clarp.explanation import Explanation
from clarp.interop.logs import full_colour, to_mlflow, to_tensorboard, to_wandb
from clarp.optional import optional
from clarp.targets import Against, Target

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    Callback = optional("lightning.pytorch", "A callback of Lightning", "interop").Callback


class MapCallback(Callback):  # type: ignore[misc,unused-ignore]
    """Explains fixed photos every n epochs, on the scale of the first time, and logs their maps.

    It goes to the trainer's loggers of TensorBoard, Weights & Biases and MLflow. The network is in eval mode
    meanwhile, and each module's own mode comes back. After each change of weights the network is captured
    anew, which takes seconds, so choose ``every`` with care; an explainer with ``differentiable=True`` is
    not captured anew.

    Args:
        explainer: of the network that learns, for example ``clarp.Explainer(module.net, "sglrp")``; not of
            the LightningModule itself, whose trainer is no part of the network.
        images: (B, C, H, W), preprocessed.
        target: the class of each; None: the most probable one, which may change from epoch to epoch.
        against: the classes that it is contrasted with; None: those of the task.
        every: so many epochs lie between two maps.
        tag: what the images are called.

    Raises:
        ValueError: ``every`` is below one.
    """

    def __init__(
        self,
        explainer: Explainer,
        images: Tensor,
        target: Target = None,
        against: Against = None,
        *,
        every: int = 1,
        tag: str = "relevance",
    ) -> None:
        if every < 1:
            raise ValueError(f"every is {every!r}, expected a number of epochs of at least 1.")
        self.explainer, self.images, self.target, self.against = explainer, images, target, against
        self.every, self.tag = every, tag
        self.limit: float | None = None

    def on_train_epoch_end(self, trainer: "Trainer", pl_module: "LightningModule") -> None:
        """Log where it is time, on one process."""
        del pl_module
        if (trainer.current_epoch + 1) % self.every or not trainer.is_global_zero:
            return
        explanation = self._explained()
        if self.limit is None:
            self.limit = full_colour(explanation)
        for logger in trainer.loggers:
            _log(logger, self.tag, explanation, trainer.global_step, self.limit)

    def state_dict(self) -> dict[str, Any]:
        """The scale, which a run that goes on keeps."""
        return {"limit": self.limit}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As saved."""
        self.limit = state_dict["limit"]

    def _explained(self) -> Explanation:
        network = self.explainer.network
        modules = list(network.model.modules()) if isinstance(network.model, nn.Module) else []
        modes = [module.training for module in modules]
        try:
            for module in modules:
                module.training = False
            with torch.no_grad():
                return self.explainer(self.images.to(network.device), self.target, self.against)
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode


def _log(logger: Any, tag: str, explanation: Explanation, step: int, limit: float) -> None:
    kind = type(logger).__name__
    if kind == "TensorBoardLogger":
        to_tensorboard(logger.experiment, tag, explanation, step, limit=limit)
    elif kind == "WandbLogger":
        to_wandb(logger.experiment, tag, explanation, limit=limit)
    elif kind == "MLFlowLogger":
        to_mlflow(logger.experiment, logger.run_id, tag, explanation, step, limit=limit)
