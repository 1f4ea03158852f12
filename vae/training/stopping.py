"""Early stopping: train until the loss of the validation images, at the KL weight of the schedule's end (at 1 that is
-ELBO), has not fallen for a while, and keep the best model. It begins when the KL weight is that of the schedule's end,
and a cure is through with its phases: where that never happens, all steps are made, and the last model is kept.

The validation images are the data's own, or a fraction of the training images that is then not trained on."""

import dataclasses
import math
from typing import Any

import torch

from vae.config import schema
from vae.config.errors import InputError
from vae.data.split import Data, parted
from vae.runtime import untrusted
from vae.runtime.rng import generator


class Stopping:
    """Counts the evaluations since the best one. `patience` None: never stops; `weight`: the KL weight of the losses
    that are compared."""

    def __init__(self, patience: int | None, weight: float = 1.0) -> None:
        self.patience, self.weight = patience, weight
        self.begin()

    def begin(self) -> None:
        """As if nothing had been observed."""
        self.best: float | None = None  # the lowest loss, nats
        self.best_step, self.waited = 0, 0

    def observe(self, step: int, loss: float) -> bool:
        """Whether this evaluation is the best so far; one that is no number counts as none."""
        if not math.isfinite(loss):
            return False
        if self.best is None or loss < self.best:
            self.best, self.best_step, self.waited = loss, step, 0
        else:
            self.waited += 1
        return self.waited == 0

    @property
    def is_over(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def sentence(self, step: int) -> str:
        """What became of a run that has made `step` steps, and whose best model was an earlier one's, if one was."""
        if self.best is None:
            late = "KL weight and cure came to their end at no evaluation"
            return f"all {step} steps are made, and {late}; kept is the last model"
        most, was = ("ELBO", "highest") if self.weight == 1 else (f"loss at KL weight {self.weight:g}", "lowest")
        kept = f"kept is the model of step {self.best_step}, at which the {most} of the validation images was {was}"
        if not self.is_over:
            return f"all {step} steps are made; {kept}"
        waited = f"{self.waited} evaluations without a gain (train.patience={self.patience})"
        return f"stopped after step {step}, {waited}; {kept}"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """As if nothing had been observed where that was at another KL weight. Raises ValueError where `state` is none
        of its own."""
        untrusted.names(state, self.state_dict(), "stopping")
        for name in ("best_step", "waited"):
            untrusted.number(state[name], f"stopping.{name}", minimum=0, whole=True)
        if state["best"] is not None:
            untrusted.number(state["best"], "stopping.best")
        untrusted.number(state["weight"], "stopping.weight", minimum=0)
        self.begin()
        if state["weight"] == self.weight:
            self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]


def with_validation(data: Data, settings: schema.Train) -> Data:
    """`data` with a validation split where early stopping needs one: the same images for every seed of a run, all
    frames of a file or none. Raises InputError where there are too few for two."""
    if settings.patience is None or data.validation is not None:
        return data
    total = len(data.train)
    if total < 4:
        raise InputError(
            f"train.patience={settings.patience}: needs at least 4 training images, 2 to train on and 2 that say when "
            f"to stop; there are {total}; train.patience=null trains on all of them, for all steps"
        )
    files = data.train.files()
    if files is not None:
        total = int(files.max()) + 1
    order = torch.randperm(total, generator=generator(0, "validation"))
    left, chosen = parted(order[: settings.held_out(total)], total, files)
    grey = None if data.grey is None else data.grey.take(left)
    return dataclasses.replace(data, train=data.train.take(left), validation=data.train.take(chosen), grey=grey)
