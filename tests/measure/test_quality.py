"""Measures of sample quality against prdc, torch-fidelity, closed forms, and cases whose answer is known."""

import math

import numpy as np
import pytest
import torch
from conftest import composed
from torch import Tensor

from vae.data.split import Data, Split
from vae.measure import quality, spectrum
from vae.models import likelihood as likelihoods
from vae.models.vae import VAE


def normal(seed: int, count: int = 300, features: int = 12) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_density_and_coverage_against_prdc() -> None:
    prdc = pytest.importorskip("prdc")
    for real, fake in ((normal(0), normal(1)), (normal(0), 1.3 * normal(1) + 0.2), (normal(0), normal(1, 200))):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("builtins.print", lambda *given, **options: None)
            expected = prdc.compute_prdc(real.numpy(), fake.numpy(), nearest_k=5)
        found = quality.spread(real, fake)
        assert found.density == pytest.approx(expected["density"], abs=1e-12)
        assert found.coverage == pytest.approx(expected["coverage"], abs=1e-12)


def test_density_and_coverage_of_one_distribution_are_as_the_closed_form_says() -> None:
    n, rounds = 200, 40
    found = [quality.spread(normal(2 * i, n), normal(2 * i + 1, n)) for i in range(rounds)]
    expected = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, 6))
    assert np.mean([one.density for one in found]) == pytest.approx(1, abs=0.03)
    assert np.mean([one.coverage for one in found]) == pytest.approx(expected, abs=0.006)


def test_the_kernel_distance_against_torch_fidelity() -> None:
    kid = pytest.importorskip("torch_fidelity.metric_kid")
    for real, fake in ((normal(0), normal(1)), (normal(0), 1.3 * normal(1) + 0.2)):
        expected = kid.kid_features_to_metric(
            fake, real, kid_subsets=1, kid_subset_size=300, verbose=False, kid_kernel_poly_degree=3
        )
        assert quality.discrepancy(real, fake) == pytest.approx(
            expected["kernel_inception_distance_mean"], rel=1e-6, abs=1e-9
        )


def test_the_kernel_distance_in_closed_form() -> None:
    """Of one feature with x ~ N(0, 1) and y ~ N(a, 1): E (x x' + 1)^3 in moments of both."""
    a = 0.7

    def moments(shift: float) -> list[float]:
        return [1.0, shift, 1 + shift**2, 3 * shift + shift**3]

    def kernel(one: list[float], other: list[float]) -> float:
        return sum(math.comb(3, i) * one[i] * other[i] for i in range(4))

    x, y = moments(0), moments(a)
    expected = kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)
    found = quality.kernel_distance(normal(0, 6000, 1), normal(1, 6000, 1) + a)
    assert abs(found.mean - expected) < 4 * found.error


def test_the_kernel_distance_of_one_distribution_is_0_in_the_mean() -> None:
    """There it is a sum of skewed terms (Gretton et al. 2012, theorem 12): the error of a single one may come out small
    where the distance is below 0, so the mean of many is held against 0, and their spread against the errors."""
    found = [quality.kernel_distance(normal(2 * i, 2000, 1), normal(2 * i + 1, 2000, 1)) for i in range(40)]
    means, errors = (np.array(of_each) for of_each in zip(*found, strict=True))
    assert abs(means.mean()) < 4 * means.std(ddof=1) / math.sqrt(len(means))
    assert math.sqrt(np.square(errors).mean()) == pytest.approx(means.std(ddof=1), rel=0.4)


def test_told_apart() -> None:
    alike = np.mean([quality.told_apart(normal(2 * i), normal(2 * i + 1), i) for i in range(4)])
    assert alike == pytest.approx(0.5, abs=4 / (2 * math.sqrt(4 * 300)))
    assert quality.told_apart(normal(0), normal(1) + 2, 0) > 0.95
    assert quality.told_apart(normal(0, 1000), 0.5 * normal(1, 1000), 0) > 0.8  # the same mean, less variance


@pytest.fixture(scope="module")
def stripes() -> Data:
    """Noisy images of two classes: lines across, lines down."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    lines = (torch.arange(8) % 2).float()
    across, down = lines[:, None].expand(8, 8), lines[None].expand(8, 8)
    clean = torch.where(labels[:, None, None] == 0, across, down)
    images = (0.2 + 0.5 * clean + 0.1 * torch.randn(400, 8, 8, generator=rng)).clamp(0, 1)[:, None]
    split = Split(images, labels)
    return Data(split.take(torch.arange(300)), split.take(torch.arange(300, 400)))


def test_blur_shows_off_the_plane(stripes: Data) -> None:
    """Images without what the first components leave have the same coordinates, and are told apart by its length."""
    found = spectrum.measure(stripes.train, 8)
    real = stripes.test.batch(slice(0, 100))
    features = quality.pixel_features(found, stripes.train.batch(slice(0, 300)))
    components = found.components[:, : quality.COMPONENTS].double()
    centred = real.flatten(1).double() - found.mean
    blurred = (centred @ components[:, :4] @ components[:, :4].T + found.mean).reshape(real.shape)
    assert quality.spread(features(real), features(blurred)).coverage < 0.9
    assert quality.told_apart(features(real), features(blurred), 0) > 0.9
    scale = features(stripes.train.batch(slice(0, 300)))
    assert float(scale.mean()) == pytest.approx(0, abs=1e-9)
    assert float(scale.var(0, correction=0).mean()) == pytest.approx(1, abs=1e-6)


def test_the_classifier_learns_its_classes(stripes: Data) -> None:
    images = stripes.train.batch(slice(0, 100))
    found = quality.class_features(stripes, images, 0)
    assert found is not None
    assert found.accuracy > 0.95
    again = quality.class_features(stripes, images, 0)
    assert again is not None
    assert torch.equal(found.features(images), again.features(images))
    unlabelled = Data(Split(stripes.train.images), Split(stripes.test.images))
    assert quality.class_features(unlabelled, images, 0) is None


def model(dataset: Data) -> VAE:
    config = composed("model=linear_vae", "model.latent_dim=2", "objective=gaussian", "objective.sigma2=0.01")
    likelihood = likelihoods.build(config.objective, config.model.output, dataset.train.shape)
    return VAE(config.model, likelihood, dataset.train.shape, 0).eval()


def test_real_images_are_the_measure_and_prior_samples_far_from_it(stripes: Data) -> None:
    found = quality.measure(model(stripes), stripes, spectrum.measure(stripes.train, 64), 1000, 50, 0)
    one = found.measures
    assert one.quality_images == 100
    assert one.real_coverage > 0.9
    assert abs(one.real_kid) < 4 * one.real_kid_error
    assert one.sample_coverage < 0.1
    assert one.sample_kid > 20 * one.sample_kid_error
    assert one.sample_c2st > 0.95
    assert one.real_class_coverage > 0.85


@pytest.mark.parametrize(("count", "others"), [(100, 300), (400, 1200), (200, 100)])
def test_training_images_that_components_are_not_made_of_are_as_real_as_test_images(count: int, others: int) -> None:
    """Noise, which components of these very images fit as they fit no other. With fewer left than are asked for, the
    baseline errs to the worse."""
    noise = torch.rand(2 * count + others, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    split = Split(noise, torch.arange(len(noise)) % 2)
    data = Data(split.take(torch.arange(count, len(noise))), split.take(torch.arange(count)))
    found = quality.measure(model(data), data, spectrum.measure(data.train, 64), count, 50, 0).measures
    assert found.real_density is not None
    assert found.real_coverage is not None
    assert found.real_c2st is not None
    if others < count:
        assert found.real_coverage < 0.2
        return
    assert found.real_density == pytest.approx(1, abs=0.3)
    assert found.real_coverage > 0.9
    assert found.real_c2st == pytest.approx(0.5, abs=3 / (2 * math.sqrt(count)))


def test_a_mixture_finds_codes_far_from_the_prior(stripes: Data) -> None:
    """A decoder whose codes are two tight clusters far from 0: a mixture draws like them, the prior does not."""
    network = model(stripes)
    with torch.no_grad():
        across, down = (
            stripes.train.batch((stripes.train.labels == kind).nonzero()[:, 0]).mean(0).flatten() for kind in (0, 1)
        )
        direction = (down - across) / (down - across).norm() ** 2
        network.encoder.mu.weight.zero_()
        network.encoder.mu.weight[0] = 10 * direction
        network.encoder.mu.bias.copy_(torch.tensor([20 - 10 * float(across @ direction), 0.0]))
    found = quality.measure(network, stripes, spectrum.measure(stripes.train, 64), 1000, 50, 0)
    draws = quality.samplers.training_codes(network, stripes.train, 50, 0)
    assert draws[:, 0].min() > 10
    assert found.measures.mixture_kid != found.measures.sample_kid


def test_too_few_images(stripes: Data) -> None:
    few = Data(stripes.train, stripes.test.take(torch.arange(20)))
    found = quality.measure(model(few), few, spectrum.measure(few.train, 8), 1000, 50, 0)
    assert found.measures.quality_images is None
    assert found.notes == ("sample quality: of 20 images it would say nothing (from 50 on)",)
    assert quality.measure(model(few), few, spectrum.measure(few.train, 8), 0, 50, 0).notes == (
        "sample quality: not asked for",
    )


@pytest.mark.parametrize("count", [50, 55, 64, 91, 100])
def test_every_block_has_images(count: int) -> None:
    found = quality.kernel_distance(normal(0, count), normal(1, count))
    assert math.isfinite(found.mean)
    assert math.isfinite(found.error)


def test_labels_may_be_any_numbers(stripes: Data) -> None:
    assert stripes.train.labels is not None
    assert stripes.test.labels is not None
    odd = [Split(split.images, split.labels * 10**9 - 1) for split in (stripes.train, stripes.test)]  # type: ignore[operator]
    found = quality.class_features(Data(*odd), stripes.train.batch(slice(0, 100)), 0)
    assert found is not None
    assert found.accuracy > 0.95
