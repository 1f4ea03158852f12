"""What the closed form says of a run before its first step, and how to say it."""

from vae.measure.catalogue import Prediction
from vae.measure.spectrum import LinearOptimum, Spectrum, linear_optimum
from vae.models.likelihood import Likelihood, OptimalGaussian


def predict(spectrum: Spectrum, likelihood: Likelihood, latent_dim: int, weight: float) -> LinearOptimum | None:
    """What a linear VAE would keep of these data at the KL weight at which the schedule ends. None where the theory
    does not apply: no KL term, no Gaussian pixel variance, or data that `latent_dim` dimensions hold without loss."""
    sigma2 = likelihood.sigma2()
    if weight == 0 or sigma2 is None:
        return None
    try:
        fitted = isinstance(likelihood, OptimalGaussian)
        return linear_optimum(spectrum, latent_dim, weight, None if fitted else float(sigma2))
    except ValueError:
        return None


def measures(spectrum: Spectrum, likelihood: Likelihood, optimum: LinearOptimum | None, weight: float) -> Prediction:
    """The closed form as measures of the catalogue, at this KL weight."""
    return Prediction(
        effective_t=likelihood.effective_t(weight),
        largest_eigenvalue=spectrum.largest,
        predicted_active_units=None if optimum is None else optimum.kept,
        predicted_mse=None if optimum is None else optimum.sse / spectrum.pixels,
        predicted_kld=None if optimum is None else optimum.kld,
        predicted_collapse_weight=None if optimum is None else optimum.collapse_weight,
    )


def sentence(
    optimum: LinearOptimum | None, spectrum: Spectrum, objective: str, latent_dim: int, weight: float, rises: bool
) -> str:
    """One line for the terminal. `rises`: the KL weight changes over the run."""
    if weight == 0:
        return "Prediction: no KL term, so nothing pulls the code towards collapse."
    if optimum is None:
        return (
            f"Prediction: none. The closed form needs a Gaussian likelihood and data that {latent_dim} dimensions do "
            f"not hold without loss; objective={objective} on these data is another case."
        )
    scale = f"t = beta * sigma^2 = {optimum.t:.4g} at KL weight {weight:g}, largest eigenvalue {spectrum.largest:.4g}"
    if optimum.kept:
        return (
            f"Prediction: {scale}. A linear VAE would keep {optimum.kept} of {latent_dim} dimensions with "
            f"{optimum.kld:.3g} nats; from KL weight {optimum.collapse_weight:.4g} on it would keep none."
        )
    postponed = f" Annealing only postpones it, to about KL weight {optimum.collapse_weight:.3g}." if rises else ""
    return (
        f"Warning: {scale}. The objective itself asks for collapse.{postponed} To keep a live code end below KL weight "
        f"{optimum.collapse_weight:.3g}, or make the pixel variance smaller than {spectrum.largest / weight:.3g}."
    )
