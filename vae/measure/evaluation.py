"""Measuring a model on a whole split: `evaluate` at every evaluation of a run, `examine` what is costly at its end.

The noise is the same at every evaluation of a run, so that curves move because the model did."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vae.config import schema
from vae.data.split import Data, Split
from vae.measure import diagnostics
from vae.measure.catalogue import FinalMeasures, SplitMeasures
from vae.models.likelihood import Likelihood
from vae.models.posteriors import Posterior
from vae.models.vae import VAE
from vae.runtime import parallel
from vae.runtime.rng import generator

Rows = TypeVar("Rows", slice, Tensor)

PROBE_TRAIN_IMAGES = 10_000  # the linear probe is fitted on at most so many


@dataclass(frozen=True)
class Evaluation:
    """The measures of a split, and what they were made of."""

    measures: SplitMeasures
    posterior: Posterior  # of every image, (N, d)
    z: Tensor  # (N, d), one draw for each image
    kl: Tensor  # (d,), mean over the images
    mu_variance: Tensor  # (d,)


@dataclass(frozen=True)
class Examination:
    """The costly measures, and those of each latent dimension."""

    measures: FinalMeasures
    dimension_gaps: Tensor  # (d,)
    sensitivities: Tensor  # (d,)


@torch.no_grad()
def encode_split(model: VAE, split: Split, batch_size: int, divided: bool = False) -> Posterior:
    """The posterior of every image: mu and log_sigma (N, d). `divided`: each process of the run encodes a fraction."""
    slices = _slices(len(split), batch_size)
    return Posterior(*_over(slices, lambda rows: model.encode(split.batch(rows)), divided))


@torch.no_grad()
def evaluate(
    model: VAE,
    likelihood: Likelihood,
    split: Split,
    settings: schema.Evaluation,
    seed: int,
    thorough: bool = True,
) -> Evaluation:
    """Measure the whole split. `thorough=False` estimates the reconstruction gaps from `probe_images` images, and the
    information measures from `marginal_samples` draws; the aggregate posterior is always made of all images. The
    processes of a run divide the work, and each has the whole result."""
    was_training = model.training, likelihood.training
    model.eval(), likelihood.eval()
    posterior = encode_split(model, split, settings.batch_size, divided=True)
    total = len(split)
    rng = generator(seed, "evaluation")

    def normal() -> Tensor:
        return torch.randn(posterior.mu.shape, generator=rng).to(posterior.mu.device)

    z, from_prior = posterior.sample(normal()), normal()
    order = torch.randperm(total, generator=rng).to(z.device)
    shuffled = torch.empty_like(z)
    shuffled[order] = z[order.roll(1)]  # each image gets another one's code

    def reconstruct(rows: slice) -> tuple[Tensor, ...]:
        images, raw = split.batch(rows), model.raw(z[rows])
        of_mu = likelihood.squared_error(images, model.raw(posterior.mu[rows]))
        return likelihood.nll(images, raw), likelihood.squared_error(images, raw), of_mu

    def with_other_codes(rows: Tensor) -> tuple[Tensor, ...]:
        images = split.batch(rows)
        return tuple(likelihood.squared_error(images, model.raw(codes[rows])) for codes in (from_prior, shuffled))

    nll, *measured = _over(_slices(total, settings.batch_size), reconstruct, divided=True)
    probed = order if thorough else order[: settings.probe_images]
    measured += _over(probed.split(settings.batch_size), with_other_codes, divided=True)
    model.train(was_training[0]), likelihood.train(was_training[1])

    # Summed on the CPU in double precision: float32 sums over many images lose digits.
    sampled, of_mu, of_prior, of_shuffled = (errors.cpu().double() for errors in measured)
    gap = diagnostics.reconstruction_gap(sampled[probed.cpu()], of_prior, of_shuffled)
    mean_sse, kl = float(sampled.mean()), posterior.kl()
    kld = float(kl.cpu().double().sum(1).mean())
    index = order if thorough else order[: settings.marginal_samples]
    aggregate = diagnostics.aggregate_posterior(posterior, z[index], index)
    variance = diagnostics.mu_variance(posterior)
    active = (variance > settings.thresholds.active_variance).cpu()
    active = active if active.any() else ~active
    mu, sigma = posterior.mu.cpu().double(), posterior.log_sigma.exp().cpu().double()
    measures = SplitMeasures(
        mse=mean_sse / likelihood.pixels,
        mse_mu=float(of_mu.mean()) / likelihood.pixels,
        sse=mean_sse,
        kld=kld,
        elbo=-float(nll.cpu().double().mean()) - kld,
        mu_min=float(mu.min()),
        mu_mean=float(mu.mean()),
        mu_max=float(mu.max()),
        sigma_min=float(sigma.min()),
        sigma_mean=float(sigma.mean()),
        sigma_max=float(sigma.max()),
        active_units=diagnostics.active_units(posterior, settings.thresholds.active_variance),
        active_sigma=float(sigma[:, active].mean()),
        active_spread=float((mu.square() + sigma.square())[:, active].mean()),
        mutual_information=aggregate.mutual_information,
        mutual_information_ceiling=math.log(total),
        marginal_kl=aggregate.marginal_kl,
        reconstruction_gap=gap.shuffled,
        reconstruction_gap_prior=gap.prior,
        **collapsed_fractions(kl),
    )
    return Evaluation(measures, posterior, z, kl.double().mean(0), variance)


def collapsed_fractions(kl: Tensor) -> dict[str, float]:
    """(epsilon, 0.01)-collapse over a range of epsilon, from KL (N, d)."""
    fractions = diagnostics.collapsed_fraction(kl, torch.tensor([0.001, 0.01, 0.1], device=kl.device)).tolist()
    return {
        f"collapsed_fraction_{digits}": fraction for digits, fraction in zip(("001", "01", "1"), fractions, strict=True)
    }


def examine(
    model: VAE, likelihood: Likelihood, data: Data, evaluation: Evaluation, settings: schema.Evaluation, seed: int
) -> Examination:
    """The costly measures of an evaluated model, those that decode many codes on `probe_images` images of the test
    split, chosen at random."""
    model.eval(), likelihood.eval()
    posterior, z = evaluation.posterior, evaluation.z
    rng = generator(seed, "examination")
    order = torch.randperm(len(data.test), generator=rng).to(z.device)
    codes = order[: settings.marginal_samples]
    some = order[: settings.probe_images]
    images = data.test.batch(some)
    noise = torch.randn(len(some), z.shape[1], generator=rng).to(z.device)
    with torch.no_grad():
        gaps = diagnostics.dimension_gaps(model.decode, images, z[some], noise)
        sensitivities = diagnostics.decoder_sensitivity(model.decode, posterior.mu[some])
        iwae = elbo = None
        if likelihood.is_density and not model.is_dirac:
            chosen = Posterior(posterior.mu[some], posterior.log_sigma[some])

            def nll(codes: Tensor) -> Tensor:
                return likelihood.nll(images, model.raw(codes))

            iwae = float(diagnostics.iwae_bound(nll, chosen, settings.iw_samples, rng).mean())
            elbo = -float((nll(z[some]).double() + chosen.kl().double().sum(1)).mean())
    measures = FinalMeasures(
        total_correlation=diagnostics.total_correlation(posterior, z[codes]),
        probe_accuracy=_probe(model, data, posterior, settings, rng),
        iwae_bound=iwae,
        iwae_elbo=elbo,
        used_dimensions=int((gaps > settings.thresholds.used_gap * evaluation.measures.sse).sum()),
        decoder_sensitivity=float(sensitivities.mean()),
    )
    return Examination(measures, gaps, sensitivities)


def _probe(
    model: VAE, data: Data, posterior: Posterior, settings: schema.Evaluation, rng: torch.Generator
) -> float | None:
    labels = data.train.labels, data.test.labels
    if labels[0] is None or labels[1] is None or len(labels[0].unique()) < 2:
        return None
    chosen = torch.randperm(len(data.train), generator=rng)[:PROBE_TRAIN_IMAGES]
    train = data.train.take(chosen)
    assert train.labels is not None
    mu = encode_split(model, train, settings.batch_size).mu
    return diagnostics.probe_accuracy(mu, train.labels, posterior.mu, labels[1])


def _slices(total: int, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, total, batch_size)]


def _over(parts: Sequence[Rows], measure: Callable[[Rows], Sequence[Tensor]], divided: bool) -> Sequence[Tensor]:
    """What `measure` gives for each part of the rows, put together. `divided`: by all processes together."""
    found = [measure(rows) for rows in (parallel.own_items(parts) if divided else parts)]
    if divided:
        found = parallel.gathered(found)
    return [torch.cat(column) for column in zip(*found, strict=True)]
