"""How a model was trained, as far as measures, sentences and advice depend on it: of a run that is its configuration,
of a model from elsewhere what its owner says. No torch."""

import dataclasses
from dataclasses import dataclass
from typing import Protocol

from vae.config import schema


class Setting(Protocol):
    """schema.RunConfig is one, and Elsewhere is."""

    @property
    def model(self) -> schema.Model: ...
    @property
    def objective(self) -> schema.Objective: ...
    @property
    def anneal(self) -> schema.Anneal: ...
    @property
    def cure(self) -> schema.Cure: ...
    @property
    def train(self) -> schema.Train | None: ...
    @property
    def evaluation(self) -> schema.Evaluation: ...
    @property
    def seed(self) -> int: ...

    def schedule(self) -> tuple[str, schema.Anneal]: ...


@dataclass(frozen=True)
class Elsewhere:
    """Of a model whose training was not seen: its optimiser, learning rate and steps are not known."""

    model: schema.Model
    objective: schema.Objective
    anneal: schema.Anneal
    evaluation: schema.Evaluation
    seed: int
    train: None = None
    cure: schema.Cure = dataclasses.field(default_factory=lambda: schema.NoCure(name="none"))

    def schedule(self) -> tuple[str, schema.Anneal]:
        return schema.schedule_of(self.anneal, self.cure)
