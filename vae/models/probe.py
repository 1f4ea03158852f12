"""Tries a user's own networks and likelihood on two images before they are trained: shapes, numbers, gradients; and
whether images have a likelihood at all."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vae.config.errors import InputError
from vae.data import scale
from vae.data.split import Data
from vae.models.likelihood import Likelihood
from vae.models.linear_path import own_networks
from vae.models.vae import VAE
from vae.runtime.custom import one_line_for


def check_networks(model: VAE, images: Tensor) -> None:
    """Raises InputError, in one line that names the part, where the encoder does not map images (B, C, H, W) to mu and
    raw log sigma (B, d) each, the decoder does not map codes (B, d) to (B, C, H, W), or one of them has nothing to
    learn."""
    with _untouched(model):
        _check_networks(model, images)


def _check_networks(model: VAE, images: Tensor) -> None:
    wanted = (len(images), model.latent_dim)
    codes = torch.zeros(wanted, device=images.device)
    encoder, decoder = own_networks(model.encoder, model.decoder)
    raw_shape = (len(images), model.outputs * images.shape[1], *images.shape[2:])
    with one_line_for("model.encoder", f"fails on images of shape {tuple(images.shape)}"):
        given = encoder(images)
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(part, Tensor) for part in given):
        raise InputError(
            f"model.encoder: gave {_kind(given)}; must give two tensors, mu and raw log sigma, of {wanted}"
        )
    for name, part in zip(("mu", "raw log sigma"), given, strict=True):
        if tuple(part.shape) != wanted:
            raise InputError(
                f"model.encoder: {name} has shape {tuple(part.shape)} for images of {tuple(images.shape)}; must be "
                f"{wanted}, one row an image and model.latent_dim columns"
            )
    with one_line_for("model.decoder", f"fails on codes of shape {wanted}"):
        output = decoder(codes)
    if not isinstance(output, Tensor) or output.shape != raw_shape:
        what = "the images' shape" if model.outputs == 1 else f"{model.outputs} numbers for each channel of a pixel, in"
        raise InputError(f"model.decoder: gave {_kind(output)} for codes of {wanted}; must be of {what} {raw_shape}")
    if not all(bool(part.isfinite().all()) for part in (*given, output)):
        raise InputError("model.encoder, model.decoder: gave numbers that are not finite for the first images")
    for part, network, example in (("encoder", encoder, images), ("decoder", decoder, codes)):
        with one_line_for(f"model.{part}", f"fails in training mode on shape {tuple(example.shape)}"):
            network.train()(example)
        network.eval()
    # Each alone: what the decoder cuts off is not the encoder's fault.
    mu, log_sigma = encoder(images)
    _check_gradient((mu + log_sigma).square().sum(), "model.encoder", encoder)
    codes = (mu + log_sigma).detach().requires_grad_()
    _check_gradient(decoder(codes).square().sum(), "model.decoder", decoder)
    if torch.autograd.grad(decoder(codes).square().sum(), codes, allow_unused=True)[0] is None:
        raise InputError("model.decoder: the code gets no gradient from its output; is the code detached in it?")


def check_images(likelihood: Likelihood, data: Data, what: str) -> None:
    """Raises InputError, which names `what`, where a sample of the images has no likelihood."""
    for split in (data.train, data.test):
        reason = likelihood.refuses(scale.sample(split).batch(slice(None)))
        if reason is not None:
            raise InputError(f"{what}: {reason}")


def check_likelihood(likelihood: Likelihood, images: Tensor) -> None:
    """Raises InputError where -log p(x|z) is not one finite number an image (B,), or where the decoder's output gets no
    gradient from the loss."""
    with _untouched(likelihood):
        _check_likelihood(likelihood, images)


def _check_likelihood(likelihood: Likelihood, images: Tensor) -> None:
    batch, channels, *sides = images.shape
    raw = torch.full((batch, likelihood.outputs * channels, *sides), 0.1, device=images.device, requires_grad=True)
    with one_line_for("objective.likelihood", f"fails on images of shape {tuple(images.shape)}"):
        nll, found = likelihood.nll(images, raw), likelihood(images, raw)
        loss, error = found.loss, found.squared_error
    if not isinstance(nll, Tensor) or nll.shape != (len(images),):
        raise InputError(
            f"objective.likelihood: nll gave {_kind(nll)} for {len(images)} images; must be one number an image, "
            "summed over pixels"
        )
    if not all(isinstance(value, Tensor) for value in (loss, error)) or error.shape != (len(images),):
        raise InputError(
            f"objective.likelihood: forward gave loss {_kind(loss)} and squared_error {_kind(error)}; must be one "
            "number, and one number an image"
        )
    if loss.shape != () or not bool(nll.isfinite().all() and loss.isfinite()):
        raise InputError(f"objective.likelihood: the loss is {loss.tolist()}; must be one finite number")
    gradient = torch.autograd.grad(loss, raw, allow_unused=True)[0] if loss.requires_grad else None
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        raise InputError("objective.likelihood: the decoder's output gets no gradient from the loss; is it detached?")


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """In eval mode inside; mode and state are as before afterwards."""
    training = module.training
    state = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    try:
        yield
    finally:
        module.load_state_dict(state)
        module.train(training)


def _check_gradient(loss: Tensor, name: str, network: nn.Module) -> None:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True) if parameters and loss.requires_grad else ()
    if all(gradient is None for gradient in gradients):
        raise InputError(f"{name}: none of its parameters gets a gradient; is its output detached, or are they frozen?")


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
