"""The libraries: the networks and the loss of benchmarks.plain trained by pythae's BaseTrainer and by Lightning's
Trainer, each as its documentation shows. What they would do besides is left off, in their favour: evaluation,
checkpoints, logging. `python -m benchmarks.peers pythae|lightning`, each in a process of its own."""

import argparse
import importlib.util
import tempfile
from typing import Any

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.plain import PlainVAE
from benchmarks.stopwatch import stopwatch

LIBRARIES = {"pythae": "pythae", "lightning": "pytorch_lightning"}  # and the module that each is


def installed(section: str) -> list[str]:
    """Those that are here; what is not is said."""
    missing = [name for name, module in LIBRARIES.items() if importlib.util.find_spec(module) is None]
    for name in missing:
        print(f"{section}: {name} is not installed and left out; `make bench` installs it", flush=True)
    return [name for name in LIBRARIES if name not in missing]


class Enough(Exception):
    """pythae trains whole epochs; this ends it at a step."""


def pythae(arguments: argparse.Namespace) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    network = PlainVAE(arguments.model)

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.encoder

        def forward(self, images: Tensor) -> ModelOutput:
            mu, log_sigma = self.network(images)
            return ModelOutput(embedding=mu, log_covariance=2 * log_sigma)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.network = network.decoder

        def forward(self, z: Tensor) -> ModelOutput:
            return ModelOutput(reconstruction=self.network(z))

    class SSE(VAE):
        """With the sum of squared errors; pythae's own `mse` is half of it."""

        def loss_function(self, recon_x: Tensor, x: Tensor, mu: Tensor, log_var: Tensor, z: Tensor) -> Any:
            halved, error, kld = super().loss_function(recon_x, x, mu, log_var, z)
            return halved + error, 2 * error, kld

    class Timing(TrainingCallback):
        def on_train_step_end(self, training_config: BaseTrainerConfig, **kwargs: Any) -> None:
            if watch.tick(plain.BATCH):
                raise Enough

    split = plain.digits(arguments.root, train=True)
    images = torch.stack([split[index][0] for index in range(len(split))])
    images = images[: len(images) // plain.BATCH * plain.BATCH]  # it does not say a step's batch size: all are full
    watch = stopwatch(arguments)
    with tempfile.TemporaryDirectory() as directory:
        trainer = BaseTrainer(
            model=SSE(VAEConfig(input_dim=images.shape[1:], latent_dim=plain.LATENT), Encoder(), Decoder()),
            train_dataset=BaseDataset(images, torch.zeros(len(images))),
            training_config=BaseTrainerConfig(
                output_dir=directory,
                num_epochs=10**6,
                learning_rate=1e-3,
                per_device_train_batch_size=plain.BATCH,
                no_cuda=True,
            ),
            callbacks=[Timing()],
        )
        try:
            trainer.train()
        except Enough:
            watch.answer()


def lightning(arguments: argparse.Namespace) -> None:
    import pytorch_lightning as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = PlainVAE(arguments.model)

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
            images, _ = batch
            output, mu, log_sigma = self.network(images)
            return plain.loss_function(output, images, mu, log_sigma)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    class Timing(pl.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            watch.tick(len(batch[0]))

    watch = stopwatch(arguments)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=-1,
        max_steps=-1 if arguments.turns else arguments.warmup + arguments.steps,
        precision="bf16-mixed" if arguments.precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Timing()],
    )
    trainer.fit(Module(), plain.loader(arguments.root))
    watch.answer()


def main() -> None:
    options = plain.parser()
    options.add_argument("library", choices=list(LIBRARIES))
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    {"pythae": pythae, "lightning": lightning}[arguments.library](arguments)


if __name__ == "__main__":
    main()
