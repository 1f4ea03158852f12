"""What our published numbers are held against: the loops of examples/published.py, and their parts in a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUICK, ROOT, trained

IMAGES = (torch.arange(96)[:, None] + torch.arange(784)) % 3 == 0


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import published

    return published


@pytest.mark.parametrize("program", ["kingma_mlp", "vae_400_40", "bernoulli_mixture"])
def test_each_loop_learns(program: str, published: Any) -> None:
    """Three images, which cost log 3 nats to tell apart, and without a code 499 nats, the entropy of a pixel that is on
    in a third of them. What a mixture adds for pixels that it has not seen costs a few."""
    images = IMAGES.float()
    torch.manual_seed(0)
    found = getattr(published, program)(images[:64], images[64:], 200)
    for name, value in found.items():
        nll = value if "NLL" in name else -value
        assert math.log(3) < nll < (50 if program == "bernoulli_mixture" else 250), (name, value)


def test_bounds_of_a_decoder_without_a_code_are_its_likelihood(published: Any) -> None:
    """With q(z|x) the prior: log p(x) itself, for any number of samples. With another q the ELBO is a KL lower, and
    enough samples bring the bound back."""
    images, logits = IMAGES[:50].float(), torch.linspace(-2, 2, 784)

    def decode(codes: torch.Tensor) -> torch.Tensor:
        return logits.expand(*codes.shape[:-1], 784)

    def prior(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(batch), 2), torch.ones(len(batch), 2)

    def other(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((len(batch), 2), 0.5), torch.full((len(batch), 2), 0.8)

    truth = torch.distributions.Bernoulli(logits=logits).log_prob(images).sum(1).mean().item()
    assert published.bounds(images, prior, decode, 5) == pytest.approx((truth, truth), rel=1e-5)
    q, p = (torch.distributions.Normal(mean, scale) for mean, scale in ((0.5, 0.8), (0.0, 1.0)))
    cost = 2 * torch.distributions.kl_divergence(q, p).item()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)
    elbo, bound = published.bounds(images, other, decode, 2000)
    assert elbo == pytest.approx(truth - cost, abs=0.02)
    assert bound == pytest.approx(truth, abs=0.02)


@pytest.mark.parametrize("softplus", ["true", "false"])
def test_its_networks_are_parts_of_a_run(softplus: str, published: Any, tmp_path: Path, digits: list[str]) -> None:
    parts = ["model=custom", "model.encoder._target_=published.Encoder", "model.decoder._target_=published.Decoder"]
    longer = ["train.steps=60", "train.eval_every=60", "objective=bernoulli", f"+model.encoder.softplus={softplus}"]
    assert trained(tmp_path / "run", *QUICK, *digits, *parts, *longer)["elbo"] > -256 * math.log(2)
