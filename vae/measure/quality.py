"""How near generated images are to real ones: "reconstructs well and generates poorly" as a number.

Density and coverage (Naeem et al. 2020, arXiv 2002.09797), the kernel distance (KID: Binkowski et al. 2018, arXiv
1801.01401) and a classifier two-sample test (Lopez-Paz and Oquab 2017, arXiv 1610.06545) of generated images and test
images. No network that was trained on photographs judges: an image stands for its coordinates on the first principal
components of the training images and for the length of what these leave; where there are labels, also for the last
layer of a small classifier of the training images. Each number stands beside that of training images in the place of
the generated ones, which is what a perfect model would get. Where the components fit the images that they are made of
better than others (few images, or noise-like ones), they are made of those training images that stand for nothing."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.adam import adam

from vae.config.errors import InputError
from vae.data.remembered import OfImages
from vae.data.split import Data, Split
from vae.measure import samplers
from vae.measure import spectrum as spectra
from vae.measure.catalogue import SampleMeasures
from vae.measure.samplers import Sampler
from vae.measure.spectrum import Spectrum
from vae.models.vae import VAE
from vae.runtime.rng import generator

NEIGHBOURS = 5  # Naeem et al. 2020
BLOCKS = 10  # of images, for the error of the kernel distance
COMPONENTS = 64
AS_REAL = 0.9  # density of training images among test images, of which 1 is expected where components fit both alike
MIN_IMAGES = 50  # of fewer nothing is measured
MAX_VALUES, MAX_DRAWN_VALUES = 2**24, 2**20  # pixels of all images together; of those that are drawn pixel by pixel
MAX_CLASSES = 100
STEPS, BATCH = 400, 64  # of the small classifier's training

Features = Callable[[Tensor], Tensor]  # images (N, C, H, W) to (N, f), float64


class Spread(NamedTuple):
    """Of generated images in the space of real ones."""

    density: float  # 1 where they lie as densely as the real ones do; expected of real ones: 1
    coverage: float  # fraction of the real images that have one of them near


class KernelDistance(NamedTuple):
    """The squared maximum mean discrepancy with the kernel (x.y / f + 1)^3: 0 where two distributions are the same."""

    mean: float  # over blocks; unbiased, so it may be below 0
    error: float  # standard error of that mean


def spread(real: Tensor, fake: Tensor) -> Spread:
    """Of `fake` (M, f) among `real` (N, f). A real image's ball reaches to its fifth neighbour among the real ones:
    density counts the balls that a fake one lies in, coverage the balls that have a fake one in them. Naeem et al.
    2020, equations 3 and 4; of M = N images from one distribution the expected density is 1, and the expected coverage
    1 - prod_{i=1..5} (N - i) / (2 N - i), about .97."""
    radii = torch.cdist(real, real).kthvalue(NEIGHBOURS + 1, 1).values  # the first is the image itself
    distances = torch.cdist(real, fake)
    inside = distances < radii[:, None]
    density = float(inside.double().sum(0).mean() / NEIGHBOURS)
    return Spread(density, float((distances.min(1).values < radii).double().mean()))


def kernel_distance(real: Tensor, fake: Tensor) -> KernelDistance:
    """Of two equal numbers of images (N, f), as the mean over BLOCKS disjoint blocks of both, each unbiased."""
    values = [discrepancy(x, y) for x, y in zip(real.tensor_split(BLOCKS), fake.tensor_split(BLOCKS), strict=True)]
    found = torch.tensor(values, dtype=torch.float64)
    return KernelDistance(float(found.mean()), float(found.std() / math.sqrt(len(found))))


def discrepancy(x: Tensor, y: Tensor) -> float:
    """The squared maximum mean discrepancy of two samples (n, f) and (m, f), unbiased: Gretton et al. 2012, equation
    3, with the kernel (x.y / f + 1)^3."""
    n, m = len(x), len(y)
    of_x, of_y, across = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    within_x = (of_x.sum() - of_x.diagonal().sum()) / (n * (n - 1))
    within_y = (of_y.sum() - of_y.diagonal().sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * across.mean())


def told_apart(real: Tensor, fake: Tensor, seed: int) -> float:
    """How often a small network, trained on half of each, tells the other half of `real` and `fake` (N, f) apart: 0.5
    where it cannot, 1 where always. Of images from one distribution it is N(0.5, 1 / (4 N))."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    half, answers = len(real) // 2, [0] * (len(real) // 2) + [1] * (len(real) // 2)
    classifier = make_pipeline(
        StandardScaler(), MLPClassifier((64,), alpha=0.01, max_iter=60, random_state=seed % 2**32)
    )
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(torch.cat([real[:half], fake[:half]]).numpy(), answers)
    return float(classifier.score(torch.cat([real[half : 2 * half], fake[half : 2 * half]]).numpy(), answers))


def pixel_features(spectrum: Spectrum, images: Tensor) -> Features:
    """Coordinates on the first principal components of the training images and the length of the rest, on a scale on
    which their mean square over real `images` (N, C, H, W) is 1."""
    components, mean = spectrum.components[:, :COMPONENTS].double(), spectrum.mean

    def features(images: Tensor) -> Tensor:
        centred = images.flatten(1).cpu().double() - mean
        coordinates = centred @ components
        left = (centred.square().sum(1) - coordinates.square().sum(1)).clamp(min=0).sqrt()
        return torch.cat([coordinates, left[:, None]], 1)

    return _scaled(features, images)


def _scaled(features: Features, images: Tensor) -> Features:
    """The same less the mean over `images`, over the root of their mean variance."""
    some = features(images)
    mean = some.mean(0)
    scale = (some - mean).square().mean().sqrt().clamp(min=1e-12)
    return lambda images: (features(images) - mean) / scale


class _Classifier(nn.Module):
    """Two convolutions and a layer of 64, whose values are the features."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.first = nn.Conv2d(channels, 16, 4, 2, 1 if min(height, width) > 3 else 2)
        self.second = nn.Conv2d(16, 32, 3, 2, 1)
        with torch.no_grad():
            size = self._maps(torch.zeros(1, *shape)).shape[1]
        self.hidden, self.out = nn.Linear(size, 64), nn.Linear(64, classes)

    def _maps(self, images: Tensor) -> Tensor:
        maps = F.relu(self.second(F.relu(self.first(images))))
        size = [min(side, 8) for side in maps.shape[2:]]
        return (maps if size == [*maps.shape[2:]] else F.adaptive_max_pool2d(maps, size)).flatten(1)

    def features(self, images: Tensor) -> Tensor:
        return F.relu(self.hidden(self._maps(images)))


class ClassFeatures(NamedTuple):
    features: Features
    accuracy: float  # of the classifier on test images


def _trained(train: Split, labels: Tensor, classes: int, seed: int) -> tuple[_Classifier, Tensor]:
    """A classifier of the training images, and the state of the generator that chose them."""
    rng = generator(seed, "classifier")
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**62, (), generator=rng)))
        network = _Classifier(train.shape, classes)
    weights: list[Tensor] = list(network.parameters())
    mean, square = ([torch.zeros_like(weight) for weight in weights] for _ in range(2))
    steps = [torch.zeros(()) for _ in weights]
    for _ in range(STEPS):
        chosen = torch.randint(len(train), (BATCH,), generator=rng)
        scores = network.out(network.features(train.batch(chosen).cpu()))
        gradients = torch.autograd.grad(F.cross_entropy(scores, labels[chosen]), weights)
        with torch.no_grad():
            adam(
                weights,
                list(gradients),
                mean,
                square,
                [],
                steps,
                foreach=False,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=2e-3,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )  # torch.optim.Adam does the same, and imports torch's compiler
    return network.eval().requires_grad_(False), rng.get_state()


_CLASSIFIERS: OfImages[tuple[_Classifier, Tensor]] = OfImages(most=4)


def class_features(data: Data, images: Tensor, seed: int) -> ClassFeatures | None:
    """Of a small classifier that is trained here; None where the training images are not of 2 to MAX_CLASSES classes,
    or the test images have no labels."""
    labels, answers = data.train.labels, data.test.labels
    if labels is None or answers is None:
        return None
    names, labels = labels.cpu().unique(return_inverse=True)
    if not 2 <= len(names) <= MAX_CLASSES:
        return None
    network, rng_state = _CLASSIFIERS.get(data.train, seed, lambda: _trained(data.train, labels, len(names), seed))
    rng = torch.Generator()
    rng.set_state(rng_state)

    def features(images: Tensor) -> Tensor:
        return torch.cat([network.features(some.cpu().float()).double() for some in images.split(256)])

    some = torch.randperm(len(data.test), generator=rng)[:2000]
    found = torch.cat(
        [network.out(network.features(data.test.batch(rows).cpu())).argmax(1) for rows in some.split(256)]
    )
    return ClassFeatures(_scaled(features, images), float((names[found] == answers.cpu()[some]).double().mean()))


@dataclass(frozen=True)
class Quality:
    measures: SampleMeasures
    notes: tuple[str, ...] = ()  # why a measure is None


@torch.no_grad()
def measure(model: VAE, data: Data, spectrum: Spectrum, limit: int, batch_size: int, seed: int) -> Quality:
    """Of as many images of each kind as there are test images, at most `limit`; 0: nothing is measured."""
    values = MAX_DRAWN_VALUES if model.is_autoregressive else MAX_VALUES
    count = min(limit, len(data.test), len(data.train), values // math.prod(model.shape))
    if count < MIN_IMAGES:
        asked = f"of {count} images it would say nothing (from {MIN_IMAGES} on)" if limit else "not asked for"
        return Quality(SampleMeasures(), (f"sample quality: {asked}",))
    rng = generator(seed, "quality")
    (real, _), (training, others) = (_some(split, count, rng) for split in (data.test, data.train))
    fitted, of_pixels = data, pixel_features(spectrum, training)
    if len(others) >= count and _fits_its_own_better(data, spectrum, count):
        fitted = Data(data.train.take(others), data.test)
        of_pixels = pixel_features(spectra.measure(fitted.train, COMPONENTS), training)
    kinds, notes = {"real": training}, []
    for kind in ("sample", "mixture"):
        try:
            sampler = samplers.prior(model.latent_dim) if kind == "sample" else _mixture(model, data, batch_size, seed)
        except InputError as error:
            notes.append(f"mixture_density and its like: {error}")
            continue
        kinds[kind] = samplers.decoded(model, sampler(count, rng), batch_size)
    spaces: dict[str, Features] = {"": of_pixels}
    with torch.enable_grad():
        classifier = class_features(fitted, training, seed)
    if classifier is None:
        notes.append(f"sample_class_kid and its like: need labels of 2 to {MAX_CLASSES} classes")
    else:
        spaces["class_"] = classifier.features
    found: dict[str, Any] = {"quality_images": count}
    for space, features in spaces.items():
        of_real = features(real)
        for kind, images in kinds.items():
            if not images.isfinite().all():
                notes.append(f"{kind}_density and its like: the images are not finite")
                continue
            fake, name = features(images), f"{kind}_{space}"
            found[f"{name}density"], found[f"{name}coverage"] = spread(of_real, fake)
            found[f"{name}kid"], found[f"{name}kid_error"] = kernel_distance(of_real, fake)
            if not space:
                found[f"{name}c2st"] = told_apart(of_real, fake, seed)
    accuracy = None if classifier is None else classifier.accuracy
    return Quality(SampleMeasures(**found, class_accuracy=accuracy), tuple(notes))


def _fits_its_own_better(data: Data, spectrum: Spectrum, count: int) -> bool:
    """Whether the components fit the training images, of which they are made, better than the test images: the same at
    every seed, so that runs of a sweep compare."""
    rng = generator(0, "quality")
    (real, _), (training, _) = (_some(split, count, rng) for split in (data.test, data.train))
    features = pixel_features(spectrum, training)
    return spread(features(real), features(training)).density < AS_REAL


def _some(split: Split, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random choice in random order (blocks of it are like each other, however the images are sorted), and which are
    left, or some of these."""
    order = torch.randperm(len(split), generator=rng)
    left = order[count : count + MAX_VALUES // math.prod(split.shape)]
    return split.batch(order[:count]).cpu(), left.sort().values


def _mixture(model: VAE, data: Data, batch_size: int, seed: int) -> Sampler:
    if not model.has_code:
        raise InputError("the decoder gets no code")
    return samplers.fitted("mixture", samplers.training_codes(model, data.train, batch_size, seed), seed)
