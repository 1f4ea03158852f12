"""An encoder that is trained on while its decoder stays."""

import copy
from typing import Any

import pytest
import torch
from conftest import QUICK, composed

from vae.models.likelihood import OptimalGaussian
from vae.training import encoder
from vae.training.setup import prepare


def test_the_variance_stays_with_the_decoder(digits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is minimised is what the encoder is judged by: a fitted variance would follow each batch."""
    setup = prepare(composed(*QUICK, *digits, "model=mlp_vae", "objective=optimal_gaussian"))
    subject, images = setup.subject, setup.subject.data.train.batch(slice(0, 8))
    assert isinstance(subject.likelihood, OptimalGaussian)
    subject.likelihood.start_at(0.5)
    used: list[Any] = []
    monkeypatch.setattr(encoder, "update", lambda learner, *_: used.append(learner.subject.likelihood))
    before = copy.deepcopy(subject.likelihood.state_dict())
    encoder.train_encoder(subject.config, subject.model, subject.likelihood, subject.data, 1.0, 1, lambda _: None)
    raw = torch.full_like(images, 0.1, requires_grad=True)
    (trained,) = torch.autograd.grad(used[0](images, raw).loss, raw)
    (judged,) = torch.autograd.grad(subject.likelihood.eval().nll(images, raw).mean(), raw)
    assert torch.allclose(trained, judged, rtol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in subject.likelihood.state_dict().items())
