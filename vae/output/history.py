"""history.npz: the KL weight, the reconstruction term and the KL of each latent dimension, wherever training measures
were logged."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae.measure.watch import Rows
from vae.output import plots
from vae.output.pictures import Picture
from vae.runtime import files, untrusted
from vae.runtime.directory import HISTORY


class History:
    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        self.steps: list[int] = []
        self.weights: list[float] = []
        self.reconstruction: list[float] = []  # nats, the loss less its KL term
        self.kl: list[list[float]] = []  # nats, (T, d)

    def add(self, step: int, weight: float, reconstruction: float, kl: list[float]) -> None:
        self.steps.append(step)
        self.weights.append(weight)
        self.reconstruction.append(reconstruction)
        self.kl.append(kl)

    def rows(self) -> Rows:
        return Rows(self.steps, self.reconstruction, [sum(row) for row in self.kl])

    def state_dict(self) -> dict[str, Tensor]:
        values = {
            "step": self.steps,
            "kl_weight": self.weights,
            "reconstruction": self.reconstruction,
            "kl": self.kl,
        }
        return {name: torch.tensor(rows, dtype=torch.float64) for name, rows in values.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where `state` is no history of this many dimensions."""
        untrusted.names(state, ("step", "kl_weight", "reconstruction", "kl"), "history")
        rows = len(state["step"]) if isinstance(state["step"], Tensor) and state["step"].dim() else 0
        untrusted.tensor(state["step"], (rows,), torch.float64, "history: step")
        untrusted.tensor(state["kl_weight"], (rows,), torch.float64, "history: kl_weight")
        untrusted.tensor(state["reconstruction"], (rows,), torch.float64, "history: reconstruction")
        untrusted.tensor(state["kl"], (rows, self.latent_dim) if rows else (0,), torch.float64, "history: kl")
        kl = state["kl"]
        if (kl.abs() > torch.finfo(torch.float32).max).logical_and(kl.isfinite()).any():  # history.npz is float32
            raise ValueError("history: a KL that is out of range")
        reconstruction = state["reconstruction"]  # NaN where it is not known
        if (reconstruction.abs() > torch.finfo(torch.float32).max).any():
            raise ValueError("history: a reconstruction that is out of range")
        self.steps = [int(step) for step in _checked(state["step"], "step")]
        self.reconstruction = reconstruction.tolist()
        self.weights, self.kl = _checked(state["kl_weight"], "kl_weight"), state["kl"].tolist()

    def save(self, directory: Path) -> Picture | None:
        """Write history.npz; its picture, if there is anything in it."""
        if not self.steps:
            return None
        kl = np.asarray(self.kl, np.float32)
        content = io.BytesIO()
        np.savez(content, step=self.steps, kl_weight=self.weights, reconstruction=self.reconstruction, kl=kl)
        files.replace(directory / HISTORY, content.getvalue())
        return plots.kl_heatmap(self.steps, self.weights, kl)


def _checked(values: Tensor, name: str) -> list[float]:
    """Raises ValueError where one of them is not finite, negative, or too large for a plot."""
    for value in values.tolist():
        untrusted.number(value, f"history.{name}", minimum=0)
    return values.tolist()
