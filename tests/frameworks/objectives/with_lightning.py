import lightning
import torch
from optuna_integration import PyTorchLightningPruningCallback

from aimlhpo import BaseObjective


class Line(lightning.LightningModule):
    def __init__(self, offset):
        super().__init__()
        self.offset = offset
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.layer(batch), batch)

    def validation_step(self, batch, index):
        self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch), batch + self.offset))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Objective(BaseObjective):
    def train(self, trial, conf):
        data = torch.utils.data.DataLoader(torch.rand(16, 1), batch_size=8)
        callback = PyTorchLightningPruningCallback(trial, "val_loss")
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            callbacks=[callback],
        )
        trainer.fit(Line(conf["model"]["x"]), data, data)
        callback.check_pruned()
        return {"val_loss": trainer.callback_metrics["val_loss"]}
