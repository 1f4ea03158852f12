"""history.npz: the KL weight and the KL of each latent dimension, wherever training figures were logged."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae import figures, files
from vae.pictures import Picture

FILE = "history.npz"


class History:
    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        self.steps: list[int] = []
        self.weights: list[float] = []
        self.kl: list[list[float]] = []  # nats, (T, d)

    def add(self, step: int, weight: float, kl: list[float]) -> None:
        self.steps.append(step)
        self.weights.append(weight)
        self.kl.append(kl)

    def state_dict(self) -> dict[str, Tensor]:
        values = {"step": self.steps, "kl_weight": self.weights, "kl": self.kl}
        return {name: torch.tensor(rows, dtype=torch.float64) for name, rows in values.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        step, weight, kl = state["step"], state["kl_weight"], state["kl"]
        rows = len(step)
        if step.shape != (rows,) or weight.shape != (rows,) or kl.shape != ((rows, self.latent_dim) if rows else (0,)):
            raise ValueError(f"step {tuple(step.shape)}, kl_weight {tuple(weight.shape)}, kl {tuple(kl.shape)}")
        self.steps, self.weights, self.kl = [int(value) for value in step.tolist()], weight.tolist(), kl.tolist()

    def save(self, directory: Path) -> Picture | None:
        """Write history.npz; its picture, if there is anything in it."""
        if not self.steps:
            return None
        kl = np.asarray(self.kl, np.float32)
        content = io.BytesIO()
        np.savez(content, step=self.steps, kl_weight=self.weights, kl=kl)
        files.replace(directory / FILE, content.getvalue())
        return figures.kl_heatmap(self.steps, self.weights, kl)
