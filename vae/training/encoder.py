"""The encoder of a trained model, trained on while its decoder stays as it is."""

import copy
from collections.abc import Callable

import torch

from vae.config.schema import RunConfig
from vae.data.binarize import training_images
from vae.data.split import Data
from vae.measure.subject import Subject
from vae.models.likelihood import Likelihood, OptimalGaussian
from vae.models.vae import VAE
from vae.runtime.rng import generator
from vae.training import optimizer as optimizers
from vae.training.cure import Cure
from vae.training.loop import update
from vae.training.optimizer import learning_rate
from vae.training.setup import Learner


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
    if isinstance(likelihood, OptimalGaussian):  # what stays is its variance too, not that of each batch
        likelihood = likelihood.fitted_to(float(likelihood.sigma2()))
    likelihood = copy.deepcopy(likelihood).eval().requires_grad_(False)
    model.requires_grad_(False)
    model.encoder.requires_grad_(True)
    optimizer = optimizers.build(config.train, [*model.encoder.parameters()])
    device = next(model.parameters()).device
    learner = Learner(Subject(config, model, likelihood, data), model, optimizer, Cure(), device)
    rng = generator(config.seed, "encoder")
    batches = training_images(data, config.train.batch_size, config.seed)
    for step, images in zip(range(1, steps + 1), batches, strict=False):
        noise = torch.randn(len(images), model.latent_dim, generator=rng).to(images.device)
        update(learner, step, images, noise, weight, learning_rate(config.train, step))
        progress(step)
    return model.eval().requires_grad_(False)
