"""checkpoint.pt: everything that a run needs to be resumed, and that `vae.load_run` needs to give it back.

It holds tensors, numbers, strings, lists and dicts only, so that it loads with weights_only=True. Its format has a
number; files of earlier formats are read."""

import dataclasses
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from vae.config.errors import InputError
from vae.config.load import GROUPS, load_saved, located
from vae.config.schema import CustomModel, CustomObjective, RunConfig
from vae.data.fingerprint import Reading
from vae.measure.watch import Trajectory
from vae.models import likelihood as likelihoods
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.output.recorder import RecorderState
from vae.runtime import commands, files, untrusted
from vae.runtime import directory as names
from vae.runtime.terminal import printable

log = logging.getLogger(__name__)

FORMAT = 10
READABLE = range(4, FORMAT + 1)
MAX_SIDE = 2**16  # pixels


class Stateful(Protocol):
    """What can be saved in the middle of a run and restored. Loading raises ValueError where a state is none of its
    own."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class Parts:
    """The parts of a run whose state a checkpoint holds, each under its name here. The recorder restores itself when it
    is made: only the leader of several processes has one."""

    data: Stateful
    model: Stateful
    likelihood: Stateful
    optimizer: Stateful
    schedule: Stateful
    cure: Stateful
    stopping: Stateful
    recent: Stateful
    clock: Stateful

    def states(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name).state_dict() for field in dataclasses.fields(self)}

    def restore(self, saved: "Checkpoint") -> None:
        """Give every part its state back. Raises InputError where it is none of this part."""
        for field in dataclasses.fields(self):
            part, state = getattr(self, field.name), saved.parts[field.name]
            with untrusted.restoring(field.name):
                if isinstance(part, nn.Module):  # of which torch raises RuntimeError, in several lines
                    untrusted.tensors(state, part.state_dict(), field.name)
                part.load_state_dict(state)


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` steps."""

    config: RunConfig
    shape: tuple[int, int, int]  # (C, H, W) of an image
    step: int
    kl_weight: float  # at that step
    parts: dict[str, Any]  # states, by the names of Parts
    recorder: dict[str, Any]  # a RecorderState

    def content(self) -> bytes:
        """Of the file."""
        found = {
            "format": FORMAT,
            "config": dataclasses.asdict(self.config),
            "shape": list(self.shape),
            "step": self.step,
            "kl_weight": self.kl_weight,
            **self.parts,
            "recorder": self.recorder,
        }
        buffer = io.BytesIO()
        torch.save(found, buffer)
        return buffer.getvalue()

    @property
    def reading(self) -> Reading:
        return Reading.of(self.parts["data"])

    def model(self) -> tuple[VAE, Likelihood]:
        """The trained model and its likelihood, on the CPU, in eval mode and without gradients."""
        likelihood, model = _build(self.config, self.shape)
        likelihood.load_state_dict(self.parts["likelihood"])
        model.load_state_dict(self.parts["model"])
        return model.eval().requires_grad_(False), likelihood.eval()


class Saving:
    """Saves the checkpoints of the run in `directory` while it trains on: what is saved is taken at once, but the disk
    is waited for in a thread. What goes wrong there is raised by the next `save` or `wait`, or at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.thread = ThreadPoolExecutor(1, "checkpoint")
        self.last: Future[None] | None = None

    def save(self, checkpoint: Checkpoint, first: Callable[[], None], is_best: bool = False) -> None:
        """The checkpoint before it stays until this one is whole on the disk, and after. `first`: what has to be on the
        disk before it; `is_best`: it is kept beside as well, for early stopping."""
        content = checkpoint.content()
        self.wait()
        self.last = self.thread.submit(self._write, content, first, is_best)

    def _write(self, content: bytes, first: Callable[[], None], is_best: bool) -> None:
        first()
        files.replace(self.directory / names.CHECKPOINT, content, keep=self.directory / names.PREVIOUS_CHECKPOINT)
        if is_best:  # a run that is resumed from here makes it again
            files.replace(self.directory / names.BEST_CHECKPOINT, content)

    def wait(self) -> None:
        """Until all that was saved is on the disk."""
        last, self.last = self.last, None
        if last is not None:
            last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *failure: object) -> None:
        self.thread.shutdown()
        if kind is None:
            self.wait()
        elif self.last is not None and (lost := self.last.exception()) is not None:  # beside what has ended the run
            log.warning("the last checkpoint is not on the disk: %s", lost)


def best(directory: Path, step: int, allow: Sequence[str]) -> Checkpoint | None:
    """The checkpoint of `step`, at which the loss of validation images was lowest; None, with a warning, where it is
    not there or cannot be read."""
    path = directory / names.BEST_CHECKPOINT
    try:
        found = _read(path, allow, groups=("model", "objective"))
    except InputError as error:
        log.warning("%s; kept is the last model, not that of step %d, the best", error, step)
        return None
    if found.step != step:
        log.warning("%s: is of step %d; kept is the last model, not that of step %d, the best", path, found.step, step)
        return None
    return found


def read(directory: Path, allow: Sequence[str] = (), groups: Sequence[str] = tuple(GROUPS)) -> Checkpoint:
    """What was saved; of two checkpoints the newer one that is whole. Raises InputError where there is none, or where
    it wants a module that is not among those to `allow`; of `groups`, those whose parts will be made."""
    problems = []
    for path in (directory / names.CHECKPOINT, directory / names.PREVIOUS_CHECKPOINT):
        if not path.is_file():
            continue
        try:
            found = _read(path, allow, groups)
            found = dataclasses.replace(found, config=located(found.config, commands.started_in(directory)))
        except InputError as error:
            problems.append(str(error))
            continue
        if problems:
            log.warning("%s; continuing from %s, step %d", problems[0], path.name, found.step)
        return found
    if problems:
        raise InputError(problems[0])
    if not (directory / names.CONFIG).exists():
        what = "is no run's directory" if directory.exists() else "no such directory"
        raise InputError(f"{directory}: {what}; name a run's, as in outputs/<date>/<time>_<run_name>")
    raise InputError(
        f"{directory / names.CHECKPOINT}: no such file; name the directory of a run that has reached its first "
        "checkpoint"
    )


def _read(path: Path, allow: Sequence[str], groups: Sequence[str]) -> Checkpoint:
    try:
        untrusted.archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each have their own
        reason = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{path}: not a readable checkpoint ({reason[0]})") from error
    found = content.get("format") if isinstance(content, dict) else content
    if not isinstance(found, int) or found not in READABLE:
        said = found if isinstance(found, int) else type(found).__name__
        raise InputError(f"{path}: checkpoint format {said}; this version reads formats {READABLE[0]} to {FORMAT}")
    try:
        untrusted.bounded(content, path.stat().st_size)
        for older in range(found, FORMAT):
            content = _NEWER[older](content)
        return _checked(content, allow, groups)
    except (ValueError, InputError) as error:
        raise InputError(printable(f"{path}: {error}")) from error


def _checked(content: dict[str, Any], allow: Sequence[str], groups: Sequence[str]) -> Checkpoint:
    """The structure of a checkpoint, and that its weights are those of the model in its own configuration. That model
    is built without memory for its weights: nothing is taken at its word before the tensors agree."""
    parts = [field.name for field in dataclasses.fields(Parts)]
    untrusted.names(content, ("format", "config", "shape", "step", "kl_weight", *parts, "recorder"), "checkpoint")
    shape = content["shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise ValueError(f"shape: is {shape}, must be channels, height and width")
    for side in shape:
        untrusted.number(side, "shape", minimum=1, whole=True)
        if side > MAX_SIDE:
            raise ValueError(f"shape: {side} is out of range")
    untrusted.number(content["step"], "step", minimum=1, whole=True)
    untrusted.number(content["kl_weight"], "kl_weight", minimum=0)
    for name in ("data", "schedule", "stopping"):
        untrusted.plain(content[name], name)
    RecorderState.of(content["recorder"])
    Reading.of(content["data"])
    found = Checkpoint(
        config=load_saved(content["config"], allow, groups),
        shape=(shape[0], shape[1], shape[2]),
        step=content["step"],
        kl_weight=content["kl_weight"],
        parts={name: content[name] for name in parts},
        recorder=content["recorder"],
    )
    # A user's own networks, which are allowed here, may not bear the meta device.
    own = isinstance(found.config.model, CustomModel) or isinstance(found.config.objective, CustomObjective)
    try:
        with nullcontext() if own else torch.device("meta"):
            likelihood, model = _build(found.config, found.shape)
    except (RuntimeError, TypeError) as error:  # torch's, for sizes beyond 64 bits
        reason = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"config: its model cannot be built ({reason[0]})") from error
    untrusted.tensors(content["model"], model.state_dict(), "model")
    untrusted.tensors(content["likelihood"], likelihood.state_dict(), "likelihood")
    return found


def rehearse(config: RunConfig, shape: tuple[int, int, int], parts: Parts) -> None:
    """Raises InputError where a run with parts of the user's own would save what cannot be read again: before it
    trains."""
    buffer = io.BytesIO()
    try:
        torch.save(parts.states(), buffer)
        size = buffer.tell()
        buffer.seek(0)
        states = torch.load(buffer, map_location="cpu", weights_only=True)
        untrusted.bounded(states, size)
        likelihood, model = _build(config, shape)
        untrusted.tensors(states["model"], model.state_dict(), "model")
        untrusted.tensors(states["likelihood"], likelihood.state_dict(), "likelihood")
    except InputError:
        raise
    except Exception as error:  # torch and pickle each have their own
        said = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"the state of your own parts cannot be saved and read again ({said[0]})") from error


def _from_format_4(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 4, which had the times with the recorder and one count of steps in the optimiser. What is
    missing or of another kind is left for the checks of today's format."""
    found = dict(content)
    recorder, optimizer = found.get("recorder"), found.get("optimizer")
    if isinstance(recorder, dict):
        recorder = dict(recorder)
        found["clock"] = {name: recorder.pop(name, None) for name in ("seconds", "training_seconds")}
        logged = recorder.pop("logged", None)
        recorder["logged_step"], recorder["logged_seconds"] = (
            logged if isinstance(logged, list) and len(logged) == 2 else (0, 0.0)
        )
        found["recorder"] = recorder
    if isinstance(optimizer, dict) and list(optimizer) == ["count"]:  # sgd without momentum
        weights = found["model"].values() if isinstance(found.get("model"), dict) else ()
        found["optimizer"] = {
            f"velocity.{i}": torch.zeros_like(weight)
            for i, weight in enumerate(weights)
            if isinstance(weight, torch.Tensor)
        }
    elif isinstance(optimizer, dict) and "count" in optimizer:
        steps = {
            name.replace("mean", "step"): optimizer["count"] for name in optimizer if str(name).startswith("mean.")
        }
        found["optimizer"] = {name: value for name, value in optimizer.items() if name != "count"} | steps
    return found


def _from_format_5(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 5, whose watch knew fewer events, and whose history had no reconstruction term: what was
    not saved is not known."""
    found = dict(content)
    recorder, schedule = found.get("recorder"), found.get("schedule")
    if isinstance(recorder, dict):
        recorder = dict(recorder)
        watch, history = recorder.get("watch"), recorder.get("history")
        if isinstance(watch, dict) and "collapsed_at" in watch:
            same = {name: watch.get(name) for name in ("weight", "peak", "unused", "out")}
            events = dataclasses.asdict(
                Trajectory(collapsed_at_step=watch["collapsed_at"], recovered_at_step=watch.get("recovered_at"))
            )
            recorder["watch"] = same | {
                "low": 0.1,
                "high": watch.get("peak"),
                **dict.fromkeys(("mse", "free", "trough", "high_step", "peak_step", "trough_step"), 0),
                **events,
            }
        if isinstance(history, dict) and "reconstruction" not in history:
            steps, weights = history.get("step"), history.get("kl_weight")
            if isinstance(steps, torch.Tensor):
                unknown = torch.full(steps.shape, torch.nan, dtype=torch.float64)
                recorder["history"] = history | {"reconstruction": unknown}
            watch = recorder.get("watch")
            if isinstance(weights, torch.Tensor) and weights.is_floating_point() and isinstance(watch, dict):
                begun = (weights > 0).flatten().nonzero()
                if len(begun) and isinstance(steps, torch.Tensor) and steps.shape == weights.shape:
                    first = int(steps.flatten()[begun[0]].nan_to_num())
                    recorder["watch"] = watch | {"max_kl_weight": float(weights.max()), "kl_began_at_step": first}
        found["recorder"] = recorder
    if isinstance(schedule, dict) and set(schedule) == {"smoothed", "latched_at"}:
        found["schedule"] = schedule | {"lowest": None, "lowest_at": None}
    return found


def _from_format_6(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 6, which knew no early stopping."""
    return {**content, "stopping": {"best": None, "best_step": 0, "waited": 0}}


def _from_format_7(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 7, which knew no cures, and did not say how the images were read."""
    data = content.get("data")
    read = {"data": data | {"range": None, "classes": None, "type": _type(data)}} if isinstance(data, dict) else {}
    return {**content, **read, "cure": {}}


def _from_format_8(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 8, whose cure "aggressive" did not count the decoder's steps."""
    cure = content.get("cure")
    if isinstance(cure, dict) and "is_decoders_turn" in cure:
        return {**content, "cure": {**cure, "decoder_steps": 0}}
    return content


def _from_format_9(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of format 9, whose early stopping compared ELBOs, whatever the KL weight, and which did not know the
    validation images again."""
    data = content.get("data")
    if isinstance(data, dict):
        content = {**content, "data": {**data, "validation": None}}
    stopping = content.get("stopping")
    if not isinstance(stopping, dict):
        return content
    elbo = stopping.get("best")
    loss = -elbo if isinstance(elbo, float) else elbo
    return {**content, "stopping": {**stopping, "best": loss, "weight": 1.0}}


def _type(data: dict[str, Any]) -> str:
    train = data.get("train")
    return str(train.get("type")) if isinstance(train, dict) else "unknown"


_NEWER = {
    4: _from_format_4,
    5: _from_format_5,
    6: _from_format_6,
    7: _from_format_7,
    8: _from_format_8,
    9: _from_format_9,
}


def _build(config: RunConfig, shape: tuple[int, int, int]) -> tuple[Likelihood, VAE]:
    likelihood = likelihoods.build(config.objective, config.model.output, shape)
    return likelihood, VAE(config.model, likelihood, shape, config.seed, config.cure)
