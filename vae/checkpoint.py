"""checkpoint.pt: everything that a run needs to go on, and that `load_run` needs to give the model back.

It holds tensors, numbers, strings, lists and dicts only, so that it loads with weights_only=True."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from vae import config as conf
from vae import files, objective
from vae.anneal import Schedule
from vae.config import InputError
from vae.model import VAE
from vae.objective import Likelihood
from vae.schema import RunConfig

FILE = "checkpoint.pt"
FORMAT = 1


def save(
    directory: Path,
    config: RunConfig,
    step: int,
    model: VAE,
    likelihood: nn.Module,
    optimizer: Optimizer,
    schedule: Schedule,
    kl_weight: float,
) -> None:
    content = {
        "format": FORMAT,
        "config": dataclasses.asdict(config),
        "shape": list(model.shape),
        "step": step,
        "model": model.state_dict(),
        "likelihood": likelihood.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "kl_weight": kl_weight,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    files.replace(directory / FILE, buffer.getvalue())


def read(directory: Path) -> dict[str, Any]:
    """What `save` wrote. Raises InputError where there is no such file, or it is something else."""
    path = directory / FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the directory of a run that has reached its first evaluation")
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
