"""A run of this program, handed to `vae.diagnose`: what else the caller would have to say is in its directory."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

from vae.config import schema
from vae.config.load import check_allowed
from vae.data.split import Data
from vae.measure.watch import Rows, Trajectory
from vae.models.likelihood import Likelihood, OptimalGaussian
from vae.output import record as records
from vae.output import recorder
from vae.training import checkpoint, schedule
from vae.training.checkpoint import Checkpoint
from vae.training.finished import Run
from vae.training.own_data import own_data

GAUSSIAN = (schema.SquaredError, schema.PixelMSE, schema.Gaussian)


class Told(NamedTuple):
    """In the words of the arguments of `diagnose`."""

    likelihood: str | Likelihood
    sigma2: float | None
    kl_weight: float
    settings: schema.Evaluation
    anneal: schema.Anneal
    cure: schema.Cure
    steps: int
    best_step: int | None  # whose model it is, where early stopping was asked for
    stopped: bool  # the training has come to its own end
    trajectory: Trajectory
    rows: Rows
    final_weight: float
    saved: Checkpoint


def told_by(run: Run) -> Told:
    """Raises InputError where its directory cannot be read."""
    directory = Path(run.directory)
    saved = checkpoint.read(directory, run.allow, groups=("model", "objective", "anneal", "cure"))
    config, given = saved.config, saved.model()[1]
    trajectory, rows = recorder.remembered(saved.recorder, config)
    said = records.read(directory)
    likelihood: str | Likelihood = config.objective.kind
    if isinstance(config.objective, GAUSSIAN):
        likelihood = "gaussian"
    elif isinstance(config.objective, schema.CustomObjective):
        likelihood = given
    is_gaussian = isinstance(config.objective, GAUSSIAN) or isinstance(given, OptimalGaussian)
    variance = given.sigma2() if is_gaussian else None
    sigma2 = None if variance is None else float(variance)
    return Told(
        likelihood,
        sigma2,
        saved.kl_weight,
        settings=config.evaluation,
        anneal=config.anneal,
        cure=config.cure,
        steps=saved.step,
        best_step=None if said.get("best_step") is None else saved.step,
        stopped=records.stopped(said.get("steps", saved.step), said.get("best_step"), config.train),
        trajectory=trajectory,
        rows=rows,
        final_weight=schedule.of(config).final,
        saved=saved,
    )


def data_of(run: Run, saved: Checkpoint) -> Data:
    """Its training and test images. Raises InputError where they are no longer those that it was trained on."""
    config = saved.config
    check_allowed({"dataset": dataclasses.asdict(config.dataset)}, run.allow)
    return own_data(config, saved.parts["data"]).measured(config.evaluation.test_images)
