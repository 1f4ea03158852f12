"""`export=`: what other programs load computes what the model does."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK

import vae

Program = Callable[..., tuple[int, str, str]]
SMALL = ["model.hidden=8", "model.channels=[4,4]", "model.latent_dim=3"]
EXPORTERS = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.fixture
def run(digits: list[str], finished: Callable[..., Path]) -> Path:
    return finished("mine", *digits, *SMALL)


@pytest.mark.skipif(not EXPORTERS, reason="needs the extra `export`")
def test_onnx(run: Path, program: Program) -> None:
    import onnxruntime

    status, out, err = program("export=mine", "format=onnx")
    assert status == 0, err
    assert out.splitlines() == ["export: mine/export/encoder.onnx", "export: mine/export/decoder.onnx"]
    model = vae.load_run(run)
    images = torch.rand(7, *model.shape)
    encoder, decoder = (
        onnxruntime.InferenceSession(run / "export" / f"{part}.onnx") for part in ("encoder", "decoder")
    )
    mu, sigma = encoder.run(["mu", "sigma"], {"images": images.numpy()})
    expected = model.encode(images)
    assert np.abs(mu - expected.mu.numpy()).max() < 1e-4
    assert np.abs(sigma - expected.log_sigma.exp().numpy()).max() < 1e-4
    (decoded,) = decoder.run(["images"], {"z": mu})
    assert np.abs(decoded - model.decode(mu).numpy()).max() < 1e-4


def test_torchscript(run: Path, program: Program) -> None:
    status, _, err = program("export=mine", "format=torchscript")
    assert status == 0, err
    model = vae.load_run(run)
    images = torch.rand(7, *model.shape)
    with pytest.warns(FutureWarning):
        encoder = torch.jit.load(run / "export" / "encoder.torchscript.pt")
    assert torch.allclose(encoder(images)[0], model.encode(images).mu, atol=1e-5)


def test_safetensors(run: Path, program: Program) -> None:
    safetensors = pytest.importorskip("safetensors")
    status, _, err = program("export=mine", "format=safetensors")
    assert status == 0, err
    with safetensors.safe_open(run / "export" / "model.safetensors", "pt") as file:
        metadata = file.metadata()
        weights = {name.removeprefix("model."): file.get_tensor(name) for name in file.keys() if "model." in name}  # noqa: SIM118
    model = vae.load_run(run).model
    assert json.loads(metadata["shape"]) == list(model.shape)
    assert json.loads(metadata["config"])["model"]["hidden"] == 8
    assert weights.keys() == model.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


def test_a_decoder_that_draws_pixels_is_left_out(digits: list[str], program: Program, tmp_path: Path) -> None:
    small = ["model=pixelcnn_vae", "model.channels=4", "model.kernels=[3]", "model.encoder_widths=[8]"]
    binary = ["objective=bernoulli", "dataset.binarize=static"]
    assert program(*QUICK, *digits, *small, *binary, "hydra.run.dir=mine")[0] == 0
    status, out, err = program("export=mine", "format=torchscript")
    assert status == 0, err
    assert "the encoder alone" in out
    assert [path.name for path in (tmp_path / "mine" / "export").iterdir()] == ["encoder.torchscript.pt"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export=mine"], "format: export= writes one of onnx, safetensors, torchscript; say which"),
        (["export=mine", "format=csv"], "export= writes one of"),
        (["encode=mine", "format=onnx"], "encode= writes one of csv, npz, parquet"),
        (
            ["export=mine", "format=onnx", "seed=3"],
            "seed: cannot be changed for a run that exists, nor can any other",
        ),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], says: str, run: Path, program: Program) -> None:
    status, out, err = program(*arguments)
    assert (status, out) == (1, "")
    assert says in err.splitlines()[-1]


def test_a_graph_that_computes_something_else_is_refused(
    run: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vae.cli import export

    honest = export._run_torchscript
    graph = (export._torchscript, lambda content, part: [out + 0.1 for out in honest(content, part)], ".torchscript.pt")
    monkeypatch.setitem(export._GRAPHS, "torchscript", graph)
    status, _, err = program("export=mine", "format=torchscript")
    assert status == 1
    assert "mu is 0.1 away from the model's" in err.splitlines()[-1]
    assert not list((run / "export").iterdir())
