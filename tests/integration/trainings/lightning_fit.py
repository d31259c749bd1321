import sys

import pytorch_lightning as lightning
import rows
import torch
from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint, Timer
from pytorch_lightning.loggers import CSVLogger

from provenance import current_run


class Net(lightning.LightningModule):
    def __init__(self, rate, data):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Linear(4, 1)

    def training_step(self, batch, number):
        loss = torch.nn.functional.mse_loss(self.net(batch[:, :4]), batch[:, 4:])
        current_run().metric("loss", loss.item(), step=number)
        self.log("loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.rate)


lightning.seed_everything(0)
torch.set_num_threads(1)
data, root, *kept = sys.argv[1:]
loader = torch.utils.data.DataLoader(torch.tensor(rows.read(data)), batch_size=16)
callbacks = [EarlyStopping("loss"), LearningRateMonitor(), Timer()]
if kept:
    callbacks.append(
        ModelCheckpoint(kept[0], monitor="loss", save_last=kept[1] if kept[1:] else True)
    )
trainer = lightning.Trainer(
    max_epochs=2,
    accelerator="cpu",
    default_root_dir=root,
    callbacks=callbacks,
    logger=CSVLogger(root),
    enable_progress_bar=False,
)
trainer.fit(Net(0.1, data), loader)
