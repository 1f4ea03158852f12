"""Models of other libraries, trained by their own trainers: `make test-peers` installs these. Each is healthy with its
own loss, dead with one that is wrongly weighed, and alive again as advised."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vae
from vae.models.faces import face_of

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # theirs
]


def example(name: str, library: str | None, *arguments: int) -> dict[str, Any]:
    """What examples/elsewhere/NAME.py finds."""
    if library is not None:
        pytest.importorskip(library)
    sys.path.insert(0, str(ROOT / "examples" / "elsewhere"))
    found: dict[str, Any] = importlib.import_module(name).main(*arguments)
    return found


def dead_and_alive(found: dict[str, Any], dead: str, alive: str) -> None:
    assert (found[dead].verdict, found[dead].cause) == ("collapsed", "objective")
    assert found[dead].advised_weight is not None
    assert found[alive].verdict == "alive"
    assert all(not diagnosis.doubts for diagnosis in found.values())


@pytest.mark.peers
def test_pytorch_s_example() -> None:
    found = example("pytorch_example", None, 300)
    dead_and_alive(found, "mean and sum", "as advised")
    assert found["own loss"].verdict == "alive"


@pytest.mark.peers
def test_pythae() -> None:
    found = example("pythae_vae", "pythae", 6)
    dead_and_alive(found, "beta 784", "as advised")
    assert found["VAE"].record.identity.objective == "gaussian"  # as its own configuration says
    assert found["beta 784"].record.identity.kl_weight == 784


@pytest.mark.peers
def test_lightning() -> None:
    found = example("lightning_module", "lightning", 300)
    dead_and_alive(found, *found)


@pytest.mark.peers
def test_of_several_lightning_processes_the_first_alone_writes(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    sys.path.insert(0, str(ROOT / "examples" / "elsewhere"))
    module = importlib.import_module("lightning_module")
    monitor = module.CollapseMonitor(torch.rand(96, 1, 28, 28), likelihood="gaussian", sigma2=0.5, directory=tmp_path)
    trainer = SimpleNamespace(is_global_zero=False, global_step=10, sanity_checking=False)
    monitor.on_fit_start(trainer, None)
    monitor.on_train_batch_end(trainer, None, None, None, 0)
    monitor.on_validation_end(trainer, None)
    monitor.on_fit_end(trainer, None)
    assert (monitor.diagnosis, [*tmp_path.iterdir()]) == (None, [])


@pytest.mark.peers
def test_lightning_steps_of_several_batches_have_one_row(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    sys.path.insert(0, str(ROOT / "examples" / "elsewhere"))
    module = importlib.import_module("lightning_module")
    images = torch.rand(96, 1, 28, 28)
    monitor = module.CollapseMonitor(images, likelihood="gaussian", sigma2=0.5, every=2, directory=tmp_path)
    loader = module.DataLoader(module.TensorDataset(images), batch_size=8)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", accumulate_grad_batches=3, callbacks=[monitor], **quiet
    )
    trainer.fit(module.LitVAE(1.0), loader)
    rows = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0}).Reload().Scalars("train/kld")
    assert [row.step for row in rows] == [2, 4, 6, 8]


@pytest.mark.peers
def test_diffusers() -> None:
    found = example("diffusers_kl", "diffusers", 30)
    assert found["KL weight 100"].verdict == "collapsed"
    assert found["KL weight 1e-06"].verdict in ("alive", "partly_collapsed")
    maps = found["random weights"].maps
    assert maps is not None
    assert maps.shape == (4, 7, 7)
    assert sum(maps.channel_kl) == pytest.approx(found["random weights"].measures["kld"].value, rel=1e-4)


@pytest.mark.peers
def test_pythae_s_own_loss_is_what_is_said_of_it() -> None:
    """Its forward gives the loss; ours, by torch.distributions' constants, must be the same but for one."""
    pytest.importorskip("pythae")
    from pythae.models import BetaVAE, BetaVAEConfig

    for kind, constant in (("mse", 0.5 * 36 * torch.log(torch.tensor(2 * torch.pi))), ("bce", torch.tensor(0.0))):
        torch.manual_seed(0)
        settings = BetaVAEConfig(input_dim=(1, 6, 6), latent_dim=3, reconstruction_loss=kind, beta=2.5)
        model = BetaVAE(settings)
        images = torch.rand(4000, 1, 6, 6, generator=torch.Generator().manual_seed(0))
        if kind == "bce":
            images = images.round()
        torch.manual_seed(1)
        with torch.no_grad():
            theirs = model.eval()({"data": images})
        found = vae.diagnose(model, images, iw_samples=1, probe_images=4).record
        assert found.split is not None
        nll = -found.split.elbo - found.split.kld
        assert float(theirs.recon_loss) == pytest.approx(nll - float(constant), rel=5e-3)
        assert float(theirs.reg_loss) == pytest.approx(found.split.kld, rel=1e-3)
        assert found.identity.kl_weight == 2.5


@pytest.mark.peers
def test_what_each_of_pythae_s_losses_says_of_the_kl() -> None:
    models = pytest.importorskip("pythae").models
    size = {"input_dim": (1, 6, 6), "latent_dim": 3}
    info = models.INFOVAE_MMD(models.INFOVAE_MMD_Config(**size, alpha=0.25, lbd=3))
    weighted = models.CIWAE(models.CIWAEConfig(**size, beta=0.5))
    assert (face_of(info).kl_weight, face_of(weighted).kl_weight) == (0.75, 1.0)
    assert face_of(models.FactorVAE(models.FactorVAEConfig(**size))).unknown
    with pytest.raises(vae.InputError, match="VAMP: its code is not of"):
        face_of(models.VAMP(models.VAMPConfig(**size)))
