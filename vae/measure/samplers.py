"""Where codes for new images are drawn from: the prior, or a density fitted to the codes of the training images.

A model whose KL weight is small, or whose pixel variance is fitted, reconstructs well and may leave q(z), the
distribution of its codes, far from the prior; then images of the prior's codes are like none it has seen. A full
Gaussian or a mixture of ten, fitted to codes after training, is nearer (Ghosh et al. 2020, arXiv 1903.12436, section
4)."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from vae.config.errors import InputError
from vae.data.split import Split
from vae.models.vae import VAE
from vae.runtime.rng import generator

Sampler = Callable[[int, torch.Generator], Tensor]  # how many, and the chance: codes (n, d)

FITTED = ("gaussian", "mixture")
COMPONENTS = 10  # Ghosh et al. 2020
MAX_CODES = 20_000  # that a density is fitted to


def prior(latent_dim: int) -> Sampler:
    """N(0, I)."""
    return lambda count, rng: torch.randn(count, latent_dim, generator=rng)


@torch.no_grad()
def training_codes(model: VAE, split: Split, batch_size: int, seed: int) -> Tensor:
    """A draw of z for each image of a split (for MAX_CODES of them, evenly, where there are more), (N, d)."""
    total, rng, codes = len(split), generator(seed, "sampler codes"), []
    chosen = torch.arange(min(total, MAX_CODES)) * total // min(total, MAX_CODES)
    for rows in chosen.split(batch_size):
        posterior = model.encode(split.batch(rows))
        noise = torch.randn(posterior.mu.shape, generator=rng)
        codes.append(posterior.sample(noise.to(posterior.mu.device)).cpu())
    return torch.cat(codes)


@torch.no_grad()
def decoded(model: VAE, codes: Tensor, batch_size: int, rng: torch.Generator | None = None) -> Tensor:
    """Codes (N, d) to mean images (N, C, H, W) on the CPU, a batch at a time. An autoregressive decoder draws them by
    `rng`, or without it with the same chance at every call."""
    codes = codes.to(next(model.parameters()).device)
    parts = [
        model.decode(part, rng=rng or generator(0, "pixels", i * batch_size)).cpu()
        for i, part in enumerate(codes.split(batch_size))
    ]
    return torch.cat(parts)


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
    from threadpoolctl import threadpool_limits

    values = codes.double().numpy()
    with warnings.catch_warnings(), threadpool_limits(1):  # so small products wait longer for a second thread
        warnings.simplefilter("ignore", ConvergenceWarning)  # a mixture that still moves a little is good enough
        model = GaussianMixture(components, random_state=seed % 2**32).fit(values)
    weights, means = torch.from_numpy(model.weights_), torch.from_numpy(model.means_)
    roots = torch.linalg.cholesky(torch.from_numpy(model.covariances_))

    def draw(count: int, rng: torch.Generator) -> Tensor:
        chosen = torch.multinomial(weights, count, replacement=True, generator=rng)
        codes = torch.randn(count, values.shape[1], generator=rng, dtype=torch.float64)
        for place, (mean, root) in enumerate(zip(means, roots, strict=True)):
            codes[chosen == place] = mean + codes[chosen == place] @ root.T
        return codes.float()

    return draw
