"""The encoder of a trained model, trained on while its decoder stays as it is."""

import copy
from collections.abc import Callable

import torch
from torch import nn

from vae.config.schema import RunConfig
from vae.data.binarize import training_images
from vae.data.split import Data
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.runtime.rng import generator
from vae.training import optimizer as optimizers
from vae.training.optimizer import learning_rate
from vae.training.setup import autocast


def train_encoder(
    config: RunConfig,
    model: VAE,
    likelihood: Likelihood,
    data: Data,
    weight: float,
    steps: int,
    progress: Callable[[int], None],
) -> VAE:
    """A copy of `model` whose encoder has seen `steps` batches more, at this KL weight, with the run's optimiser."""
    model = copy.deepcopy(model).eval()
    model.encoder.train()
    likelihood = copy.deepcopy(likelihood).eval().requires_grad_(False)
    model.requires_grad_(False)
    model.encoder.requires_grad_(True)
    optimizer = optimizers.build(config.train, [*model.encoder.parameters()])
    rng = generator(config.seed, "encoder")
    batches = training_images(data, config.train.batch_size, config.seed)
    for step, images in zip(range(1, steps + 1), batches, strict=False):
        noise = torch.randn(len(images), model.latent_dim, generator=rng).to(images.device)
        with autocast(config, images.device):
            posterior, raw = model(images, noise)
        loss = likelihood(images, raw).loss + weight * posterior.kl().sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        if config.train.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(optimizer.parameters, config.train.max_grad_norm)
        optimizer.step(learning_rate(config.train, step))
        progress(step)
    return model.eval().requires_grad_(False)
