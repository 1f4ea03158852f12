"""`python run.py resume=DIR`: continue an interrupted run."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vae.cli.recommend import chosen
from vae.cli.session import Job
from vae.cli.train import alone_in, report_on, train_together
from vae.config import schema
from vae.config.errors import InputError
from vae.config.load import (
    GROUPS,
    PLACES,
    allowed_modules,
    flat,
    is_below,
    load_saved,
    located,
    revise,
)
from vae.config.schema import RunConfig
from vae.output import record as records
from vae.runtime import commands, files
from vae.runtime import directory as names
from vae.runtime.signals import continued_by
from vae.training import checkpoint
from vae.training import schedule as schedules

log = logging.getLogger(__name__)

SAME_RUN = (
    "train.steps",
    *(f"evaluation.{name}" for name in ("batch_size", "probe_images", "iw_samples")),
    "tracking",
    *PLACES,
)
AHEAD = (  # what changes the steps that lie ahead
    "anneal",
    *(f"train.{name}" for name in ("lr", "lr_schedule", "warmup_steps", "milestones", "decay", "max_grad_norm")),
    *(
        f"train.{name}"
        for name in ("device", "threads", "cuda_graph", "precision", "log_every", "eval_every", "checkpoint_every")
    ),
)
CHANGEABLE = (*SAME_RUN, *AHEAD)


def resume_run(job: Job, call: RunConfig, composed: DictConfig) -> dict[str, Any]:
    """Continue the run in the job's directory from its last checkpoint, or from its start where it has none yet, with
    its own configuration; its record, flat. Of the keys given on the command line only those of CHANGEABLE may differ.
    With those of SAME_RUN it stays the same run, to the bit; those of AHEAD hold from here on, and are noted. A run
    that was cut between its record and its report gets the report."""
    with continued_by(commands.resume, job.directory):
        config, record = _resumed(job, call, composed)
        report_on(job, config)
    return record


def _resumed(job: Job, call: RunConfig, composed: DictConfig) -> tuple[RunConfig, dict[str, Any]]:
    directory, allow = job.directory, allowed_modules(call)
    own = directory / names.CONFIG
    with alone_in(directory):
        if names.has_checkpoint(directory):
            saved = checkpoint.read(directory, allow)
            before = _revised_since(saved.config, own, allow)
        else:
            saved, before = None, _begun(own, allow)
        config = revise(before, composed, job.keys, CHANGEABLE, same_data=True)
        data = None
        if saved is None and config.choose:
            config, data = chosen(_begun_with(directory), directory, config)
        config = dataclasses.replace(config, allow=call.allow)
        step = saved.step if saved else 0
        finished = _is_finished(directory, step)
        if finished and _lacks_report_alone(job, config, step):
            return config, records.read(directory)
        _check_steps(config, before, step, finished, directory)
        changes = _changes(before, config)
        if changes:
            log.info("%s  from step %d on: %s; the steps before that were made without it", directory, step, changes)
        if saved is not None and _is_another(config.anneal, saved.config.anneal):
            saved = dataclasses.replace(saved, parts={**saved.parts, "schedule": schedules.of(config).state_dict()})
        files.remove_unfinished(directory)
        files.remove_unfinished(own.parent)
        with _put_back_if_refused(directory):
            if changes:
                _note_change(directory, f"from step {step} on: {changes}")
            if job.keys:
                files.replace(own, OmegaConf.to_yaml(OmegaConf.structured(config)).encode())
                _note_overrides(directory, job.keys, config)
            return config, train_together(config, directory, saved, data).to_dict()


def _is_finished(directory: Path, step: int) -> bool:
    """Whether the record is that of the whole run, whose checkpoint is of `step`: one that was made to go further, and
    was interrupted, has that of its shorter self."""
    if not (directory / names.RESULT).exists():
        return False
    steps = records.read(directory).get("steps")
    return not isinstance(steps, int) or steps >= step


def _lacks_report_alone(job: Job, config: RunConfig, step: int) -> bool:
    """Whether nothing else is missing of a run that has its record, and nothing else is asked for."""
    if job.keys or not job.is_single or not config.pictures.report or (job.directory / names.REPORT).exists():
        return False
    record = records.read(job.directory)
    return "verdict" in record and (record.get("best_step") is not None or config.train.steps <= step)


@contextmanager
def _put_back_if_refused(directory: Path) -> Iterator[None]:
    """A call that is refused before the run goes on leaves the settings that the run had."""
    kept = [directory / name for name in (names.CONFIG, names.OVERRIDES, names.CHANGES)]
    before = {path: path.read_bytes() if path.is_file() else None for path in kept}
    explanation = directory / names.EXPLANATION
    state = _written(directory)
    try:
        yield
    except InputError:
        if _written(directory) == state:
            for path, content in before.items():
                path.unlink(missing_ok=True) if content is None else files.replace(path, content)
        raise
    explanation.unlink(missing_ok=True)  # of the run as it was


def _written(directory: Path) -> list[tuple[str, int]]:
    """What tells whether a run has gone on: its event files, and when its checkpoint was written."""
    paths = [*directory.glob(names.EVENTS), directory / names.CHECKPOINT]
    return sorted((path.name, path.stat().st_mtime_ns) for path in paths if path.exists())


def _begun_with(directory: Path) -> list[str]:
    """The keys that a run was called with."""
    return [item.lstrip("+").partition("=")[0] for item in commands.overrides(directory) or []]


def _note_overrides(directory: Path, keys: Sequence[str], config: RunConfig) -> None:
    """What the run was called with becomes what it is resumed with: advice is made of it."""
    own = commands.overrides(directory)
    if own is not None:
        values = flat(dataclasses.asdict(config))
        options = {key: f"{key}={HydraConfig.get().runtime.choices[key]}" for key in keys if key in GROUPS}
        typed = {item.lstrip("+").partition("=")[0]: item for item in HydraConfig.get().overrides.task}
        given = [_as_given(typed.get(key, key), key, values[key]) for key in keys if key in values]
        revised = commands.changed(own, [*options.values(), *given])
        files.replace(directory / names.OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(revised)).encode())


def _as_given(typed: str, key: str, value: Any) -> str:
    """The override that gives a run this value: as it was typed, but for a path, which is another directory's there."""
    written = commands.written(value)
    plus = typed[: len(typed) - len(typed.lstrip("+"))]
    return typed if written is None else f"{plus}{key}={written}"


def _changes(before: RunConfig, after: RunConfig) -> str:
    """What a run's steps ahead have otherwise, in words; empty where they are the same."""
    old, new = (
        {key: value for key, value in flat(dataclasses.asdict(config)).items() if is_below(key, AHEAD)}
        for config in (before, after)
    )
    keys = [key for key in new | old if old.get(key) != new.get(key) and key != "anneal.kind"]
    return ", ".join(f"{key} {old.get(key, 'unset')} -> {new.get(key, 'unset')}" for key in keys)


def _is_another(anneal: schema.Anneal, before: schema.Anneal) -> bool:
    """A schedule that cannot resume from what the one before it has seen."""
    return anneal.kind != before.kind or (isinstance(anneal, schema.CustomKL) and anneal != before)


def _note_change(directory: Path, said: str) -> None:
    noted = records.changes(directory)
    files.replace(directory / names.CHANGES, "".join(f"{line}\n" for line in [*noted, said]).encode())


def _begun(own: Path, allow: Sequence[str]) -> RunConfig:
    """The configuration that a run has from Hydra, which writes overrides.yaml last."""
    directory = own.parent.parent
    if not own.is_file():
        raise InputError(f"resume={directory}: {own} is missing, so this is no run's directory")
    if not (directory / names.OVERRIDES).is_file():
        raise InputError(f"resume={directory}: ended before it had its configuration; remove it, start again")
    return _read(own, allow)


def _read(own: Path, allow: Sequence[str]) -> RunConfig:
    try:
        return located(load_saved(files.read_yaml(own), allow), commands.started_in(own.parent.parent))
    except (OSError, ValueError) as error:
        raise InputError(f"{own}: cannot be read: {error}") from error
    except InputError as error:
        raise InputError(f"{own}: {error}") from error


def _revised_since(saved: RunConfig, own: Path, allow: Sequence[str]) -> RunConfig:
    """The configuration of a checkpoint, with what a call of resume= has changed after it was written. Where
    config.yaml is damaged that of the checkpoint counts; where it is another run's, the two do not belong together."""
    try:
        now = dataclasses.asdict(_read(own, allow))
    except InputError as error:
        log.warning("%s; continuing with the configuration in the checkpoint", error)
        return saved
    after = flat(now)
    changed = [key for key in CHANGEABLE if key in after or key in now]
    merged = revise(saved, OmegaConf.create(now), changed, CHANGEABLE, same_data=True)
    for key, value in flat(dataclasses.asdict(merged)).items():
        if after.get(key) != value:
            raise InputError(
                f"{own.parent.parent}: {key} is {value} in {names.CHECKPOINT} and {after.get(key)} in {own.name}: "
                "they are of two runs"
            )
    return merged


def _check_steps(config: RunConfig, before: RunConfig, step: int, finished: bool, directory: Path) -> None:
    steps = config.train.steps
    if finished and before.train.patience is not None and records.read(directory).get("best_step") is not None:
        raise InputError(
            f"resume={directory}: has ended with the best of its evaluations, that of step {step} "
            f"(train.patience={before.train.patience}); a new run with more patience, or none, goes further"
        )
    if steps != before.train.steps and isinstance(before.cure, schema.Pretrain):
        raise InputError(
            f"train.steps={steps}: with cure={before.cure.name} the phases of the training are fractions of "
            f"train.steps={before.train.steps}; start a new run"
        )
    if finished and steps <= step:
        raise InputError(f"resume={directory}: has finished its {step} steps; train.steps=N with a larger N extends it")
    if steps < step:
        raise InputError(f"train.steps={steps}: the run in {directory} has made {step} steps already")
    if steps != before.train.steps and before.train.lr_schedule == "cosine":
        raise InputError(
            f"train.steps={steps}: with train.lr_schedule=cosine the steps already made had their learning rates from "
            f"train.steps={before.train.steps}; start a new run"
        )
