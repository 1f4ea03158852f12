"""Rules that say which parameters step."""

from pathlib import Path

import pytest
import torch
from conftest import QUICK, composed, trained
from test_terms import LINEAR

import vae
from vae.data.split import Split
from vae.measure import linear
from vae.measure.subject import Subject
from vae.models.vae import VAE
from vae.training import rules
from vae.training.setup import prepare


@torch.no_grad()
def distance_from_the_posterior(model: VAE, sigma2: float) -> float:
    """How far the linear encoder's matrix is from that of the exact posterior, (W'W + sigma^2 I)^-1 W', as a fraction
    of its length (Tipping and Bishop 1999, eq. 6)."""
    w = linear.decoder_matrix(model).double()
    exact = torch.linalg.solve(w.T @ w + sigma2 * torch.eye(w.shape[1]), w.T)
    encoder = model.encoder.mu.weight.double()  # type: ignore[union-attr, operator]
    return float((encoder - exact).norm() / exact.norm())


def test_the_encoder_is_at_the_posterior_before_the_decoder_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []
    holds = rules.Aggressive.holds

    def look(rule: rules.Aggressive):  # type: ignore[no-untyped-def]
        if rule.is_on and rule.is_decoders_turn:
            seen.append((distance_from_the_posterior(rule.subject.model, 0.2), rule.inner))
        return holds(rule)

    monkeypatch.setattr(rules.Aggressive, "holds", look)
    monkeypatch.setattr(rules, "mutual_information", lambda subject, images, step: float(step))  # it never ends
    overrides = ["cure=aggressive", "train.batch_size=2000", "train.lr=0.005", "train.steps=900"]
    trained(tmp_path / "aggressive", *LINEAR, *overrides)
    assert len(seen) > 10
    assert all(10 < inner <= 100 for _, inner in seen)
    late = [distance for distance, _ in seen[len(seen) // 2 :]]
    assert max(late) < 0.05
    trained(tmp_path / "plain", *LINEAR, *overrides[1:], "cure=none", "train.steps=60")
    assert distance_from_the_posterior(vae.load_run(tmp_path / "plain").model, 0.2) > 0.2


def test_only_one_side_steps_while_it_is_on(digits: list[str]) -> None:
    setup = prepare(composed(*QUICK, *digits, "model=mlp_vae", "cure=aggressive"))
    rule, model = setup.cure, setup.subject.model
    assert isinstance(rule, rules.Aggressive)
    assert set(rule.holds()) == set(model.decoder.parameters())
    rule.is_decoders_turn = True
    assert set(rule.holds()) == set(model.encoder.parameters())
    rule.is_on = False
    assert set(rule.holds()) == set()


def test_the_inner_loop_ends_where_the_mean_loss_rises_or_at_its_most(digits: list[str]) -> None:
    overrides = ["cure=aggressive", "cure.compare_every=2", "cure.max_inner=7"]
    rule = prepare(composed(*QUICK, *digits, "model=mlp_vae", *overrides)).cure
    assert isinstance(rule, rules.Aggressive)
    for losses, turns in (([5, 5, 4, 4, 4, 5], [0, 0, 0, 0, 0, 1]), ([5, 5, 4, 4, 3, 3, 2], [0, 0, 0, 0, 0, 0, 1])):
        rule._begin_inner_loop()
        found = []
        for loss in losses:
            rule._note(torch.tensor(float(loss)))
            found.append(int(rule.is_decoders_turn))
        assert found == turns


def test_it_is_looked_at_after_each_pass_of_the_decoder(
    digits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    batches = 0

    def look(subject: Subject, images: Split, step: int) -> float:
        nonlocal batches
        batches = len(subject.data.train) // 16
        looks.append(step)
        return float(step)

    monkeypatch.setattr(rules, "mutual_information", look)
    overrides = ["cure=aggressive", "cure.compare_every=2", "cure.max_inner=2", "train.steps=60", "train.batch_size=16"]
    trained(tmp_path / "run", *QUICK, *digits, "model=mlp_vae", *overrides)
    assert looks
    assert looks == list(range(3 * batches, 61, 3 * batches))  # two steps of the encoder, then one of the decoder


def test_it_ends_when_mutual_information_has_been_below_its_best_so_often(
    digits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = prepare(composed(*QUICK, *digits, "model=mlp_vae", "cure=aggressive", "cure.patience=2")).cure
    assert isinstance(rule, rules.Aggressive)
    found = iter([1.0, 0.5, 2.0, 2.0, 1.9])  # not in a row
    monkeypatch.setattr(rules, "mutual_information", lambda *given: next(found))
    on = []
    for step in range(5):
        rule._look(step)
        on.append(rule.is_on)
        assert rule.is_settled(step) != rule.is_on, "early stopping begins when both sides step"
    assert on == [True, True, True, True, False]


def test_pretraining_resets_the_decoder_and_keeps_the_encoder(digits: list[str]) -> None:
    overrides = ["cure=pretrain", "train.steps=40", "cure.autoencoder=0.5", "cure.rising=0.25"]
    setup = prepare(composed(*QUICK, *digits, "model=mlp_vae", *overrides))
    rule, model = setup.cure, setup.subject.model
    assert isinstance(rule, rules.Pretrain)
    assert [rule.beta(step) for step in (1, 20, 21, 25, 30, 40)] == [0, 0, 0.1, 0.5, 1, 1]
    encoder = {name: value.clone() for name, value in model.encoder.state_dict().items()}
    before = {name: value.clone() for name, value in model.decoder.state_dict().items()}
    setup.optimizer.memory["mean"][0].fill_(3.0)
    rule._reset()
    assert all(torch.equal(value, encoder[name]) for name, value in model.encoder.state_dict().items())
    weights = [name for name in before if name.endswith("weight")]
    assert not any(torch.equal(before[name], model.decoder.state_dict()[name]) for name in weights)
    assert not any(value.any() for values in setup.optimizer.memory.values() for value in values)
