"""Models that were trained elsewhere, of known worth: linear VAEs at, and off, their optimum on Gaussian data."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

EIGENVALUES = (6.0, 3.0, 1.5, 0.2, 0.1, 0.05)


def gaussian_images(count: int = 2000, eigenvalues: tuple[float, ...] = EIGENVALUES) -> Tensor:
    """Images (N, 1, 2, 3) with these variances along the axes of a random basis, to rounding: their sample covariance
    has them exactly."""
    rng = np.random.default_rng(0)
    n = len(eigenvalues)
    z = rng.standard_normal((count, n))
    z -= z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / count).T)
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return torch.from_numpy((z * np.sqrt(eigenvalues)) @ basis.T).float().reshape(count, 1, 2, n // 2)


@dataclass
class LinearVAE:
    """The closed form (Lucas et al. 2019) for images (N, 1, H, W), from numpy's eigenvectors: d dimensions at
    t = beta sigma^2."""

    images: Tensor
    d: int
    t: float

    def __post_init__(self) -> None:
        rows = self.images.flatten(1).double().numpy()
        self.mean = torch.from_numpy(rows.mean(0)).float()
        values, vectors = np.linalg.eigh(np.cov(rows.T, ddof=0))
        values, vectors = values[::-1][: self.d], vectors[:, ::-1][:, : self.d]
        kept = values > self.t
        self.eigenvalues = values
        weight = np.where(kept, np.sqrt(np.maximum(values - self.t, 0)), 0.0)
        self.w = torch.from_numpy((vectors * weight).copy()).float()  # (n, d)
        self.v = torch.from_numpy((vectors * weight / values).copy()).float()
        self.log_sigma = torch.from_numpy(np.where(kept, 0.5 * np.log(np.minimum(self.t / values, 1)), 0.0)).float()

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu = (images.flatten(1) - self.mean) @ self.v
        return mu, self.log_sigma.expand_as(mu)

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.w.T + self.mean).reshape(len(z), *self.images.shape[1:])
