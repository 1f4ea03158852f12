"""`python run.py export=DIR format=onnx|safetensors|torchscript`: a finished run for other programs. What is written is
read again and held against the model before it takes its place."""

import dataclasses
import importlib.util
import io
import json
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from vae.cli import failures
from vae.cli.session import Job
from vae.config.errors import InputError
from vae.config.load import allowed_modules, revise
from vae.config.schema import EXPORTS, RunConfig
from vae.models.likelihood import Likelihood
from vae.models.vae import VAE
from vae.runtime import directory as names
from vae.runtime import files
from vae.runtime.rng import generator
from vae.runtime.terminal import show, with_progress
from vae.training import checkpoint
from vae.training.checkpoint import Checkpoint

TOLERANCE = 1e-3  # of the largest value that the model gives
NEEDED = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "safetensors": ("safetensors",), "torchscript": ()}


class Encoder(nn.Module):
    """Images (B, C, H, W), floats in [0, 1], to mu and sigma, each (B, d)."""

    inputs, outputs = "images", ("mu", "sigma")

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.model.encode(images)
        return posterior.mu, posterior.log_sigma.exp()

    def example(self, count: int) -> Tensor:
        return torch.rand(count, *self.model.shape, generator=generator(0, "export"))


class Decoder(nn.Module):
    """Codes (B, d) to mean images (B, C, H, W)."""

    inputs, outputs = "z", ("images",)

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> tuple[Tensor]:
        return (self.model.decode(z),)

    def example(self, count: int) -> Tensor:
        return torch.randn(count, self.model.latent_dim, generator=generator(0, "export"))


Part = Encoder | Decoder


def export(job: Job, call: RunConfig, composed: DictConfig) -> None:
    """Into the folder `export` of the run. Raises InputError where the format needs what is not installed, or cannot
    hold this model."""
    directory, kind = job.directory, call.use.format
    if kind not in EXPORTS:
        given = f"format={kind}" if kind else "format"
        raise InputError(f"{given}: export= writes one of {', '.join(EXPORTS)}; say which")
    missing = [name for name in NEEDED[kind] if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"format={kind}: {missing[0]} is not installed; pip install '.[export]' brings it")
    with failures.machine_errors(directory):
        saved = checkpoint.read(directory, allowed_modules(call))
        revise(saved.config, composed, job.keys, ())
        model, likelihood = saved.model()
        folder = directory / names.EXPORT
        if folder.is_symlink():
            raise InputError(f"{folder}: is a link to another place; remove it")
        folder.mkdir(exist_ok=True)
        if kind == "safetensors":
            written = [_safetensors(saved, model, likelihood, folder / "model.safetensors")]
        else:
            written = _graphs(kind, model, folder)
    show("\n".join(f"export: {os.path.relpath(path)}" for path in written))


def _graphs(kind: str, model: VAE, folder: Path) -> list[Path]:
    """The encoder and the decoder as a graph each, for any number of images."""
    parts: dict[str, Part] = {}
    if model.has_code:
        parts["encoder"] = Encoder(model).eval()
    if model.is_autoregressive and not parts:
        raise InputError(f"format={kind}: a model without a code whose decoder draws pixel by pixel has no graph")
    if model.is_autoregressive:
        show("export: the decoder draws images pixel by pixel, which is no graph: the encoder alone")
    else:
        parts["decoder"] = Decoder(model).eval()
    make, run, suffix = _GRAPHS[kind]
    written = []
    for name, part in with_progress(parts.items(), "exporting"):
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")  # torch calls one of its own formats old, and warns of its own code
                content = make(part)
                _check(name, part, run(content, part))
        except InputError:
            raise
        except Exception as error:  # torch's exporters have many of their own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"format={kind}: cannot hold this {name} ({reason[:300]})") from error
        written.append(folder / f"{name}{suffix}")
        files.replace(written[-1], content)
    return written


def _onnx(part: Part) -> bytes:
    for name in ("onnx_ir", "onnxscript"):  # which report every pass over the graph
        logging.getLogger(name).setLevel(logging.WARNING)
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        part,
        (part.example(2),),
        dynamo=True,
        input_names=[part.inputs],
        output_names=list(part.outputs),
        dynamic_shapes=({0: batch},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()


def _run_onnx(content: bytes, part: Part) -> list[Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return [
        torch.from_numpy(np.asarray(output)) for output in session.run(None, {part.inputs: part.example(5).numpy()})
    ]


def _torchscript(part: Part) -> bytes:
    content = io.BytesIO()
    torch.jit.save(torch.jit.trace(part, part.example(2)), content)
    return content.getvalue()


def _run_torchscript(content: bytes, part: Part) -> list[Tensor]:
    return list(torch.jit.load(io.BytesIO(content))(part.example(5)))


Graph = tuple[Callable[[Part], bytes], Callable[[bytes, Part], list[Tensor]], str]
_GRAPHS: dict[str, Graph] = {
    "onnx": (_onnx, _run_onnx, ".onnx"),
    "torchscript": (_torchscript, _run_torchscript, ".torchscript.pt"),
}


def _check(name: str, part: Part, found: list[Tensor]) -> None:
    """Raises InputError where the graph computes something else, on another number of images than it was made with."""
    for output, expected, given in zip(part.outputs, part(part.example(5)), found, strict=True):
        if expected.shape != given.shape:
            raise InputError(
                f"the exported {name}'s {output} has shape {tuple(given.shape)}, not {tuple(expected.shape)}"
            )
        apart = float((expected - given).abs().max())
        if not apart <= TOLERANCE * max(1.0, float(expected.abs().max())):
            raise InputError(f"the exported {name}'s {output} is {apart:.2g} away from the model's")


def _safetensors(saved: Checkpoint, model: VAE, likelihood: Likelihood, path: Path) -> Path:
    """The weights by their names, and in the metadata what the model is made of."""
    from safetensors.torch import load, save

    states = {"model": model.state_dict(), "likelihood": likelihood.state_dict()}
    tensors = {f"{part}.{name}": value.contiguous() for part, state in states.items() for name, value in state.items()}
    metadata = {
        "config": json.dumps(dataclasses.asdict(saved.config)),
        "shape": json.dumps(list(saved.shape)),
        "classes": json.dumps(saved.reading.classes),
        "step": str(saved.step),
    }
    content = save(tensors, metadata)
    again = load(content)
    if again.keys() != tensors.keys() or not all(torch.equal(again[name], value) for name, value in tensors.items()):
        raise InputError("the exported weights are not the model's")
    files.replace(path, content)
    return path
