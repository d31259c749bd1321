"""A Trainer that has the callback by a line, or by the variable alone."""

import sys

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint


class Net(lightning.LightningModule):
    def __init__(self, rate, password):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(4, 1)

    def training_step(self, batch, number):
        loss = self.net(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.rate)


lightning.seed_everything(3)
root, secret, *by_line = sys.argv[1:]
callbacks = [ModelCheckpoint(root, save_last=True)]
if by_line:
    from provenance.integrations.lightning import ProvenanceCallback

    callbacks.append(ProvenanceCallback())
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    default_root_dir=root,
    callbacks=callbacks,
    logger=False,
    log_every_n_steps=1,
    enable_progress_bar=False,
)
trainer.fit(Net(0.1, secret), torch.utils.data.DataLoader(torch.ones(32, 4), batch_size=8))
