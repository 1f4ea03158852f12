"""Each optimiser against torch.optim's, which does not use the fused kernels unless asked to."""

import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn

from vae import optimizers
from vae.optimizers import SGD, Adam, Optimizer

Make = Callable[[Iterable[nn.Parameter]], Optimizer]
MAKE: dict[str, tuple[Make, Callable[..., torch.optim.Optimizer]]] = {
    "adam": (
        lambda p: Adam(p, 0.01, 0.8, 0.99),
        lambda p: torch.optim.Adam(p, 0.01, betas=(0.8, 0.99), foreach=False),
    ),
    "adamw": (
        lambda p: Adam(p, 0.01, decay=optimizers.DECAY),
        lambda p: torch.optim.AdamW(p, 0.01, foreach=False),
    ),
    "sgd": (lambda p: SGD(p, 0.01, 0.9), lambda p: torch.optim.SGD(p, 0.01, 0.9, foreach=False)),
    "sgd without momentum": (lambda p: SGD(p, 0.01, 0.0), lambda p: torch.optim.SGD(p, 0.01, foreach=False)),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    return nn.Sequential(convolution, nn.Flatten(), nn.Linear(36, 5)).double()


def descend(model: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", MAKE)
def test_as_torch_does_it(name: str) -> None:
    mine, theirs = network(), network()
    descend(mine, MAKE[name][0](mine.parameters()), 30)
    descend(theirs, MAKE[name][1](theirs.parameters()), 30)
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)  # the count of steps is float32 in the fused kernel


@pytest.mark.parametrize("name", MAKE)
def test_the_state_is_all_there_is(name: str) -> None:
    whole, first = network(), network()
    descend(whole, MAKE[name][0](whole.parameters()), 6)
    before = MAKE[name][0](first.parameters())
    descend(first, before, 3)
    after = MAKE[name][0](first.parameters())
    after.load_state_dict({key: value.clone() for key, value in before.state_dict().items()})
    descend(first, after, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), first.parameters(), strict=True))


@pytest.mark.parametrize("name", MAKE)
def test_without_a_gradient_nothing_moves(name: str) -> None:
    model, whole = network(), network()
    first, *others = model.parameters()
    unused = nn.Parameter(torch.ones(3))
    descend(model, MAKE[name][0]([first, unused, *others]), 3)
    descend(whole, MAKE[name][0](whole.parameters()), 3)
    assert torch.equal(unused, torch.ones(3))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_the_compiler_is_not_imported() -> None:
    code = (
        "import sys, torch; from vae.optimizers import Adam; p = torch.nn.Parameter(torch.ones(2)); "
        "a = Adam([p], 0.1, 0.9); p.sum().backward(); a.step(); a.zero_grad(); a.state_dict(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
