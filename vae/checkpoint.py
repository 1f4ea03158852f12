"""checkpoint.pt: everything that a run needs to go on, and that `load_run` needs to give the model back.

It holds tensors, numbers, strings, lists and dicts only, so that it loads with weights_only=True."""

import dataclasses
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from vae import config as conf
from vae import files, objective, untrusted
from vae.config import InputError
from vae.model import VAE
from vae.objective import Likelihood
from vae.schema import RunConfig
from vae.terminal import say

FILE = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = 4
PARTS = ("data", "model", "likelihood", "optimizer", "schedule", "recent", "recorder")
LARGEST_SIDE = 2**16  # pixels


class Stateful(Protocol):
    """What can be saved in the middle of a run and taken up again."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Any, /) -> Any: ...


def save(
    directory: Path,
    config: RunConfig,
    shape: tuple[int, int, int],
    step: int,
    kl_weight: float,
    parts: Mapping[str, Stateful],
) -> None:
    """Save the state after `step`. The checkpoint before it stays until this one is whole on the disk, and after."""
    content = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "shape": list(shape),
        "step": step,
        "kl_weight": kl_weight,
        **{name: parts[name].state_dict() for name in PARTS},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.replace(directory / FILE, buffer.getvalue(), keep=directory / PREVIOUS)


def load(content: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Give every part the state that `save` took from it. Raises InputError where it is none of this part."""
    for name in PARTS:
        part = parts[name]
        try:
            if name in ("optimizer", "schedule", "recent"):
                untrusted.like(content[name], part.state_dict(), name)
            part.load_state_dict(content[name])
        except InputError:
            raise
        except Exception as error:  # whatever a state that is none of theirs does to the parts
            said = conf.one_line(error) or type(error).__name__
            raise InputError(f"checkpoint, {name}: not the state of this run ({said})") from error


def read(directory: Path) -> dict[str, Any]:
    """What `save` wrote; of two checkpoints the newer one that is whole. Raises InputError where there is none."""
    problems = []
    for path in (directory / FILE, directory / PREVIOUS):
        if not path.is_file():
            continue
        try:
            content = _read(path)
        except InputError as error:
            problems.append(str(error))
            continue
        if problems:
            say(f"{problems[0]}; going on from {path.name}, step {content['step']}")
        return content
    if problems:
        raise InputError(problems[0])
    raise InputError(
        f"{directory / FILE}: no such file; name the directory of a run that has reached its first checkpoint"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        untrusted.archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about what is refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each have their own
        said = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{path}: not a readable checkpoint ({said[0]})") from error
    found = content.get("format") if isinstance(content, dict) else type(content).__name__
    if not isinstance(found, int) or found != FORMAT:
        raise InputError(f"{path}: checkpoint format {found}; this version reads format {FORMAT}")
    try:
        untrusted.bounded(content, path.stat().st_size)
        _check(content)
    except (ValueError, InputError) as error:
        raise InputError(f"{path}: {error}") from error
    return content


def _check(content: dict[str, Any]) -> None:
    """The structure of a checkpoint, and that its weights are those of the model in its own configuration. That model
    is built without memory for its weights: nothing is taken at its word before the tensors agree."""
    untrusted.names(content, ("format", "config", "shape", "step", "kl_weight", *PARTS), "checkpoint")
    shape = content["shape"]
    if not isinstance(shape, list) or len(shape) != 3:
        raise ValueError(f"shape: is {shape}, must be channels, height and width")
    for side in shape:
        untrusted.number(side, "shape", least=1, whole=True)
        if side > LARGEST_SIDE:
            raise ValueError(f"shape: {side} is out of range")
    untrusted.number(content["step"], "step", least=1, whole=True)
    untrusted.number(content["kl_weight"], "kl_weight", least=0)
    untrusted.past(content["recorder"])
    if not isinstance(content["config"], dict):
        raise ValueError("config: must be a dict")
    with torch.device("meta"):
        likelihood, model = _build(content)
    untrusted.tensors(content["model"], model.state_dict(), "model")
    untrusted.tensors(content["likelihood"], likelihood.state_dict(), "likelihood")


def _build(content: dict[str, Any]) -> tuple[Likelihood, VAE]:
    config = conf.load(content["config"])
    channels, height, width = content["shape"]
    shape = (channels, height, width)
    likelihood = objective.build(config.objective, config.model.output, shape)
    return likelihood, VAE(config.model, likelihood.link_name, shape)


def restore(content: dict[str, Any]) -> tuple[VAE, Likelihood]:
    """The trained model and its likelihood, on the CPU, in eval mode and without gradients."""
    likelihood, model = _build(content)
    likelihood.load_state_dict(content["likelihood"])
    model.load_state_dict(content["model"])
    return model.eval().requires_grad_(False), likelihood.eval()


def load_run(directory: str | Path) -> VAE:
    """The trained model of a run directory, ready to encode, decode and sample on the CPU."""
    return restore(read(Path(directory)))[0]
