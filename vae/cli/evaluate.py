"""`python run.py evaluate=DIR`: measure a finished run again, with other settings or on other data."""

import dataclasses
import os
from pathlib import Path

from omegaconf import DictConfig

from vae.cli import failures
from vae.cli.session import Job
from vae.cli.summary import measured
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import IMAGES, allowed_modules, is_below, revise
from vae.config.schema import RunConfig
from vae.data import readers, scale
from vae.data.split import Data
from vae.measure.subject import Subject
from vae.models import probe
from vae.output import record as records
from vae.output import recorder
from vae.output.conclusion import conclude
from vae.output.record import Course, RunRecord
from vae.runtime import directory as names
from vae.runtime.machine import choose_device, configure_process
from vae.runtime.terminal import show
from vae.training import checkpoint, schedule
from vae.training.checkpoint import Checkpoint
from vae.training.own_data import own_data
from vae.training.stopping import with_validation

CHANGEABLE = ("evaluation", "dataset", "train.threads", "train.device")


def check_shape(directory: Path, shape: tuple[int, int, int], data: Data, dataset: schema.Dataset) -> None:
    """Raises InputError where the images are not of the `shape` that the run in `directory` was trained on."""
    if data.test.shape != shape:
        raise InputError(
            f"{directory}: trained on images of shape {shape}, dataset={dataset.name} has {data.test.shape}"
            f"{readers.reshaping(dataset)}"
        )


def _check_split(directory: Path, now: schema.Dataset, data: Data, saved: Checkpoint, are_named: bool) -> None:
    """Raises InputError where a call divides the run's own images anew: most of that test split was trained on. `now`:
    what its dataset is; `data`: what has been read of that; `are_named`: the call says where the images are, so that
    more or fewer than the run's are meant to be others."""
    before, state = saved.config.dataset, saved.parts["data"]
    if _source(now) != _source(before) or not readers.is_divided(now):
        return
    pairs = [
        (f"dataset.{name}", getattr(before, name, None), getattr(now, name, None))
        for name in ("test", "split_seed", "test_fraction", "labels")
    ]
    for name, split in (("train", data.train), ("test", data.test)) if not are_named else ():
        count = state[name].get("images") if isinstance(state[name], dict) else None
        pairs.append((f"the number of {name} images", count, len(split)))
    for name, old, new in pairs:
        if old != new:
            raise InputError(
                f"evaluate={directory}: its images would be divided anew ({name} was {old}, is {new}), and tested on "
                "many that it was trained on; leave that out, or give images of their own with dataset.root or "
                "dataset.test"
            )


def _source(dataset: schema.Dataset) -> list[str | None]:
    """What the images that are trained on come from."""
    places = [getattr(dataset, key.removeprefix("dataset."), None) for key in IMAGES if key != "dataset.test"]
    return [dataset.kind, getattr(dataset, "key", None), *(place and os.path.realpath(place) for place in places)]


def evaluate(job: Job, call: RunConfig, composed: DictConfig) -> RunRecord:
    """The whole record of the run in the job's directory, measured anew; written to evaluation.json beside result.json,
    which stays as it is."""
    directory = job.directory
    with failures.machine_errors(directory):
        saved = checkpoint.read(directory, allowed_modules(call))
        config = revise(saved.config, composed, job.keys, CHANGEABLE)
        configure_process(config.train.threads)
        device = choose_device(config.train.device)
        others = [key for key in job.keys if is_below(key, ("dataset",))]
        if others:  # on purpose
            found = readers.load_alike(config.dataset, saved.config.dataset, saved.reading)
            data = with_validation(found, config.train)
            _check_split(directory, config.dataset, data, saved, any(key in IMAGES for key in others))
        else:
            data = own_data(config, saved.parts["data"])
        data = data.measured(config.evaluation.test_images).to(device)
        check_shape(directory, saved.shape, data, config.dataset)
        model, likelihood = saved.model()
        scale.check(data, f"dataset={config.dataset.name}")
        what = f"evaluate={directory}, dataset={config.dataset.name} with objective={config.objective.name}"
        probe.check_images(likelihood.to(device), data, what)
        subject = Subject(config, model.to(device), likelihood.to(device), data)
        before = records.read(directory)
        best_step = saved.step if before.get("best_step") is not None else None
        stopped = records.stopped(before.get("steps", saved.step), best_step, config.train)
        final = schedule.of(config).final
        trajectory, rows = recorder.remembered(saved.recorder, config)
        done = subject.evaluate(thorough=True)
        record = conclude(
            subject,
            directory,
            done,
            saved.step if best_step is None else before["steps"],
            saved.kl_weight,
            final,
            trajectory,
            rows,
            best_step=best_step,
            stopped=stopped,
        ).record
        record = dataclasses.replace(record, course=Course.of(before))
        record.save(directory, names.EVALUATION)
        show(f"measured again: {os.path.relpath(directory / names.EVALUATION)}\n{measured(record, before)}\n")
    return record
