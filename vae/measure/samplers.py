"""Where codes for new images are drawn from: the prior, or a density fitted to the codes of the training images.

A model whose KL weight is small, or whose pixel variance is fitted, reconstructs well and may leave q(z), the
distribution of its codes, far from the prior; then images of the prior's codes are like none it has seen. A full
Gaussian or a mixture of ten, fitted to codes after training, is nearer (Ghosh et al. 2020, arXiv 1903.12436, section
4)."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from vae.config.errors import InputError

Sampler = Callable[[int, torch.Generator], Tensor]  # how many, and the chance: codes (n, d)

COMPONENTS = 10  # Ghosh et al. 2020
MAX_CODES = 50_000  # that a mixture is fitted to


def prior(latent_dim: int) -> Sampler:
    """N(0, I)."""
    return lambda count, rng: torch.randn(count, latent_dim, generator=rng)


def fitted(kind: str, codes: Tensor, seed: int) -> Sampler:
    """A Gaussian of full covariance, or a mixture of COMPONENTS of them, fitted to codes (N, d). Raises InputError
    where there are too few of them."""
    components = 1 if kind == "gaussian" else COMPONENTS
    if len(codes) < components * (codes.shape[1] + 1):
        raise InputError(
            f"sampler={kind}: {len(codes)} training images are too few to fit {components} components of "
            f"{codes.shape[1]} dimensions to (from {components * (codes.shape[1] + 1)} on); sampler=gaussian needs a "
            "tenth of that, prior none"
        )
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    values = codes.double().numpy()
    if len(values) > MAX_CODES:
        values = values[np.linspace(0, len(values) - 1, MAX_CODES).astype(int)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that still moves a little is good enough
        model = GaussianMixture(components, random_state=seed % 2**32).fit(values)
    weights, means = torch.from_numpy(model.weights_), torch.from_numpy(model.means_)
    roots = torch.linalg.cholesky(torch.from_numpy(model.covariances_))

    def draw(count: int, rng: torch.Generator) -> Tensor:
        chosen = torch.multinomial(weights, count, replacement=True, generator=rng)
        noise = torch.randn(count, values.shape[1], generator=rng, dtype=torch.float64)
        return (means[chosen] + torch.einsum("nij,nj->ni", roots[chosen], noise)).float()

    return draw
