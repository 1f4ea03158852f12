"""What is predicted before the first step, held against the theory, against differentiation, and in its words."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from scipy.optimize import brentq

from vae.data.readers import embedded_digits
from vae.data.split import Split, hold_out
from vae.measure import prediction, spectrum
from vae.measure.prediction import measures, predict, sentence
from vae.measure.spectrum import Spectrum
from vae.models import likelihood as likelihoods
from vae.models.likelihood import Likelihood

VALUES = [4.0, 2.5, 1.2, 0.6, 0.3, 0.1]
GIVEN = Spectrum(torch.tensor(VALUES, dtype=torch.float64), torch.eye(6), torch.zeros(6), sum(VALUES), 6)


def build(objective: str, *overrides: str, shape: tuple[int, int, int] = (1, 2, 3)) -> Likelihood:
    return likelihoods.build(composed(f"objective={objective}", *overrides).objective, None, shape)


def said(weight: float, objective: str, rises: bool = False, given: Spectrum = GIVEN) -> str:
    likelihood = build(objective)
    found = measures(given, None, likelihood, 3, weight)
    return sentence(found, predict(given, likelihood, 3, weight), objective, 3, weight, rises)


def test_what_is_said_beforehand() -> None:
    assert "would keep 3 of 3 dimensions" in said(1, "sse")
    assert "from KL weight 8 on the collapsed state is stable" in said(1, "sse")
    doomed = said(2, "pixel_mse", rises=True)  # sigma^2 = 3
    assert doomed.startswith("Warning")
    assert "no small step away from it pays" in doomed
    assert "Annealing reaches that at about KL weight 1.33" in doomed
    assert "Annealing" not in said(2, "pixel_mse")
    assert "no KL term" in said(0, "sse")


def test_data_that_a_few_dimensions_hold_have_no_interior_optimum() -> None:
    values = torch.tensor([2.0, 1.0, 0.5, 0, 0, 0], dtype=torch.float64)
    given = Spectrum(values, torch.eye(6), torch.zeros(6), 3.5, 6)
    assert "no interior optimum" in said(1, "optimal_gaussian", given=given)


def test_one_t_throughout_where_the_variance_is_fitted() -> None:
    likelihood = build("optimal_gaussian")
    found, optimum = measures(GIVEN, None, likelihood, 3, 1.5), predict(GIVEN, likelihood, 3, 1.5)
    assert optimum is not None
    assert found.effective_t == optimum.t == 1.5 * optimum.sigma2
    assert f"{optimum.t:.4g}" in said(1.5, "optimal_gaussian")


def test_the_gain_of_a_linear_vae_by_its_definition() -> None:
    """(1/2) beta sum (lambda / t - 1 - log(lambda / t)) over the kept; more dimensions gain more."""
    found = measures(GIVEN, None, build("gaussian", "objective.sigma2=0.5"), 2, 1.6)
    t = 0.8
    expected = 0.8 * sum(value / t - 1 - math.log(value / t) for value in VALUES[:2])
    assert found.predicted_gain == pytest.approx(expected)
    assert found.predicted_gain_wider == pytest.approx(expected + 0.8 * (1.2 / t - 1 - math.log(1.2 / t)))


@pytest.mark.parametrize("objective", ["bernoulli", "continuous_bernoulli"])
def test_curvature_is_the_variance_of_the_family(objective: str) -> None:
    """Against autograd: the derivative of the mean with respect to the natural parameter, the decoder's output."""
    likelihood = build(objective)
    logits = torch.tensor(
        [-40.0, -6.0, -0.7, -0.02, 0.0, 0.01, 0.3, 5.0, 60.0], dtype=torch.float64, requires_grad=True
    )
    mean = likelihood.link(logits)
    (expected,) = torch.autograd.grad(mean.sum(), logits)
    inside = (mean > 0.01) & (mean < 0.99)
    curvature = likelihood.curvature(mean.detach())
    assert curvature is not None
    assert curvature[inside].numpy() == pytest.approx(expected[inside].numpy(), rel=1e-4)
    if objective == "continuous_bernoulli":
        assert (curvature[~inside] == 0).all()


@pytest.mark.parametrize("objective", ["bernoulli", "continuous_bernoulli"])
def test_the_collapsed_state_is_stable_from_where_it_is_predicted(objective: str) -> None:
    """The loss of a decoder l(z) = l_0 + w z with the best q for each image, expanded around w = 0 by finite
    differences: it falls below the predicted KL weight, and rises above it."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(4000, 1))
    images = 1 / (1 + np.exp(-(factor @ rng.normal(size=(1, 6)) * 1.5 + rng.normal(size=6) * 0.3)))
    split = Split(torch.from_numpy(images).float().view(-1, 1, 2, 3))
    likelihood = build(objective)
    given = spectrum.measure(split, 6)
    white = prediction.whitened(split, given, likelihood, 6)
    assert white is not None
    edge = measures(given, white, likelihood, 1, 1.0).predicted_collapse_weight
    assert edge is not None
    curvature = likelihood.curvature(given.mean)
    assert curvature is not None
    pixels = torch.from_numpy(images)
    logits = torch.logit(given.mean)
    if objective == "continuous_bernoulli":
        logits = torch.tensor([_logit_of(likelihood, float(m)) for m in given.mean], dtype=torch.float64)
    direction = white.components[:, 0].double() / curvature.sqrt()
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(20)

    def loss(size: float, weight: float) -> float:
        """With q(z|x) = N(mu, s^2), mu and s^2 to the order that matters: mu = w'(x - m) / beta, 1 / s^2 = 1 + w'Aw /
        beta. The expectation over z by quadrature."""
        w = size * direction
        s2 = 1 / (1 + float((w.square() * curvature).sum()) / weight)
        mu = s2 * ((pixels - given.mean) @ w) / weight
        nll = torch.zeros(len(pixels), dtype=torch.float64)
        for node, node_weight in zip(nodes, node_weights / node_weights.sum(), strict=True):
            z = mu + s2**0.5 * node
            raw = (logits + z[:, None] * w).view(-1, 1, 2, 3)
            nll += node_weight * likelihood.nll(pixels.view(-1, 1, 2, 3), raw)
        kl = 0.5 * (mu.square() + s2 - 1 - math.log(s2))
        return float((nll + weight * kl).mean())

    for factor_of_edge, sign in ((0.9, -1), (1.1, 1)):
        weight = edge * factor_of_edge
        assert np.sign(loss(0.05, weight) - loss(0.0, weight)) == sign


def _logit_of(likelihood: Likelihood, mean: float) -> float:
    return float(brentq(lambda x: float(likelihood.link(torch.tensor(x, dtype=torch.float64))) - mean, -500, 500))


def test_bernoulli_on_the_embedded_digits() -> None:
    """31.48, 23.18, 21.49, 16.66, 14.25, and 100 above 1: computed once elsewhere."""
    train = hold_out(embedded_digits(), 0.2, 0).train
    likelihood = build("bernoulli", shape=(1, 28, 28))
    given = spectrum.measure(train, 32)
    white = prediction.whitened(train, given, likelihood, 32)
    assert white is not None
    assert white.eigenvalues[:5].tolist() == pytest.approx([31.48, 23.18, 21.49, 16.66, 14.25], abs=0.006)
    assert int((white.eigenvalues > 1).sum()) == 100
    found = measures(given, white, likelihood, 32, 22.0)
    assert found.predicted_kld == pytest.approx(0.205, abs=0.001)
    assert "from KL weight 31.48 on the collapsed state is stable" in sentence(
        found, None, "bernoulli", 32, 22.0, False
    )
