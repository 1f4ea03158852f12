"""Measuring a model on a whole split: `evaluate` at every evaluation of a run, `examine` what is costly at its end.

The noise is the same at every evaluation of a run, so that curves move because the model did."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from vae.config import schema
from vae.data.split import Data, Split
from vae.measure import diagnostics, linear_probe
from vae.measure.catalogue import FinalMeasures, SplitMeasures
from vae.measure.spectrum import ROUNDING, Spectrum
from vae.models.latent import LatentModel, in_eval_mode
from vae.models.likelihood import Likelihood
from vae.models.posteriors import Posterior
from vae.runtime import parallel
from vae.runtime.rng import generator

Rows = TypeVar("Rows", slice, Tensor)

MAX_TRAIN_IMAGES = 10_000  # that are measured beside the test images
MAX_PIXELS, MIN_IMAGES = 2**26, 32  # decoded for single dimensions: of large images or wide codes fewer images
MAX_SINGLE = 512  # latent dimensions up to which each is measured by itself: that decodes the probe images for each
FEWER = 4  # times fewer images and draws for what no verdict rests on, while a run trains
STAGES = 6  # of an examination


@dataclass(frozen=True)
class Evaluation:
    """The measures of a split, and what they were made of."""

    measures: SplitMeasures
    posterior: Posterior  # of every image, (N, d)
    z: Tensor  # (N, d), one draw for each image
    nll: Tensor  # (N,), float64: -log p(x|z) of each image with that draw
    kl: Tensor  # (d,), mean over the images
    mu_variance: Tensor  # (d,)
    errors: Mapping[str, float]  # standard errors over the images, by the measure's name


@dataclass(frozen=True)
class Examination:
    """The costly measures, and those of each latent dimension."""

    measures: FinalMeasures
    dimension_gaps: Tensor | None  # (d,), nats; None: there are more than MAX_SINGLE
    sensitivities: Tensor | None  # (d,)
    notes: tuple[str, ...]  # why a measure is None
    errors: Mapping[str, float]  # standard errors over the images, by the measure's name


@torch.no_grad()
def encode_split(model: LatentModel, split: Split, batch_size: int, divided: bool = False) -> Posterior:
    """The posterior of every image: mu and log_sigma (N, d). `divided`: each process of the run encodes a fraction."""
    slices = _slices(len(split), batch_size)
    return Posterior(*_over(slices, lambda rows: model.encode(split.batch(rows)), split.device if divided else None))


@torch.no_grad()
def evaluate(
    model: LatentModel,
    likelihood: Likelihood,
    split: Split,
    settings: schema.Evaluation,
    seed: int,
    thorough: bool = True,
) -> Evaluation:
    """Measure the whole split. `thorough=False` estimates what is lost with another image's code from `probe_images`
    images, with one from the prior and with z = mu from fewer, and the information measures from a part of
    `marginal_samples` draws; the aggregate posterior is always made of all images. The processes of a run divide the
    work, and each has the whole result."""
    with in_eval_mode(model, likelihood):
        posterior = encode_split(model, split, settings.batch_size, divided=True)
    total = len(split)
    rng = generator(seed, "evaluation")

    def normal() -> Tensor:
        return torch.randn(posterior.mu.shape, generator=rng).to(posterior.mu.device)

    z, from_prior = posterior.sample(normal()), normal()
    order = torch.randperm(total, generator=rng).to(z.device)
    shuffled = torch.empty_like(z)
    shuffled[order] = z[order.roll(1)]  # each image gets another one's code

    def with_codes(codes: Tensor, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        images = split.batch(rows)
        raw = model.raw(codes[rows], images)
        return likelihood.nll(images, raw), likelihood.squared_error(images, raw)

    def measured(codes: Tensor, parts: Sequence[Rows]) -> Sequence[Tensor]:
        """-log p and squared errors, (N,) each."""
        return _over(parts, partial(with_codes, codes), split.device)

    probed = order if thorough else order[: settings.probe_images]
    few = order if thorough else order[: max(2, settings.probe_images // FEWER)]
    everywhere = _slices(total, settings.batch_size)
    with in_eval_mode(model, likelihood):
        nll, sse = measured(z, everywhere)
        nll_shuffled, sse_shuffled = measured(shuffled, probed.split(settings.batch_size))
        _, sse_prior = measured(from_prior, few.split(settings.batch_size))
        if thorough:
            _, sse_mu = measured(posterior.mu, everywhere)
        else:
            _, sse_mu = measured(posterior.mu, few.split(settings.batch_size))

    # Summed on the CPU in double precision: float32 sums over many images lose digits.
    sampled, of_mu, of_prior, of_shuffled = (errors.cpu().double() for errors in (sse, sse_mu, sse_prior, sse_shuffled))
    lost = [of_shuffled - sampled[probed.cpu()], of_prior - sampled[few.cpu()]]
    gap = diagnostics.reconstruction_gap(sampled[probed.cpu()], of_shuffled)
    gap_prior = diagnostics.reconstruction_gap(sampled[few.cpu()], of_prior)
    swap = diagnostics.swap_gap(nll[probed], nll_shuffled)
    mean_sse, kl = float(sampled.mean()), posterior.kl()
    if thorough:
        mean_mu, error_mu = float(of_mu.mean()), _error(of_mu)
    else:  # of a few images: their own mean, or what they gain on that of all, whichever is known better
        gained = diagnostics.paired(of_mu - sampled[few.cpu()])
        by_gain = math.hypot(_error(sampled), gained.error), mean_sse + gained.mean
        error_mu, mean_mu = min(by_gain, (_error(of_mu), float(of_mu.mean())))
    kld = float(kl.cpu().double().sum(1).mean())
    index = order if thorough else order[: max(2, settings.marginal_samples // FEWER)]
    aggregate = diagnostics.aggregate_posterior(posterior, z[index], index)
    variance = diagnostics.mu_variance(posterior)
    active = (variance > settings.thresholds.active_variance).cpu()
    active = active if active.any() else ~active
    in_doubt = aggregate.mutual_information > math.log(total) - diagnostics.CEILING_MARGIN
    mu, sigma = posterior.mu.cpu().double(), posterior.log_sigma.exp().cpu().double()
    of_each = nll.cpu().double()
    loss = of_each + kl.cpu().double().sum(1)
    measures = SplitMeasures(
        test_images=total,
        mse=mean_sse / likelihood.pixels,
        mse_error=float(sampled.std() / math.sqrt(total)) / likelihood.pixels,
        mse_mu=mean_mu / likelihood.pixels,
        sse=mean_sse,
        kld=kld,
        elbo=-float(of_each.mean()) - kld,
        elbo_error=float(loss.std() / math.sqrt(total)),
        mu_min=float(mu.min()),
        mu_mean=float(mu.mean()),
        mu_max=float(mu.max()),
        sigma_min=float(sigma.min()),
        sigma_mean=float(sigma.mean()),
        sigma_max=float(sigma.max()),
        active_units=diagnostics.active_units(posterior, settings.thresholds.active_variance),
        active_sigma=float(sigma[:, active].mean()),
        active_spread=float((mu.square() + sigma.square())[:, active].mean()),
        sigma_ratio=diagnostics.sigma_ratio(posterior, active),
        mutual_information=aggregate.mutual_information,
        mutual_information_ceiling=math.log(total),
        marginal_kl=None if in_doubt else aggregate.marginal_kl,
        swap_gap=swap.mean,
        swap_gap_error=swap.error,
        swap_gap_p=diagnostics.sign_test(nll_shuffled - nll[probed]),
        explained_variance=1 - mean_sse / split.total_variance if split.total_variance else 0.0,
        reconstruction_gap=gap,
        reconstruction_gap_prior=gap_prior,
        **collapsed_fractions(kl),
    )
    errors = {
        "mse": _error(sampled) / likelihood.pixels,
        "mse_mu": error_mu / likelihood.pixels,
        "sse": _error(sampled),
        "kld": _error(kl.cpu().double().sum(1)),
        "elbo": _error(loss),
        "mutual_information": aggregate.mutual_information_error,
        "marginal_kl": aggregate.marginal_kl_error,
        "swap_gap": swap.error,
        "explained_variance": _error(sampled) / split.total_variance if split.total_variance else 0.0,
        "reconstruction_gap": _error(lost[0]),
        "reconstruction_gap_prior": _error(lost[1]),
    }
    return Evaluation(measures, posterior, z, of_each, kl.double().mean(0), variance, errors)


def _error(values: Tensor) -> float:
    """Standard error of the mean of values (N,)."""
    return diagnostics.paired(values).error


def collapsed_fractions(kl: Tensor) -> dict[str, float]:
    """(epsilon, 0.01)-collapse over a range of epsilon, from KL (N, d)."""
    fractions = diagnostics.collapsed_fraction(kl, torch.tensor([0.001, 0.01, 0.1], device=kl.device)).tolist()
    return {
        f"collapsed_fraction_{digits}": fraction for digits, fraction in zip(("001", "01", "1"), fractions, strict=True)
    }


def examine(
    model: LatentModel,
    likelihood: Likelihood,
    data: Data,
    spectrum: Spectrum,
    evaluation: Evaluation,
    settings: schema.Evaluation,
    weight: float,
    seed: int,
    by_dimension: bool = True,
    stage: Callable[[str], None] = lambda name: None,
) -> Examination:
    """The costly measures of an evaluated model, those that decode many codes on `probe_images` images of the test
    split, chosen at random. `spectrum`: of the training split; `weight`: the highest KL weight of the run;
    `by_dimension`: each latent dimension by itself as well; `stage`: told what is measured next, STAGES times at
    most."""
    model.eval(), likelihood.eval()
    posterior, z, found = evaluation.posterior, evaluation.z, evaluation.measures
    rng = generator(seed, "examination")
    order = torch.randperm(len(data.test), generator=rng).to(z.device)
    codes = order[: settings.marginal_samples]
    some = order[: settings.probe_images]
    images = data.test.batch(some)
    noise = torch.randn(len(some), z.shape[1], generator=rng).to(z.device)
    notes = []

    few = some[: max(MIN_IMAGES, MAX_PIXELS // (z.shape[1] * math.prod(model.shape)))]  # for each dimension anew

    def nll(codes: Tensor) -> Tensor:
        return likelihood.nll(images[: len(codes)], model.raw(codes, images[: len(codes)]))

    def mean_images(codes: Tensor) -> Tensor:
        return model.link(model.raw(codes, images[: len(codes)]))

    with torch.no_grad():
        gaps = sensitivities = None
        if not by_dimension:
            notes.append("used_dimensions and decoder_sensitivity: codes are maps, measured by channel and position")
        elif z.shape[1] > MAX_SINGLE:
            notes.append(f"used_dimensions and decoder_sensitivity: {z.shape[1]} dimensions; up to {MAX_SINGLE}")
        else:
            stage("single dimensions")
            gaps = diagnostics.dimension_gaps(nll, z[few], noise[: len(few)])
            stage("the decoder's sensitivity")
            sensitivities = diagnostics.decoder_sensitivity(mean_images, posterior.mu[few])
            if sensitivities is None:
                notes.append("decoder_sensitivity: the decoder cannot be differentiated twice")
        cut = diagnostics.paired((nll(torch.zeros_like(noise)) - nll(z[some])).double())
        importance = None
        if model.is_dirac:
            notes.append("iwae_bound: a point has no density")
        elif not likelihood.is_density_of(images):
            notes.append("iwae_bound: this likelihood is no density of these images, and elbo no bound on one")
        else:
            stage("the IWAE bound")
            chosen = Posterior(posterior.mu[some], posterior.log_sigma[some])
            importance = diagnostics.iwae_bound(nll, chosen, settings.iw_samples, rng)
    total_correlation = None
    if found.marginal_kl is None:
        at_most = max(0.0, found.kld - found.mutual_information)
        notes.append(
            f"marginal_kl and total_correlation: mutual_information is at its ceiling, log N = "
            f"{found.mutual_information_ceiling:.3g}; marginal_kl is at most {at_most:.3g} nats"
        )
    elif z.shape[1] > MAX_SINGLE:
        notes.append(f"total_correlation: up to {MAX_SINGLE} dimensions")
    else:
        stage("the total correlation")
        total_correlation = diagnostics.total_correlation(posterior, z[codes])
    stage("a linear probe")
    probe = _probe(model, data, z, settings, generator(seed, "probe"))
    if probe is None:
        notes.append("probe_accuracy: needs labels of at least two classes, and codes that are finite numbers")
    stage("training images")
    train = _training_measures(
        model, likelihood, data, spectrum, settings, weight, generator(seed, "training measures")
    )
    constant = constant_nll(likelihood, spectrum, data.test, settings.batch_size)
    gained = None if constant is None else constant - evaluation.nll - posterior.kl().cpu().double().sum(1)
    pca = pca_mse(spectrum, data.test, z.shape[1], settings.batch_size)
    if pca is None:
        notes.append(f"pca_mse: {spectrum.known} principal components are known, not {z.shape[1]}")
    measures = FinalMeasures(
        total_correlation=total_correlation,
        probe_accuracy=None if probe is None else probe.accuracy,
        probe_majority=None if probe is None else probe.majority,
        iwae_bound=None if importance is None else float(importance.bound.mean()),
        iwae_elbo=None if importance is None else float(importance.elbo.mean()),
        posterior_gap=None if importance is None else float((importance.bound - importance.elbo).mean()),
        cut_gap=cut.mean,
        cut_gap_error=cut.error,
        used_dimensions=None if gaps is None else int((gaps > settings.thresholds.used_nats * weight).sum()),
        pca_mse=pca,
        constant_elbo=None if constant is None else -float(constant.mean()),
        gain=train.gain,
        train_elbo=train.elbo,
        train_constant_elbo=train.constant_elbo,
        overfit_error=_error_of_both(gained, train.gained),
        train_mse=train.mse,
        decoder_sensitivity=None if sensitivities is None else float(sensitivities.mean()),
    )
    errors = {"cut_gap": cut.error}
    if importance is not None:
        errors["iwae_bound"] = _error(importance.bound)
        errors["iwae_elbo"] = _error(importance.elbo)
        errors["posterior_gap"] = _error(importance.bound - importance.elbo)
    if probe is not None:
        errors["probe_accuracy"] = math.sqrt(probe.accuracy * (1 - probe.accuracy) / probe.asked)
    return Examination(measures, gaps, sensitivities, tuple(notes), errors)


def pca_mse(spectrum: Spectrum, split: Split, count: int, batch_size: int) -> float | None:
    """Per pixel: the images' squared distance to the plane of the first `count` principal components; of a half of them
    to the plane of the other, where those trained on are not at hand. None where not so many are known, and those that
    are leave some of the variance of the training images."""
    if spectrum.of_halves:  # these images are those that the components are of
        count = min(count, spectrum.pixels)
        return spectrum.beyond(count) / spectrum.pixels if spectrum.known >= count else None
    known = spectrum.known
    if known < count and spectrum.beyond(known) > ROUNDING * spectrum.total:
        return None
    components = spectrum.components[:, :count].double()
    left = 0.0
    for rows in _slices(len(split), batch_size):
        centred = split.batch(rows).flatten(1).cpu().double() - spectrum.mean
        left += float(centred.square().sum() - (centred @ components).square().sum())
    return max(0.0, left) / (len(split) * spectrum.pixels)


@torch.no_grad()
def constant_nll(likelihood: Likelihood, spectrum: Spectrum, split: Split, batch_size: int) -> Tensor | None:
    """-log p(x) of each image (N,), float64, where every code decodes to the mean of the training images, with the
    variance, where it is fitted, that goes with it. None where the likelihood does not say how that mean is made."""
    raw = likelihood.raw_of(spectrum.mean)
    if raw is None:
        return None
    likelihood = likelihood.fitted_to(spectrum.total / spectrum.pixels).eval()
    raw = raw.float().reshape(1, *split.shape).to(split.device)
    found = []
    for rows in _slices(len(split), batch_size):
        images = split.batch(rows)
        found.append(likelihood.nll(images, raw.expand_as(images)).double().cpu())
    return torch.cat(found)


def constant_elbo(likelihood: Likelihood, spectrum: Spectrum, split: Split, batch_size: int) -> float | None:
    nll = constant_nll(likelihood, spectrum, split, batch_size)
    return None if nll is None else -float(nll.mean())


class _Training(NamedTuple):
    elbo: float
    constant_elbo: float | None
    mse: float
    gain: float | None  # at the run's KL weight
    gained: Tensor | None  # (N,), of each image, at KL weight 1


@torch.no_grad()
def _training_measures(
    model: LatentModel,
    likelihood: Likelihood,
    data: Data,
    spectrum: Spectrum,
    settings: schema.Evaluation,
    weight: float,
    rng: torch.Generator,
) -> _Training:
    """Of training images, as many as there are test images."""
    count = min(len(data.test), len(data.train), MAX_TRAIN_IMAGES)
    split = data.train.take(torch.randperm(len(data.train), generator=rng)[:count].sort().values)

    def measured(rows: slice) -> list[Tensor]:
        images = split.batch(rows)
        posterior = model.encode(images)
        drawn = posterior.sample(torch.randn(posterior.mu.shape, generator=rng).to(images.device))
        raw = model.raw(drawn, images)
        found = likelihood.nll(images, raw), posterior.kl().double().sum(1), likelihood.squared_error(images, raw)
        return [part.cpu().double() for part in found]

    nll, kl, sse = _over(_slices(count, settings.batch_size), measured, None)
    constant = constant_nll(likelihood, spectrum, split, settings.batch_size)
    paid = weight * kl if weight else torch.zeros_like(kl)
    return _Training(
        elbo=-float((nll + kl).mean()),
        constant_elbo=None if constant is None else -float(constant.mean()),
        mse=float(sse.mean()) / likelihood.pixels,
        gain=None if constant is None else float((constant - nll - paid).mean()),
        gained=None if constant is None else constant - nll - kl,
    )


def _error_of_both(*gained: Tensor | None) -> float | None:
    """Standard error of the difference of two means, of values (N,) each; None where they are not known, or infinite,
    as the KL of a point is."""
    errors = [_error(values) for values in gained if values is not None and bool(values.isfinite().all())]
    return math.hypot(*errors) if len(errors) == len(gained) else None


def _probe(
    model: LatentModel, data: Data, z: Tensor, settings: schema.Evaluation, rng: torch.Generator
) -> linear_probe.Probe | None:
    """A linear probe on draws of z; `z` (N, d) those of the test images."""
    labels = data.train.labels, data.test.labels
    if labels[0] is None or labels[1] is None:
        return None
    classes = linear_probe.most_frequent(labels[0])
    train = data.train.take(linear_probe.chosen(labels[0], classes, z.shape[1], rng))
    assert train.labels is not None
    posterior = encode_split(model, train, settings.batch_size)
    drawn = posterior.sample(torch.randn(posterior.mu.shape, generator=rng).to(z.device))
    if not drawn.isfinite().all():
        return None
    asked = torch.isin(labels[1], classes)
    return linear_probe.fit(drawn, train.labels, z[asked.to(z.device)], labels[1][asked])


def _slices(total: int, batch_size: int) -> list[slice]:
    return [slice(start, start + batch_size) for start in range(0, total, batch_size)]


def _over(
    parts: Sequence[Rows], measure: Callable[[Rows], Sequence[Tensor]], device: torch.device | None
) -> Sequence[Tensor]:
    """What `measure` gives for each part of the rows, put together. `device`: all processes together do it, each on a
    device of its own, and this one wants the whole there; None: this process alone."""
    if device is None or parallel.size() == 1:
        return [torch.cat(column) for column in zip(*map(measure, parts), strict=True)]
    own = [[column.cpu() for column in measure(rows)] for rows in parallel.own_items(parts)]
    return [torch.cat(column).to(device) for column in zip(*parallel.gathered(own), strict=True)]
