"""What looks like a mistake in how a model from elsewhere was handed over, though nothing fails: the second half of
q(z|x) read as another quantity than it is, or images on another scale than those it was trained on.

Of a trained model the loss knows: with sigma read rightly it is (nearly) as low as it can be."""

import torch
from torch import Tensor

from vae.measure.diagnostics import paired
from vae.measure.written import number
from vae.models.foreign import READINGS, ForeignModel
from vae.models.likelihood import Bernoulli, Likelihood
from vae.models.posteriors import Posterior
from vae.runtime.rng import generator

CLEAR = 0.5  # nats, times the KL weight, by which another reading's loss must be lower to be named
DRAWS = 4
BETTER = 0.25  # of the variance, by which another reading of what decode gives must explain more to be named
FAR_OFF = -1  # of the variance, explained: means that are so far from the images are on no scale of theirs
OUTSIDE = 0.1  # of the range of what decode gives, beyond which pixels lie off it; and of all pixels, so many that do
NOTHING = 0.1  # of the variance: where no reading explains as much, nothing was learnt that could tell
TWICE = (0.5, 0.7311)  # sigmoid(0) and sigmoid(1): what a sigmoid gives of what a sigmoid gave
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
def of_scale(model: ForeignModel, likelihood: Likelihood, images: Tensor, gives: str | None = None) -> str | None:
    """A sentence where logits lie in [0, 1], or reconstructions explain `images` (B, C, H, W) much better once they are
    put through a sigmoid, through its inverse, or onto another scale (a x + b): those are what a forgotten or doubled
    last layer, and another normalisation, do. None for a decoder that is right, or has learnt nothing. `gives`:
    "logits" where the model itself says that it gives them."""
    raw = model.raw(model.encode(images).mu)
    least, most = float(raw.min()), float(raw.max())
    are_logits = isinstance(likelihood, Bernoulli) and not model.layout.probabilities and gives is None
    if are_logits and least >= 0 and most <= 1:
        return (
            f"decode's logits go from {least:.3g} to {most:.3g}, none outside [0, 1], as probabilities do: are they "
            "those, decoder_gives=mean?"
        )
    means = model.link(raw).double()
    truth = images.double()
    found = {"": _explained(truth, means)}
    low, high = float(means.min()), float(means.max())
    if not isinstance(likelihood, Bernoulli) and (low < 0 or high > 1):
        found["logits"] = _explained(truth, means.sigmoid())
    if low >= TWICE[0] - 1e-3 and high <= TWICE[1] + 1e-3:
        found["twice"] = _explained(truth, torch.logit(means).clamp(0, 1))
    centre, other = means.mean(), truth.mean()
    slope = ((means - centre) * (truth - other)).sum() / (means - centre).square().sum().clamp(min=1e-300)
    shift = other - slope * centre
    found["scale"] = _explained(truth, slope * means + shift)
    best = max(found, key=lambda name: found[name])
    dark, bright = float(truth.min()), float(truth.max())
    given, gives = (f"from {number(least)} to {number(most)}" for least, most in ((dark, bright), (low, high)))
    ranges = f"the images have values {given}, what decode gives {gives}"
    if found[best] < max(NOTHING, found[""] + BETTER):
        if found[""] < FAR_OFF < found.get("logits", FAR_OFF):
            return (
                f"decode gives values from {number(low)} to {number(high)}, far from the images; put through a sigmoid "
                "they are near: is a sigmoid missing in decode?"
            )
        margin = OUTSIDE * (high - low)
        beyond = float(((truth < low - margin) | (truth > high + margin)).double().mean())
        differ = float(
            (means - means.mean(0)).square().sum() / (truth - truth.mean(0)).square().sum().clamp(min=1e-300)
        )
        if found[""] < FAR_OFF and beyond > OUTSIDE and differ > NOTHING:
            return f"{ranges}, far from {beyond:.0%} of their pixels: were they normalised otherwise in training?"
        return None
    if best == "twice":
        return f"{ranges}, as a sigmoid of a sigmoid does: does decode apply it twice?"
    if best == "logits":
        return (
            f"{ranges}, and as logits they explain {found[best]:.0%} of the variance: is a sigmoid missing in decode?"
        )
    return (
        f"{ranges}: were they normalised otherwise when the model was trained? As it is that explains {found['']:.0%} "
        f"of the variance; times {float(slope):.3g} and {float(shift):+.3g} it would explain {found[best]:.0%}"
    )


def _explained(images: Tensor, means: Tensor) -> float:
    """The fraction of the variance of `images` around their mean image that `means` explain."""
    around = (images - images.mean(0)).square().sum()
    return float(1 - (images - means).square().sum() / around.clamp(min=1e-300))
