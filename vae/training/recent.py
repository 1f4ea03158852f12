"""The measures of the last training steps, kept on the device: the host waits for it only when it reads."""

from typing import Any

import torch
from torch import Tensor

from vae.config import schema
from vae.config.errors import RunFailed
from vae.output.recorder import TrainingMeans
from vae.runtime import parallel, untrusted


class NotFinite(RunFailed):
    """Training produced NaN or infinity. The message is one line: the step, the term, a hint."""


def not_finite(step: int, term: str, settings: schema.Train) -> NotFinite:
    return NotFinite(
        f"step {step}: the {term} is not finite any more; lower train.lr={settings.lr:g}, "
        "or clip gradients with train.max_grad_norm=10"
    )


def row_of(loss: Tensor, reconstruction: Tensor, mse: Tensor, kl: Tensor) -> Tensor:
    """(3 + d,) What is kept of one step: three numbers, and the KL of each latent dimension (d,)."""
    return torch.cat([torch.stack([loss, reconstruction, mse]), kl]).detach()


class Recent:
    """A ring of the last `capacity` steps, one row each."""

    def __init__(self, capacity: int, latent_dim: int, device: torch.device) -> None:
        self.rows = torch.zeros(capacity, 3 + latent_dim, device=device)
        self.count = 0  # steps so far
        self.known = 0  # of the last so many there are rows: for a while few, after a ring that was smaller

    def state_dict(self) -> dict[str, Any]:
        whole = self.known == min(self.count, len(self.rows))
        return {"rows": self.rows if whole else self.last(self.known).roll(self.count, 0), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of a ring with another capacity the last rows that fit. Raises ValueError where `state` is none of its
        own."""
        untrusted.names(state, self.state_dict(), "recent")
        untrusted.number(state["count"], "recent.count", minimum=0, whole=True)
        given = state["rows"]
        length = len(given) if isinstance(given, Tensor) and given.dim() == 2 else 0
        untrusted.tensor(given, (length, self.rows.shape[1]), self.rows.dtype, "recent.rows")
        kept = min(length, len(self.rows), state["count"])
        if length == len(self.rows):
            self.rows.copy_(given)
        elif length:
            last = given.roll(-state["count"], 0)[length - kept :].to(self.rows.device)
            places = torch.arange(state["count"] - kept, state["count"]) % len(self.rows)
            self.rows[places.to(self.rows.device)] = last
        else:
            raise ValueError("recent.rows: is empty")
        self.count, self.known = state["count"], kept

    def add(self, row: Tensor) -> None:
        """The `row_of` one step."""
        self.rows[self.count % len(self.rows)] = parallel.mean(row)
        self.count += 1
        self.known = min(self.known + 1, len(self.rows))

    def last(self, steps: int) -> Tensor:
        """The measures of the last `steps` steps, or of as many as there are: (steps, 3 + d), oldest first."""
        steps = min(steps, self.known)
        return self.rows.roll(-self.count, 0)[-steps:].cpu()

    def means(self, steps: int) -> TrainingMeans:
        return _means(self.last(steps))

    def checked_means(self, step: int, settings: schema.Train) -> TrainingMeans:
        """Means over the last `train.log_every` steps. Raises NotFinite if the loss of one of them was not a number."""
        rows = self.last(settings.log_every)
        broken = (~rows[:, 0].isfinite()).nonzero()
        if len(broken):
            first = int(broken[0])
            term = "KL term" if rows[first, 1].isfinite() else "reconstruction term"
            raise not_finite(step - len(rows) + 1 + first, term, settings)
        return _means(rows)


def _means(rows: Tensor) -> TrainingMeans:
    loss, reconstruction, mse, *kl = rows.double().mean(0).tolist()
    return TrainingMeans(loss, reconstruction, mse, kl)
