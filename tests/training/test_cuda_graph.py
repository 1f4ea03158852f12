"""On a GPU: an update is one CUDA graph with the results of its kernels one by one, and the host waits for nothing."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import QUICK, composed, trained
from torch import Tensor

from vae.training import cuda_graph
from vae.training.checkpoint import read
from vae.training.cuda_graph import CapturedUpdate
from vae.training.loop import update
from vae.training.optimizer import learning_rate
from vae.training.setup import prepare

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

KINDS = {
    "conv": ["model=conv_vae"],
    "mlp": ["model=mlp_vae"],
    "mlp, bf16": ["model=mlp_vae", "train.precision=bf16"],
    "fitted variance": ["model=conv_vae", "objective=optimal_gaussian"],
    "autoencoder": ["model=ae"],
    "pixels": ["model=pixelcnn_vae", "objective=bernoulli", "dataset.binarize=dynamic"],
    "sgd": ["model=mlp_vae", "train.optimizer=sgd", "train.lr=1e-4"],
    "rmsprop": ["model=mlp_vae", "train.optimizer=rmsprop"],
    "clipped": ["model=mlp_vae", "train.max_grad_norm=1"],
    "batch norm": ["model=mlp_vae", "cure=batch_norm_mu"],
    "cosine": ["model=mlp_vae", "train.lr_schedule=cosine"],
    "rising weight": ["model=mlp_vae", "anneal=linear", "anneal.steps=8"],
}


def updates(digits: list[str], *overrides: str) -> tuple[Callable[[int], Tensor], CapturedUpdate]:
    """A step of a run of its own, by its number, and what makes it."""
    config = composed(*digits, *QUICK, "train.device=cuda", "train.steps=1000", *overrides)
    setup = prepare(config)
    assert setup.is_capturable
    batches, captured = setup.batches(after=0), CapturedUpdate(partial(update, setup), setup.device)

    def step(number: int) -> Tensor:
        _, images = next(batches)
        weight = setup.schedule.weight(number)
        return captured(number, images, setup.noise(number), weight, learning_rate(config.train, number))

    return step, captured


@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_gives_what_its_kernels_give(kind: str, digits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    step, captured = updates(digits, *KINDS[kind])
    rows = [step(number).clone() for number in range(1, 13)]
    assert captured.graphs
    monkeypatch.setattr(cuda_graph, "WARMUP", 1000)
    step, alone = updates(digits, *KINDS[kind])
    others = [step(number).clone() for number in range(1, 13)]
    assert not alone.graphs
    torch.testing.assert_close(torch.stack(rows), torch.stack(others), rtol=0, atol=0)


def test_without_a_kl_term_it_is_another_graph(digits: list[str]) -> None:
    """The KL of a point is infinite, and 0 times that is NaN."""
    step, captured = updates(digits, "model=ae", "model.posterior=dirac")
    assert all(step(number)[0].isfinite() for number in range(1, 8))
    assert set(captured.graphs) == {False}


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # which does not see them all, it says
def test_the_host_waits_for_nothing(digits: list[str]) -> None:
    step, _ = updates(digits, "model=conv_vae", "train.batch_size=2")  # an epoch has over 30 steps
    for number in range(1, 9):
        step(number)
    torch.cuda.synchronize()
    held = torch.cuda.memory_allocated()
    try:
        torch.cuda.set_sync_debug_mode("error")
        for number in range(9, 30):
            step(number)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number in range(30, 100):
        step(number)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= held + 2**16


def test_resumed_to_the_same_bits(digits: list[str], tmp_path: Path) -> None:
    from vae.training.loop import train

    settings = [*digits, *QUICK, "train.device=cuda", "model=conv_vae", "train.checkpoint_every=11"]
    whole = trained(tmp_path / "whole", *settings, "train.steps=20")
    trained(tmp_path / "cut", *settings, "train.steps=11")
    train(composed(*settings, "train.steps=20"), tmp_path / "cut", read(tmp_path / "cut"))
    first, second = read(tmp_path / "whole").parts["model"], read(tmp_path / "cut").parts["model"]
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert whole["steps"] == 20
