"""The final record of a run: who it is, what was predicted for it, what was measured, what follows."""

from typing import Any

from torch import Tensor

from vae import linear
from vae.data import Data
from vae.evaluation import Evaluation, Figures, examine, scalars
from vae.model import VAE
from vae.objective import Likelihood
from vae.schema import RunConfig, Thresholds
from vae.spectrum import LinearOptimum, Spectrum
from vae.verdict import Evidence, Verdict, judge


def description(
    config: RunConfig,
    model: VAE,
    likelihood: Likelihood,
    spectrum: Spectrum,
    optimum: LinearOptimum | None,
    step: int,
    weight: float,
    final_weight: float,
) -> dict[str, Any]:
    """What the run is, and what the closed form says of it at the KL weight that it has reached."""
    return {
        "run_name": config.run_name,
        "model": config.model.name,
        "objective": config.objective.name,
        "anneal": config.anneal.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        "steps": step,
        "parameters": sum(p.numel() for p in model.parameters()),
        "latent_dim": config.model.latent_dim,
        "kl_weight": weight,
        "final_kl_weight": final_weight,
        "effective_t": likelihood.effective_t(weight),
        "largest_eigenvalue": spectrum.largest,
        "predicted_active_units": None if optimum is None else optimum.kept,
        "predicted_mse": None if optimum is None else optimum.sse / spectrum.pixels,
        "predicted_kld": None if optimum is None else optimum.kld,
        "predicted_collapse_weight": None if optimum is None else optimum.collapse_weight,
    }


def verdict_on(figures: Figures, latent_dim: int, optimum: LinearOptimum | None, limits: Thresholds) -> Verdict:
    evidence = Evidence(
        kld=figures.kld,
        sse=figures.sse,
        reconstruction_gap=figures.reconstruction_gap,
        active_units=figures.active_units,
        latent_dim=latent_dim,
        active_sigma=figures.active_sigma,
        active_spread=figures.active_spread,
        predicted=None if optimum is None else optimum.kept,
    )
    return judge(evidence, limits)


def findings(done: Evaluation, verdict: Verdict) -> dict[str, Any]:
    """The figures of an evaluation and what was made of them."""
    return scalars(done.figures) | {"verdict": verdict.name, "cause": verdict.cause, "reason": verdict.reason}


def costly_findings(
    config: RunConfig,
    model: VAE,
    likelihood: Likelihood,
    data: Data,
    optimum: LinearOptimum | None,
    done: Evaluation,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What is measured once, at the end: the numbers, and the figures of each latent dimension (d,). For a linear VAE
    also its figures beside those of its optimum, both on the training split and without chance."""
    examination = examine(model, likelihood, data, done, config.evaluation, config.seed)
    found: dict[str, Any] = scalars(examination)
    if config.model.name == "linear_vae" and likelihood.link_name == "linear" and optimum is not None:
        exact = linear.analytic(model, likelihood, data.train, config.evaluation.batch_size)
        for name in ("kept", "kld", "sse", "elbo"):
            found |= {f"linear_{name}": getattr(exact, name), f"optimum_{name}": getattr(optimum, name)}
    return found, {"dimension_gap": examination.dimension_gaps, "sensitivity": examination.sensitivities}
