import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from conftest import composed
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.distributions import Independent, Normal

from vae.data.split import Data, Split
from vae.measure import spectrum
from vae.measure.catalogue import FinalMeasures, SplitMeasures
from vae.measure.diagnostics import dimension_gaps
from vae.measure.evaluation import evaluate, examine
from vae.models import likelihood as likelihoods
from vae.models.posteriors import Posterior
from vae.models.vae import VAE


def measured(
    vae: VAE, likelihood: likelihoods.Likelihood, split: Split, batch_size: int
) -> tuple[SplitMeasures, Posterior]:
    settings = composed(f"evaluation.batch_size={batch_size}").evaluation
    done = evaluate(vae, likelihood, split, settings, seed=0)
    return done.measures, done.posterior


@pytest.fixture
def setting() -> tuple[VAE, likelihoods.Likelihood, Split]:
    config = composed("model=mlp_vae", "model.latent_dim=3", "objective=gaussian", "objective.sigma2=0.3")
    likelihood = likelihoods.build(config.objective, None, (1, 4, 4))
    vae = VAE(config.model, likelihood, (1, 4, 4)).requires_grad_(False)
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return vae, likelihood, Split(images)


def test_the_whole_split_is_measured(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """Not the first batch only, and images in the last, smaller batch count as much as any other."""
    vae, likelihood, split = setting
    whole, posterior = measured(vae, likelihood, split, 50)
    assert posterior.mu.shape == (50, 3)
    for batch_size in (1, 7, 49, 500):
        parts, _ = measured(vae, likelihood, split, batch_size)
        assert dataclasses.asdict(parts) == pytest.approx(dataclasses.asdict(whole), rel=1e-5)


def test_many_test_images_are_sampled(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """The same ones at every call, and the mean over them is within its errors of the mean over all."""
    vae, likelihood, split = setting
    rng = torch.Generator().manual_seed(3)
    many = Split(torch.rand(3000, *split.shape, generator=rng))
    data = Data(split, many, validation=many)
    some = data.measured(400)
    assert (len(some.test), len(some.train)) == (400, len(split))
    assert some.validation is not None
    assert len(some.validation) == 400
    assert torch.equal(some.test.images, data.measured(400).test.images)
    assert data.measured(None).test is many
    whole, _ = measured(vae, likelihood, many, 500)
    part, _ = measured(vae, likelihood, some.test, 500)
    assert (whole.test_images, part.test_images) == (3000, 400)
    for name in ("mse", "elbo"):
        error = getattr(part, f"{name}_error")
        assert 0 < abs(getattr(part, name) - getattr(whole, name)) < 4 * error
        assert error == pytest.approx(getattr(whole, f"{name}_error") * math.sqrt(3000 / 400), rel=0.2)


def test_measures_against_torch_distributions(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    measures, posterior = measured(vae, likelihood, split, 16)
    q = Independent(Normal(posterior.mu, posterior.log_sigma.exp()), 1)
    prior = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)
    kld = torch.distributions.kl_divergence(q, prior).mean()
    assert measures.kld == pytest.approx(float(kld), rel=1e-5)
    # Many draws from torch's own sampler: their mean is what one fixed draw of 50 images estimates.
    torch.manual_seed(0)
    with torch.no_grad():
        draws = [vae.decode(q.rsample()) for _ in range(200)]
        sse = torch.stack([(draw - split.images).square().flatten(1).sum(1) for draw in draws])
        nll = torch.stack([-Independent(Normal(draw, 0.3**0.5), 3).log_prob(split.images) for draw in draws])
    spread = float(sse.mean(1).std())
    assert measures.sse == pytest.approx(float(sse.mean()), abs=4 * spread)
    assert measures.mse == pytest.approx(measures.sse / 16)
    assert measures.elbo == pytest.approx(float(-nll.mean() - kld), abs=4 * float(nll.mean(1).std()))
    mean_error = (vae.decode(posterior.mu) - split.images).square().mean()
    assert measures.mse_mu == pytest.approx(float(mean_error), rel=1e-5)


def test_bounds_are_over_all_images_and_dimensions(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    measures, _ = measured(vae, likelihood, split, 16)
    posterior = vae.encode(split.images)
    sigma = posterior.log_sigma.exp()
    assert (measures.mu_min, measures.mu_max) == (float(posterior.mu.min()), float(posterior.mu.max()))
    assert (measures.sigma_min, measures.sigma_max) == pytest.approx((float(sigma.min()), float(sigma.max())), rel=1e-6)
    assert measures.sigma_mean == pytest.approx(float(sigma.mean()), rel=1e-5)


PRIOR = Independent(Normal(torch.zeros(3), torch.ones(3)), 1)


class Narrow(torch.nn.Module):
    """Codes that are points but for a sigma of e^-9."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mu = 2 * images.flatten(1)[:, :3]
        return mu, torch.full_like(mu, -9.0)


class TwoOfThree(torch.nn.Module):
    """The middle dimension is the same for all images; each has a width of its own."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        flat = images.flatten(1)
        mu = torch.stack([4 * flat[:, 0], torch.full_like(flat[:, 0], 0.7), flat[:, 1] - 3], 1)
        return mu, torch.tensor([-1.0, 0.3, -0.2]) - 0.1 * flat[:, :1]


def test_active_dimensions_by_hand(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    vae.encoder = TwoOfThree()
    measures, posterior = measured(vae, likelihood, split, 16)
    mu, sigma = posterior.mu.double().numpy(), posterior.log_sigma.double().exp().numpy()
    assert measures.active_units == 2
    assert measures.active_sigma == pytest.approx((sigma[:, 0].mean() + sigma[:, 2].mean()) / 2, rel=1e-6)
    spread = [(mu[:, j] ** 2).mean() + (sigma[:, j] ** 2).mean() for j in (0, 2)]
    assert measures.active_spread == pytest.approx(sum(spread) / 2, rel=1e-6)


def test_evaluation_leaves_modes_and_torch_s_stream_alone(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    vae.train(), likelihood.eval()
    before = torch.get_rng_state()
    first, _ = measured(vae, likelihood, split, 16)
    again, _ = measured(vae, likelihood, split, 16)
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)
    assert (vae.training, likelihood.training) == (True, False)


def test_another_image_s_code_is_never_one_s_own(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """With two images the shuffled codes are the other's, so the gap can be computed by hand."""
    vae, likelihood, split = setting
    pair = Split(split.images[:2])
    settings = composed().evaluation
    done = evaluate(vae, likelihood, pair, settings, seed=0)
    own = (vae.decode(done.z) - pair.images).square().flatten(1).sum(1).mean()
    swapped = (vae.decode(done.z.flip(0)) - pair.images).square().flatten(1).sum(1).mean()
    assert done.measures.reconstruction_gap == pytest.approx(float(swapped - own), rel=1e-4)


def test_a_quick_evaluation_differs_in_the_sampled_measures_alone(
    setting: tuple[VAE, likelihoods.Likelihood, Split],
) -> None:
    vae, likelihood, split = setting
    settings = composed("evaluation.probe_images=20", "evaluation.marginal_samples=20").evaluation
    thorough = dataclasses.asdict(evaluate(vae, likelihood, split, settings, 0).measures)
    quick = dataclasses.asdict(evaluate(vae, likelihood, split, settings, 0, thorough=False).measures)
    differ = {name for name in thorough if thorough[name] != quick[name]}
    sampled = {"mutual_information", "marginal_kl", "reconstruction_gap", "reconstruction_gap_prior"}
    assert differ == sampled | {"swap_gap", "swap_gap_error", "swap_gap_p", "mse_mu"}
    assert quick["mse_mu"] == pytest.approx(thorough["mse_mu"], rel=0.02), "by differences, image by image"


def test_a_collapsed_encoder_has_nothing_to_swap(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    for parameter in vae.encoder.parameters():
        parameter.zero_()
    for parameter in vae.decoder[0].parameters():  # type: ignore[index]
        parameter.zero_()
    measures, _ = measured(vae, likelihood, split, 16)
    assert (measures.kld, measures.active_units, measures.collapsed_fraction_001) == (0, 0, 1)
    assert measures.mutual_information == pytest.approx(0, abs=1e-6)
    assert measures.reconstruction_gap == pytest.approx(0, abs=1e-6)
    assert measures.reconstruction_gap_prior == pytest.approx(0, abs=1e-6)


def examined(
    vae: VAE, likelihood: likelihoods.Likelihood, data: Data, *overrides: str, weight: float = 1.0
) -> FinalMeasures:
    settings = composed("evaluation.probe_images=20", *overrides).evaluation
    done = evaluate(vae, likelihood, data.test, settings, seed=0)
    given = spectrum.measure(data.train, 16)
    return examine(vae, likelihood, data, given, done, settings, weight, seed=0).measures


def test_examination(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    labels = torch.arange(50) % 2
    data = Data(Split(split.images, labels), Split(split.images, labels))
    found = examined(vae, likelihood, data, "evaluation.iw_samples=50")
    assert found == examined(vae, likelihood, data, "evaluation.iw_samples=50")  # nothing differs from call to call
    assert found.iwae_bound is not None
    assert found.iwae_elbo is not None
    assert found.iwae_bound > found.iwae_elbo  # tighter
    assert found.posterior_gap == pytest.approx(found.iwae_bound - found.iwae_elbo)
    assert found.probe_majority == 0.5
    assert examined(vae, likelihood, Data(split, split)).probe_accuracy is None


def test_the_gap_with_the_code_cut_off(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """Against log-densities of torch, of all images: with their codes, and with zeros for a code."""
    vae, likelihood, split = setting
    found = examined(vae, likelihood, Data(split, split), "evaluation.probe_images=50")
    z = evaluate(vae, likelihood, split, composed().evaluation, seed=0).z
    with_code, without = (Independent(Normal(vae.decode(code), 0.3**0.5), 3) for code in (z, 0 * z))
    lost = with_code.log_prob(split.images) - without.log_prob(split.images)
    assert found.cut_gap == pytest.approx(float(lost.mean()), rel=1e-4)
    assert found.cut_gap_error == pytest.approx(float(lost.std() / 50**0.5), rel=1e-4)


def test_bernoulli_is_a_density_of_images_that_are_0_or_1(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, _, split = setting
    bernoulli = likelihoods.build(composed("objective=bernoulli").objective, None, (1, 4, 4))
    assert examined(vae, bernoulli, Data(split, split)).iwae_bound is None
    binary = Split((split.images > 0.5).float())
    assert examined(vae, bernoulli, Data(binary, binary)).iwae_bound is not None


def test_context_against_scikit_learn_and_torch(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """PCA's squared error on other images, the density of a constant image, the variance that is explained."""
    vae, likelihood, split = setting
    data = Data(Split(split.images[:30]), Split(split.images[30:]))
    found = examined(vae, likelihood, data)
    train, test = (part.images.flatten(1).double().numpy() for part in (data.train, data.test))
    pca = PCA(3).fit(train)
    assert found.pca_mse == pytest.approx(((pca.inverse_transform(pca.transform(test)) - test) ** 2).mean(), rel=1e-5)
    constant = Independent(Normal(data.train.images.mean(0), 0.3**0.5), 3).log_prob(data.test.images).mean()
    assert found.constant_elbo == pytest.approx(float(constant), rel=1e-5)
    measures = evaluate(vae, likelihood, data.test, composed().evaluation, seed=0).measures
    assert measures.explained_variance == pytest.approx(1 - measures.mse / test.var(0).mean())


def test_the_gain_is_that_of_training_images(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    vae, likelihood, split = setting
    data = Data(split, Split(torch.rand(50, 1, 4, 4)))
    one, three = examined(vae, likelihood, data), examined(vae, likelihood, data, weight=3.0)
    kld = float(vae.encode(split.images).kl().sum(1).mean())
    assert one.gain is not None
    assert three.gain == pytest.approx(one.gain - 2 * kld, rel=1e-5)
    constant = Independent(Normal(split.images.mean(0), 0.3**0.5), 3).log_prob(split.images).mean()
    assert one.gain == pytest.approx(one.train_elbo - float(constant), rel=1e-5)


def test_the_error_of_what_test_images_lack(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """Of the gain of each image over a constant one, whose own scatter counts as well; z is mu here, to rounding."""
    vae, likelihood, _ = setting
    vae.encoder = Narrow()
    rng = torch.Generator().manual_seed(1)
    train, test = (torch.rand(40, 1, 4, 4, generator=rng) * (1 + torch.rand(40, 1, 1, 1, generator=rng)) for _ in "ab")
    found = examined(vae, likelihood, Data(Split(train), Split(test)))

    def variance_of_the_mean(images: Tensor) -> Tensor:
        with torch.no_grad():
            q = vae.encode(images)
            kl = torch.distributions.kl_divergence(Independent(Normal(q.mu, q.log_sigma.exp()), 1), PRIOR)
            elbo = Independent(Normal(vae.decode(q.mu), 0.3**0.5), 3).log_prob(images) - kl
        gained = elbo - Independent(Normal(train.mean(0), 0.3**0.5), 3).log_prob(images)
        return gained.double().var() / len(images)

    expected = float(variance_of_the_mean(train) + variance_of_the_mean(test)) ** 0.5
    assert found.overfit_error == pytest.approx(expected, rel=1e-2)


def test_what_stands_at_its_ceiling_is_not_said(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """Codes of 50 images that do not overlap: the mutual information is log 50, and what is made of it an artefact."""
    _, likelihood, split = setting
    narrow = VAE(composed("model=mlp_vae", "model.latent_dim=3").model, likelihood, (1, 4, 4))
    for name, parameter in narrow.requires_grad_(False).named_parameters():
        if "encoder" in name and "log_sigma" in name:
            parameter.fill_(-50.0 if "bias" in name else 0.0)
    done = evaluate(narrow, likelihood, split, composed().evaluation, seed=0)
    assert done.measures.mutual_information == pytest.approx(math.log(50), abs=0.01)
    assert done.measures.marginal_kl is None
    given = spectrum.measure(split, 16)
    found = examine(narrow, likelihood, Data(split, split), given, done, composed().evaluation, 1.0, seed=0)
    assert found.measures.total_correlation is None
    assert any("at its ceiling" in note for note in found.notes)


def test_the_probe_s_accuracy_is_scikit_learn_s(setting: tuple[VAE, likelihoods.Likelihood, Split]) -> None:
    """Labels that a linear classifier can read off z in part: near that of one fitted to other draws here."""
    vae, likelihood, _ = setting
    images = torch.rand(2000, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    labels = (images.flatten(1).sum(1) > images.flatten(1).sum(1).median()).long()
    data = Data(Split(images[:1000], labels[:1000]), Split(images[1000:], labels[1000:]))
    posterior = vae.encode(images)
    z = posterior.sample(torch.randn(2000, 3, generator=torch.Generator().manual_seed(2))).double().numpy()
    fitted = LogisticRegression(max_iter=200).fit(z[:1000], labels[:1000])
    expected = float((fitted.predict(z[1000:]) == labels[1000:].numpy()).mean())
    mu = posterior.mu.double().numpy()
    of_mu = LogisticRegression(max_iter=200).fit(mu[:1000], labels[:1000]).score(mu[1000:], labels[1000:])
    assert 0.5 < expected < of_mu  # samples tell less than their means
    assert examined(vae, likelihood, data).probe_accuracy == pytest.approx(expected, abs=0.05)


def test_of_large_images_single_dimensions_are_measured_on_fewer(
    setting: tuple[VAE, likelihoods.Likelihood, Split], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of both is images * dimensions * pixels: up to MAX_PIXELS on all, then on fewer, from MIN_IMAGES on."""
    vae, likelihood, split = setting
    settings = composed("evaluation.probe_images=40").evaluation
    done = evaluate(vae, likelihood, split, settings, seed=0, thorough=True)
    taken: list[tuple[int, int]] = []

    def gaps(nll: Callable[[Tensor], Tensor], z: Tensor, noise: Tensor) -> Tensor:
        taken.append((len(z), len(noise)))
        return dimension_gaps(nll, z, noise)

    monkeypatch.setattr("vae.measure.diagnostics.dimension_gaps", gaps)
    for limit in (40 * 3 * 16, 8 * 3 * 16, 0):
        monkeypatch.setattr("vae.measure.evaluation.MAX_PIXELS", limit)
        monkeypatch.setattr("vae.measure.evaluation.MIN_IMAGES", 5)
        given = spectrum.measure(split, 3)
        found = examine(vae, likelihood, Data(split, split), given, done, settings, 1.0, seed=0)
        assert found.sensitivities is not None
    assert taken == [(40, 40), (8, 8), (5, 5)]
