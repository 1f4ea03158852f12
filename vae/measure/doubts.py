"""What looks like a mistake in how a model from elsewhere was handed over, though nothing fails: the second half of
q(z|x) read as another quantity than it is, or images on another scale than those it was trained on.

Of a trained model the loss knows: with sigma read rightly it is (nearly) as low as it can be."""

import torch
from torch import Tensor

from vae.measure.diagnostics import paired
from vae.measure.verdict import number
from vae.models.foreign import READINGS, ForeignModel
from vae.models.likelihood import Likelihood
from vae.models.posteriors import Posterior
from vae.runtime.rng import generator

CLEAR = 0.5  # nats, times the KL weight, by which another reading's loss must be lower to be named
DRAWS = 4
SAID = {
    "log_sigma": "log sigma",
    "log_variance": "the log of the variance (log_variance=True)",
    "sigma": "sigma itself (hand over its log)",
    "variance": "the variance itself (hand over half its log)",
    "-log_sigma": "minus log sigma (hand over its negative)",
    "-log_variance": "the log of the precision (hand over minus half of it)",
}


@torch.no_grad()
def of_sigma(model: ForeignModel, likelihood: Likelihood, images: Tensor, weight: float, seed: int) -> str | None:
    """A sentence where the loss of `images` (B, C, H, W) at this KL weight is clearly lower with the encoder's second
    output read as another quantity; None where it is not, where the object itself names that output, or without a KL
    term, whose weight alone keeps sigma from 0."""
    first = model.encoded(images)
    value, reading = first.spread.value, first.spread.reading
    if value is None or first.spread.is_named or weight == 0:
        return None
    mu, value = (part.flatten(1).float().to(images.device) for part in (first.mu, value))
    own = _loss(model, likelihood, images, Posterior(mu, READINGS[reading](value)), weight, seed)
    best, gain = None, max(CLEAR, CLEAR * weight)
    for name, read in READINGS.items():
        if name == reading or (name in ("sigma", "variance") and not bool((value > 0).all())):
            continue
        found = paired(own - _loss(model, likelihood, images, Posterior(mu, read(value)), weight, seed))
        if found.mean > max(3 * found.error, gain):
            best, gain = name, found.mean
    if best is None:
        return None
    was = SAID[reading].partition(" (")[0]
    return (
        f"encode's second output was read as {was}; the loss is {number(gain)} nats lower when it is read as "
        f"{SAID[best]}. Is it that? Or was the model trained at another KL weight than {weight:g}, with another "
        "likelihood, or hardly at all?"
    )


def _loss(
    model: ForeignModel, likelihood: Likelihood, images: Tensor, posterior: Posterior, weight: float, seed: int
) -> Tensor:
    """Of each image (B,), float64, the mean over DRAWS draws of z; infinite where sigma overflows."""
    rng = generator(seed, "doubts")
    total = torch.zeros(len(images), dtype=torch.float64)
    for _ in range(DRAWS):
        z = posterior.sample(torch.randn(posterior.mu.shape, generator=rng).to(images.device))
        total += likelihood.nll(images, model.raw(z, images)).double().cpu() / DRAWS
    return (total + weight * posterior.kl().double().sum(1).cpu()).nan_to_num(nan=torch.inf)


@torch.no_grad()
def of_scale(model: ForeignModel, images: Tensor, explained_variance: float) -> str | None:
    """A sentence where reconstructions are worse than one image for all, and their values lie elsewhere than those of
    `images` (B, C, H, W)."""
    if explained_variance > -0.5:
        return None
    means = model.decode(model.encode(images).mu)
    ranges = [(float(values.min()), float(values.max())) for values in (images, means)]
    (low, high), (dark, bright) = ranges
    apart = max(abs(low - dark), abs(high - bright)) > 0.25 * (high - low)
    if not apart:
        return None
    return (
        f"the images have values from {low:.3g} to {high:.3g}, what decode gives from {dark:.3g} to {bright:.3g}: were "
        "they normalised otherwise when the model was trained?"
    )
