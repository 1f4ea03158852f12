"""A VAE of pythae (Chadebec et al. 2022), trained by its own pipeline, and one with a KL weight that puts the code out.

pip install --no-deps pythae; python examples/elsewhere/pythae_vae.py [epochs]"""

import sys
import tempfile

import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, BetaVAE, BetaVAEConfig, VAEConfig
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor

import vae
from vae.data.readers import embedded_digits
from vae.data.split import hold_out


def trained(model: VAE, images: Tensor, epochs: int) -> VAE:
    """By pythae's own trainer."""
    with tempfile.TemporaryDirectory() as directory:
        settings = BaseTrainerConfig(
            output_dir=directory,
            num_epochs=epochs,
            learning_rate=1e-3,
            per_device_train_batch_size=100,
            no_cuda=True,
        )
        trainer = BaseTrainer(model, BaseDataset(images, torch.zeros(len(images))), training_config=settings)
        trainer.train()
    return model


def main(epochs: int = 10) -> dict[str, vae.diagnose.Diagnosis]:
    data = hold_out(embedded_digits(), 0.2, 0)
    train, test = (split.batch(slice(0, len(split))) for split in (data.train, data.test))
    shape = {"input_dim": (1, 28, 28), "latent_dim": 16, "reconstruction_loss": "mse"}

    torch.manual_seed(0)
    model = trained(VAE(VAEConfig(**shape)), train, epochs)
    found = {"VAE": vae.diagnose(model, test, train=train)}  # it says itself that its loss is half the squared error

    # "The squared error should be a mean over pixels": then a KL weight of 784 is what that means beside its sum.
    torch.manual_seed(0)
    model = trained(BetaVAE(BetaVAEConfig(**shape, beta=784.0)), train, epochs)
    found["beta 784"] = vae.diagnose(model, test, train=train)

    beta = found["beta 784"].advised_weight
    assert beta is not None
    torch.manual_seed(0)
    model = trained(BetaVAE(BetaVAEConfig(**shape, beta=beta)), train, epochs)
    found["as advised"] = vae.diagnose(model, test, train=train)

    for name, diagnosis in found.items():
        print(f"--- {name}\n{diagnosis}\n")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
