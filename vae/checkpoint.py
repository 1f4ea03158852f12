"""checkpoint.pt: everything that a run needs to go on, and that `load_run` needs to give the model back.

It holds tensors, numbers, strings, lists and dicts only, so that it loads with weights_only=True."""

import dataclasses
import io
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from vae import config as conf
from vae import files, objective
from vae.config import InputError
from vae.model import VAE
from vae.objective import Likelihood
from vae.schema import RunConfig

FILE = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
FORMAT = 2


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
        **{name: part.state_dict() for name, part in parts.items()},
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.replace(directory / FILE, buffer.getvalue(), keep=directory / PREVIOUS)


def load(content: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Give every part the state that `save` took from it."""
    for name, part in parts.items():
        part.load_state_dict(content[name])


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
            print(f"{problems[0]}; going on from {path.name}, step {content['step']}", file=sys.stderr)
        return content
    if problems:
        raise InputError(problems[0])
    raise InputError(
        f"{directory / FILE}: no such file; name the directory of a run that has reached its first checkpoint"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, pickle and zipfile each have their own
        raise InputError(f"{path}: not a readable checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: checkpoint format {found}; this version reads format {FORMAT}")
    return content


def restore(content: dict[str, Any]) -> tuple[VAE, Likelihood]:
    """The trained model and its likelihood, on the CPU, in eval mode and without gradients."""
    config = conf.load(content["config"])
    channels, height, width = content["shape"]
    shape = (channels, height, width)
    likelihood = objective.build(config.objective, config.model.output, shape)
    likelihood.load_state_dict(content["likelihood"])
    model = VAE(config.model, likelihood.link_name, shape)
    model.load_state_dict(content["model"])
    return model.eval().requires_grad_(False), likelihood.eval()


def load_run(directory: str | Path) -> VAE:
    """The trained model of a run directory, ready to encode, decode and sample on the CPU."""
    return restore(read(Path(directory)))[0]
