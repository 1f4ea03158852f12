"""What the closed form says of a run before its first step, and how to say it.

For a Gaussian likelihood it is the optimum of the linear VAE. For another exponential family with natural parameter
eta and log-partition A it is where the collapsed state (every code decodes to the mean image m) becomes stable:
expanded around it to second order the loss is that of a linear VAE with sigma^2 = 1 on data whitened by A''(eta(m)).
So a dimension is kept where an eigenvalue of Lambda^-1/2 S Lambda^-1/2, Lambda = diag(A''), lies above the KL weight.
Near that weight its KL is right, far below it is a rough one."""

from collections.abc import Callable

from torch import Tensor

from vae.data.split import Split
from vae.measure import spectrum as spectra
from vae.measure.catalogue import Prediction, wider
from vae.measure.spectrum import LinearOptimum, Spectrum, linear_optimum
from vae.measure.written import number
from vae.models.likelihood import Likelihood, OptimalGaussian


def predict(spectrum: Spectrum, likelihood: Likelihood, latent_dim: int, weight: float) -> LinearOptimum | None:
    """What a linear VAE would keep of these data at the KL weight at which the schedule ends. None where the theory
    does not apply: no KL term, or no Gaussian pixel variance."""
    sigma2 = likelihood.sigma2()
    if weight == 0 or sigma2 is None:
        return None
    if isinstance(likelihood, OptimalGaussian):
        return linear_optimum(spectrum, latent_dim, weight, None, likelihood.floor)
    return linear_optimum(spectrum, latent_dim, weight, float(sigma2))


def whitened(
    split: Split,
    spectrum: Spectrum,
    likelihood: Likelihood,
    count: int,
    measured: Callable[[Split, int, Tensor], Spectrum] = spectra.measure,
) -> Spectrum | None:
    """The spectrum of the data whitened by the likelihood's curvature at the mean image; None where it has none."""
    scale = whitening(likelihood, spectrum)
    return None if scale is None else measured(split, count, scale)


def whitening(likelihood: Likelihood, spectrum: Spectrum) -> Tensor | None:
    """What each pixel is multiplied by, (n,): 1 / sqrt(curvature at the mean image)."""
    curvature = likelihood.curvature(spectrum.mean)
    return None if curvature is None else (curvature > 0) / curvature.clamp(min=1e-300).sqrt()


def measures(
    spectrum: Spectrum, white: Spectrum | None, likelihood: Likelihood, latent_dim: int, weight: float
) -> Prediction:
    """The closed form as measures of the catalogue, at this KL weight."""
    optimum = predict(spectrum, likelihood, latent_dim, weight)
    more = predict(spectrum, likelihood, wider(latent_dim), weight)
    if optimum is not None and more is not None:
        return Prediction(
            effective_t=optimum.t,
            largest_eigenvalue=spectrum.largest,
            predicted_active_units=optimum.kept,
            predicted_mse=optimum.sse / spectrum.pixels,
            predicted_kld=optimum.kld,
            predicted_gain=optimum.gain,
            predicted_gain_wider=more.gain,
            predicted_collapse_weight=optimum.collapse_weight,
        )
    if white is None or weight == 0:
        return Prediction(likelihood.effective_t(weight), spectrum.largest)
    ratios = white.eigenvalues[white.eigenvalues > weight] / weight
    kept = ratios[:latent_dim]
    return Prediction(
        effective_t=likelihood.effective_t(weight),
        largest_eigenvalue=spectrum.largest,
        predicted_active_units=len(kept),
        predicted_mse=None,
        predicted_kld=0.5 * float(kept.log().sum()),
        predicted_gain=_second_order_gain(kept, weight),
        predicted_gain_wider=_second_order_gain(ratios[: wider(latent_dim)], weight),
        predicted_collapse_weight=white.largest,
    )


def _second_order_gain(ratios: Tensor, weight: float) -> float:
    """What the loss gains over a constant image, from the eigenvalues of the whitened data over the KL weight."""
    return 0.5 * weight * float((ratios - 1 - ratios.log()).sum())


def sentence(
    found: Prediction, optimum: LinearOptimum | None, objective: str, latent_dim: int, weight: float, rises: bool
) -> str:
    """One line for the terminal, on the KL weight at which the schedule ends. `rises`: it changes over the run."""
    if weight == 0:
        return "Prediction: no KL term, so nothing pulls the code towards collapse."
    kept, kld, edge = found.predicted_active_units, found.predicted_kld, found.predicted_collapse_weight
    if kept is None or kld is None or edge is None:
        return (
            "Prediction: none. The closed form needs a likelihood with a known curvature, and "
            f"objective={objective} has none."
        )
    if optimum is None:
        scale = f"to second order around the collapsed state, at KL weight {weight:g}"
    else:
        scale = f"t = KL weight * sigma^2 = {optimum.t:.4g}, largest eigenvalue {found.largest_eigenvalue:.4g}"
    if optimum is not None and not optimum.is_interior:
        return (
            f"Prediction: {latent_dim} dimensions hold these data to within less than rounding to 256 grey levels, so "
            "there is no interior optimum: the fitted variance goes to its floor, sigma^2 = "
            f"{optimum.sigma2:.3g}, and {kept} dimensions are kept."
        )
    if kept:
        who = "a code of " if optimum is None else "a linear VAE would keep "
        return (
            f"Prediction: a code pays, so nothing but the training can make it collapse: {who}{kept} of {latent_dim} "
            f"dimensions with {number(kld)} nats; from KL weight {edge:.4g} on the collapsed state is stable. ({scale})"
        )
    postponed = f" Annealing reaches that at about KL weight {edge:.3g}." if rises else ""
    given = optimum is not None and not optimum.is_fitted
    smaller = f", or a pixel variance below {found.largest_eigenvalue / weight:.3g}" if given else ""
    return (
        "Warning: expect a collapse, which the objective asks for. The collapsed state is stable: no small step away "
        f"from it pays.{postponed} A code that grows from nothing needs a KL weight below {edge:.3g}{smaller}. "
        f"({scale})"
    )
