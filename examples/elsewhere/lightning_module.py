"""A LightningModule that trains a VAE, watched by the callback: TensorBoard's curves, the events, and the warning
before the first step.

pip install lightning; python examples/elsewhere/lightning_module.py [steps]"""

import sys
import tempfile

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import vae
from vae.data.readers import embedded_digits
from vae.data.split import hold_out
from vae.diagnose.lightning import CollapseMonitor


class LitVAE(lightning.LightningModule):
    """The mean squared error and a KL term, weighed by `kl_weight`."""

    def __init__(self, kl_weight: float) -> None:
        super().__init__()
        self.kl_weight = kl_weight
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 2 * 16))
        self.decoder = nn.Sequential(nn.Linear(16, 200), nn.ReLU(), nn.Linear(200, 784), nn.Unflatten(1, (1, 28, 28)))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = self.encoder(images).chunk(2, 1)
        return mu, logvar

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        (images,) = batch
        mu, logvar = self.encode(images)
        recon = self.decode(mu + torch.randn_like(mu) * (0.5 * logvar).exp())
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        return F.mse_loss(recon, images) + self.kl_weight * kl

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def trained(train: Tensor, test: Tensor, steps: int, kl_weight: float) -> CollapseMonitor:
    lightning.seed_everything(0, verbose=False)
    loss = vae.scale("mse", "mean", (1, 28, 28), kl_weight=kl_weight)
    with tempfile.TemporaryDirectory() as directory:
        monitor = CollapseMonitor(test, loss=loss, directory=directory)
        trainer = lightning.Trainer(
            max_steps=steps,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[monitor],
        )
        loader = DataLoader(TensorDataset(train), batch_size=64, shuffle=True, drop_last=True)
        trainer.fit(LitVAE(kl_weight), loader)
    return monitor


def main(steps: int = 600) -> dict[str, vae.diagnose.Diagnosis]:
    data = hold_out(embedded_digits(), 0.2, 0)
    train, test = (split.batch(slice(0, len(split))) for split in (data.train, data.test))
    monitors = {"KL weight 1": trained(train, test, steps, 1.0)}
    weight = monitors["KL weight 1"].diagnosis.advised_weight
    assert weight is not None
    monitors[f"KL weight {weight:.3g}, as advised"] = trained(train, test, steps, weight)
    for name, monitor in monitors.items():
        print(f"--- {name}\n{monitor.monitor.warning or ''}")
        print(*monitor.monitor.events, monitor.diagnosis, "", sep="\n")
    return {name: monitor.diagnosis for name, monitor in monitors.items()}


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
