"""Each optimiser against torch.optim's, which does not use the fused kernels unless asked to."""

import subprocess
import sys
from collections.abc import Callable, Iterable

import pytest
import torch
from conftest import composed
from torch import nn

from vae.training import optimizer as optimizers
from vae.training.optimizer import Optimizer

Make = Callable[[Iterable[nn.Parameter]], Optimizer]
LR = 0.01


def ours(*overrides: str) -> Make:
    return lambda parameters: optimizers.build(composed(*(f"train.{item}" for item in overrides)).train, parameters)


MAKE: dict[str, tuple[Make, Callable[..., torch.optim.Optimizer]]] = {
    "adam": (
        ours("optimizer=adam", "momentum=0.8", "beta2=0.99"),
        lambda p: torch.optim.Adam(p, LR, betas=(0.8, 0.99), foreach=False),
    ),
    "adamw": (ours("optimizer=adamw"), lambda p: torch.optim.AdamW(p, LR, foreach=False)),
    "sgd": (ours("optimizer=sgd"), lambda p: torch.optim.SGD(p, LR, 0.9, foreach=False)),
    "sgd without momentum": (
        ours("optimizer=sgd", "momentum=0"),
        lambda p: torch.optim.SGD(p, LR, foreach=False),
    ),
    "rmsprop": (
        ours("optimizer=rmsprop", "momentum=0.5", "beta2=0.99"),
        lambda p: torch.optim.RMSprop(p, LR, momentum=0.5, alpha=0.99, foreach=False),
    ),
    "rmsprop centred": (
        ours("optimizer=rmsprop", "momentum=0.5", "beta2=0.99", "centered=true"),
        lambda p: torch.optim.RMSprop(p, LR, momentum=0.5, alpha=0.99, centered=True, foreach=False),
    ),
    "adam with another eps": (
        ours("optimizer=adam", "eps=0.1"),
        lambda p: torch.optim.Adam(p, LR, betas=(0.9, 0.999), eps=0.1, foreach=False),
    ),
    "rmsprop with another eps": (
        ours("optimizer=rmsprop", "momentum=0", "beta2=0.99", "eps=0.1"),
        lambda p: torch.optim.RMSprop(p, LR, eps=0.1, foreach=False),
    ),
    "rmsprop as torch has it": (
        ours("optimizer=rmsprop", "momentum=0", "beta2=0.99"),
        lambda p: torch.optim.RMSprop(p, LR, foreach=False),
    ),
}


def test_every_optimiser_of_the_configuration_is_tested_and_torch_s() -> None:
    assert {name.split()[0] for name in MAKE} == set(optimizers.OPTIMIZERS)
    torchs = {name.lower() for name in vars(torch.optim)}
    assert set(optimizers.OPTIMIZERS) <= torchs
    for name in optimizers.OPTIMIZERS:
        assert composed(f"train.optimizer={name}").train.optimizer == name


def network() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    return nn.Sequential(convolution, nn.Flatten(), nn.Linear(36, 5)).double()


def descend(model: nn.Module, optimizer: Optimizer | torch.optim.Optimizer, steps: int, start: int = 0) -> None:
    for step in range(start, start + steps):
        images = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step(LR) if isinstance(optimizer, Optimizer) else optimizer.step()


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


@pytest.mark.slow  # of a whole run: tests/cli/test_commands.py::test_one_run_in_its_own_process
def test_the_compiler_is_not_imported() -> None:
    code = (
        "import sys, torch; from vae.config.schema import Train; from vae.training.optimizer import build; "
        "p = torch.nn.Parameter(torch.ones(2)); a = build(Train(optimizer='adam', momentum=0.9, beta2=0.999), [p]); "
        "p.sum().backward(); a.step(0.1); a.zero_grad(); a.state_dict(); "
        "sys.exit('torch._dynamo' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
