"""A network learns under Lightning, and its maps are logged on the way, on one scale."""

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import clarp

pytest.importorskip("clarp.models._torchvision")  # before Lightning, which imports torchvision
pytest.importorskip("lightning.pytorch")
pytest.importorskip("tensorboard")

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from clarp.interop.lightning import MapCallback
from interop.runs import IMAGES, network, written

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Learning(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch, index):
        assert self.net[2].training  # its dropout
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.net.parameters(), lr=1.0)


def fitted(folder, module, callback, epochs) -> None:
    data = DataLoader(TensorDataset(IMAGES, torch.tensor([0, 2])), batch_size=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and devices
        trainer = pl.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=TensorBoardLogger(folder),
            callbacks=[callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)


def test_maps_of_every_second_epoch(tmp_path) -> None:
    module = Learning()
    explainer = clarp.Explainer(module.net, "sglrp", bounds=(0.0, 1.0))
    callback = MapCallback(explainer, IMAGES, [0, 2], every=2)
    module.net.train()
    module.net[1].eval()  # a mode of its own, which must come back
    modes = [part.training for part in module.modules()]
    fitted(tmp_path, module, callback, 5)
    (folder,) = (tmp_path / "lightning_logs").iterdir()
    found = written(folder)
    assert [step for step, _ in found] == [2, 4]
    assert not np.array_equal(found[0][1], found[1][1])
    assert [part.training for part in module.modules()] == modes
    other = MapCallback(explainer, IMAGES)
    other.load_state_dict(callback.state_dict())
    assert other.limit == callback.limit > 0


def test_every_is_a_number_of_epochs() -> None:
    with pytest.raises(ValueError, match="every is 0"):
        MapCallback(clarp.Explainer(network()), IMAGES, every=0)
