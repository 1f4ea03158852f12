"""What `tracking=` writes besides TensorBoard, through MLflow's or Weights & Biases' own library: the same scalars with
the same tags and steps, the grids, the configuration, the final record under the keys of result.json. Neither library
is imported where it is not asked for, and nothing leaves this machine.

What is measured waits until a checkpoint is written, as TensorBoard's file is cut back to one: a run that was killed
and resumed has no point twice. tracking.json in the run's directory says which run of the library it is, and up to
which step each tag has been sent: a run that is resumed from before that (its loss was no number after its last
checkpoint) sends what follows it."""

import dataclasses
import importlib
import json
import logging
import math
import os
import time
from abc import abstractmethod
from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

from vae.config import schema
from vae.config.errors import InputError, RunFailed, one_line
from vae.config.load import flat
from vae.output.pictures import Picture
from vae.runtime import directory as names
from vae.runtime import files, untrusted

log = logging.getLogger(__name__)

STORE = "mlruns"  # MLflow's directory, below that of the call
DATABASE, ARTIFACTS = "mlflow.db", "artifacts"  # in it
FLUSH = 0.2  # seconds after which Weights & Biases writes what it was given; its own default is 15
BATCH = 1000  # metrics that MLflow takes at once
NEEDED: dict[type[schema.Tracking], str] = {schema.MLflow: "mlflow", schema.WandB: "wandb"}


def library(config: schema.Tracking) -> Any:
    """The package that this tracking needs, None where it needs none. Raises InputError where it is not there."""
    package = NEEDED.get(type(config))
    if package is None:
        return None
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would send what it is used for
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # and this one its own crashes
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"tracking={config.name}: {error}; pip install '.[{package}]' brings {package}") from error


class Tracker:
    """tracking=tensorboard: nothing besides TensorBoard."""

    def scalars(self, values: Mapping[str, float | None], step: int, again: bool = False) -> None:
        """As TensorBoardWriter.scalars. `again`: the tags have other values of this step already."""

    def picture(self, tag: str, picture: Picture, step: int, again: bool = False) -> None:
        """As TensorBoardWriter.picture. `again`: the tag has another one of this step already."""

    def send(self) -> None:
        """Write what waits."""

    def end(self, record: Mapping[str, Any], step: int) -> None:
        """The final record of the run, flat; it has failed where that has a `failure`."""

    def close(self) -> None:
        """A run that has not come to its end was interrupted."""


@singledispatch
def build(config: schema.Tracking, run: schema.RunConfig, directory: Path) -> Tracker:
    """For the run in `directory`; where an earlier part of it was tracked, that goes on. Raises InputError where the
    package is missing, and RunFailed where it cannot begin."""
    raise TypeError(config)


@build.register
def _(config: schema.TensorBoardAlone, run: schema.RunConfig, directory: Path) -> Tracker:
    return Tracker()


class _Waiting(Tracker):
    """Holds what is measured until it is sent. What the library cannot take at the moment is said in a line, and tried
    again with the next checkpoint: no training ends for it."""

    errors: tuple[type[Exception], ...]  # of the library
    id: str  # of the run, in the library
    written = 0  # rows, where the library counts them

    def __init__(self, config: schema.Tracking, directory: Path) -> None:
        self.key = f"tracking={config.name}"
        directory.mkdir(parents=True, exist_ok=True)
        self.note = directory / names.TRACKING
        self.rows: list[tuple[int, dict[str, float]]] = []  # step, values by their tags
        self.pictures: list[tuple[int, str, Picture]] = []
        self.ended = False
        self.earlier = self.noted()
        self.sent: dict[str, int] = dict(self.earlier.get("sent", {}))  # the last step of each tag

    def is_new(self, tag: str, step: int) -> bool:
        return step > self.sent.get(tag, -1)

    def scalars(self, values: Mapping[str, float | None], step: int, again: bool = False) -> None:
        finite = {
            tag: value
            for tag, value in values.items()
            if value is not None and math.isfinite(value) and (again or self.is_new(tag, step))
        }
        if finite:
            self.rows.append((step, finite))

    def picture(self, tag: str, picture: Picture, step: int, again: bool = False) -> None:
        if again or self.is_new(tag, step):
            self.pictures.append((step, tag, picture))

    def send(self) -> None:
        try:
            self._send_rows()
            while self.pictures:
                step, tag, picture = self.pictures[0]
                self._send_picture(step, tag, picture)
                self.sent[tag] = step
                del self.pictures[0]
        except self.errors as error:
            log.warning("%s: could not be written (%s); it is tried again", self.key, one_line(error))
        self.write_note()

    def take(self, count: int) -> None:
        """The first `count` of `rows` have been sent."""
        for step, values in self.rows[:count]:
            self.sent |= dict.fromkeys(values, step)
        del self.rows[:count]

    def end(self, record: Mapping[str, Any], step: int) -> None:
        self.send()
        numbers = {name: value for name, value in record.items() if is_finite_number(value)}
        texts = {name: str(value) for name, value in record.items() if isinstance(value, str | bool)}
        try:
            self._end(numbers, texts, step, "failure" in record)
            self.ended = True
        except self.errors as error:
            log.warning("%s: the final record could not be written (%s)", self.key, one_line(error))

    def close(self) -> None:
        if self.ended:
            return
        self.ended = True
        try:
            self._interrupt()
        except self.errors as error:
            log.warning("%s: %s", self.key, one_line(error))

    def noted(self) -> dict[str, Any]:
        """What an earlier part of this run has left in tracking.json for this library; empty where there was none."""
        if not self.note.is_file():
            return {}
        try:
            found = json.loads(files.read_text(self.note)).get(self.key)
            if found is None:
                return {}
            found = {"sent": {}} | found  # not known of earlier versions
            untrusted.names(found, ("id", "rows", "sent"), self.key)
            for tag, step in found["sent"].items():
                untrusted.number(step, f"sent.{tag}", minimum=0, whole=True)
            untrusted.number(found["rows"], "rows", minimum=0, whole=True)
            if not (isinstance(found["id"], str) and found["id"].isascii() and found["id"].isalnum()):
                raise ValueError(f"id {found['id']!r}")
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            log.warning("%s: not readable (%s); %s begins a new run", self.note, one_line(error), self.key)
            return {}
        return dict(found)

    def write_note(self) -> None:
        found = {"id": self.id, "rows": self.written, "sent": self.sent}
        files.replace(self.note, json.dumps({self.key: found}).encode() + b"\n")

    @abstractmethod
    def _send_rows(self) -> None:
        """All of `rows`, each given to `take` as soon as it is written."""

    @abstractmethod
    def _send_picture(self, step: int, tag: str, picture: Picture) -> None: ...

    @abstractmethod
    def _end(self, numbers: Mapping[str, float], texts: Mapping[str, str], step: int, failed: bool) -> None: ...

    @abstractmethod
    def _interrupt(self) -> None: ...


class MLflowTracker(_Waiting):
    """Into a database that all runs of a directory share, by one process at a time."""

    def __init__(self, config: schema.MLflow, run: schema.RunConfig, directory: Path) -> None:
        super().__init__(config, directory)
        mlflow = library(config)
        self.entities = mlflow.entities
        self.errors = (mlflow.exceptions.MlflowException, OSError)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # it tells of every table that it makes
        self.store = Path(STORE).absolute()
        self.store.mkdir(exist_ok=True)
        try:
            with files.locked(self.store, wait=True):
                self.client = mlflow.MlflowClient(f"sqlite:///{self.store / DATABASE}")
                self.id = self._resume() or self._begin(config.experiment, run.run_name, directory)
        except self.errors as error:
            raise RunFailed(f"{self.key}: {self.store} cannot be used ({one_line(error)})") from error
        self.write_note()
        self._set_params({name: str(value) for name, value in flat(_plain(run)).items()})

    def _resume(self) -> str | None:
        if not self.earlier:
            return None
        known = str(self.earlier["id"])
        try:
            self.client.update_run(known, status="RUNNING")
        except self.errors:
            log.warning("%s: %s has no run %s; a new one begins", self.key, self.store, known)
            self.sent.clear()
            return None
        return known

    def _begin(self, experiment: str, run_name: str, directory: Path) -> str:
        found = self.client.get_experiment_by_name(experiment)
        place = (self.store / ARTIFACTS).as_uri()
        number = found.experiment_id if found else self.client.create_experiment(experiment, artifact_location=place)
        tags = {"directory": os.path.relpath(directory)}
        return str(self.client.create_run(number, run_name=run_name, tags=tags).info.run_id)

    def _set_params(self, values: Mapping[str, str]) -> None:
        """MLflow never changes a parameter: what resume= has changed becomes a tag."""
        before = self.client.get_run(self.id).data.params
        new = [self.entities.Param(name, value) for name, value in values.items() if name not in before]
        changed = [
            self.entities.RunTag(name, value) for name, value in values.items() if before.get(name, value) != value
        ]
        with files.locked(self.store, wait=True):
            for start in range(0, len(new), 100):  # as many as it takes at once
                self.client.log_batch(self.id, params=new[start : start + 100])
            self.client.log_batch(self.id, tags=changed)

    def _send_rows(self) -> None:
        now = int(time.time() * 1000)
        while self.rows:
            count = size = 0  # rows that fit into one batch
            while count < len(self.rows) and size + len(self.rows[count][1]) <= BATCH:
                size += len(self.rows[count][1])
                count += 1
            metrics = [
                self.entities.Metric(tag, value, now, step)
                for step, row in self.rows[:count]
                for tag, value in row.items()
            ]
            with files.locked(self.store, wait=True):
                self.client.log_batch(self.id, metrics=metrics)
            self.take(count)

    def _send_picture(self, step: int, tag: str, picture: Picture) -> None:
        with files.locked(self.store, wait=True):
            self.client.log_image(self.id, picture, key=tag, step=step)

    def _end(self, numbers: Mapping[str, float], texts: Mapping[str, str], step: int, failed: bool) -> None:
        now = int(time.time() * 1000)
        with files.locked(self.store, wait=True):
            self.client.log_batch(
                self.id,
                metrics=[self.entities.Metric(name, value, now, step) for name, value in numbers.items()],
                tags=[self.entities.RunTag(name, value) for name, value in texts.items()],
            )
            self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")

    def _interrupt(self) -> None:
        with files.locked(self.store, wait=True):
            self.client.set_terminated(self.id, "KILLED")


@build.register
def _(config: schema.MLflow, run: schema.RunConfig, directory: Path) -> Tracker:
    return MLflowTracker(config, run, directory)


class WandBTracker(_Waiting):
    """Into a file in the run's directory, one for each time that it was started or resumed, all of one id. Rows count
    on over them; what curves are drawn against is `step`."""

    def __init__(self, config: schema.WandB, run: schema.RunConfig, directory: Path) -> None:
        super().__init__(config, directory)
        wandb = library(config)
        self.errors = (wandb.errors.Error, OSError)
        self.written = self.earlier.get("rows", 0)
        self.image = wandb.Image
        try:
            self.run = wandb.init(
                project=config.project,
                name=run.run_name,
                id=self.earlier.get("id"),
                resume="allow",
                dir=directory,
                mode="offline",
                config=_plain(run),
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    disable_git=True,
                    save_code=False,
                    x_save_requirements=False,
                    x_transaction_log_flush_interval=FLUSH,
                    x_disable_meta=True,
                    x_disable_stats=True,
                ),
            )
        except self.errors as error:
            raise RunFailed(f"{self.key}: cannot begin ({one_line(error)})") from error
        self.run.define_metric("*", step_metric="step")
        self.id = self.run.id
        self.write_note()

    def _send_rows(self) -> None:
        while self.rows:
            step, values = self.rows[0]
            self._log({**values, "step": step})
            self.take(1)

    def _send_picture(self, step: int, tag: str, picture: Picture) -> None:
        self._log({tag: self.image(picture), "step": step})

    def _log(self, row: Mapping[str, Any]) -> None:
        self.run.log(dict(row), step=self.written)
        self.written += 1

    def _end(self, numbers: Mapping[str, float], texts: Mapping[str, str], step: int, failed: bool) -> None:
        self.run.summary.update({**numbers, **texts})
        self.run.finish(exit_code=int(failed))

    def _interrupt(self) -> None:
        self.run.finish(exit_code=1)


@build.register
def _(config: schema.WandB, run: schema.RunConfig, directory: Path) -> Tracker:
    return WandBTracker(config, run, directory)


def is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _plain(run: schema.RunConfig) -> dict[str, Any]:
    """The configuration as nested values, without what a call is to do with a run that exists."""
    call = ("evaluate", "resume", "recommend", "explain", "use", "allow")
    return {name: value for name, value in dataclasses.asdict(run).items() if name not in call}
