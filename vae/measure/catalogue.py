"""The catalogue of measures: each is a field of one of the dataclasses here, with its label, unit, definition,
estimator and source. Evaluation fills the dataclasses; result.json has their fields flat; TensorBoard's tags, the
report's columns and the tables of docs/measures.md are made from them. No torch.

Symbols: N test images, n pixels, d latent dimensions, q(z|x) = N(mu, diag(sigma^2)), prior p(z) = N(0, I), aggregate
posterior q(z) = (1/N) sum_i q(z|x_i). Nats are nats per image."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    name: str  # the key in result.json
    tag: str  # in TensorBoard
    label: str  # in the report and the terminal
    unit: str  # "" for a pure number
    definition: str
    estimator: str  # how it is computed, and which way it errs
    source: str

    @property
    def title(self) -> str:
        """The label with its unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


def measure(
    label: str,
    unit: str,
    definition: str,
    estimator: str = "exact",
    source: str = "",
    place: str = "collapse",
    **default: Any,
) -> Any:
    """A field that holds a measure; `place` is the first part of its TensorBoard tag."""
    return dataclasses.field(
        **default,
        metadata={
            "measure": {
                "label": label,
                "unit": unit,
                "definition": definition,
                "estimator": estimator,
                "source": source,
            },
            "place": place,
        },
    )


def bound(which: str, symbol: str) -> Any:
    """The minimum, mean or maximum of mu or sigma."""
    definition = f"{which} of {symbol} over all test images and latent dimensions"
    return measure(f"{which} of {symbol}", "", definition, place="latent")


def measures(group: type) -> Iterator[Measure]:
    """The measures that a dataclass holds, in the order of its fields."""
    for field in dataclasses.fields(group):
        if "measure" in field.metadata:
            yield Measure(field.name, f"{field.metadata['place']}/{field.name}", **field.metadata["measure"])


_ONE_DRAW = "one z an image, the same noise at every evaluation; unbiased"
_DRAWS = "a quarter of `evaluation.marginal_samples` draws during a run, one an image at the end; q(z) of all N images"
_SWAP = "one permutation without fixed points, on `evaluation.probe_images` images during a run, on all at the end"
_PRIOR = "on a quarter of `evaluation.probe_images` images during a run, on all at the end"
_BURDA = "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519"
_HOFFMAN = "Hoffman and Johnson 2016"
_LUCAS = "Lucas et al. 2019, arXiv 1911.02469"
_NAEEM = "Naeem et al. 2020, arXiv 2002.09797"
_BINKOWSKI = "Binkowski et al. 2018, arXiv 1801.01401"
_WANG = "Wang and Ziyin 2022, arXiv 2205.04009"


@dataclass(frozen=True)
class TrainingMeasures:
    """Means over the training batches since the last row, every `train.log_every` steps."""

    loss: float = measure("loss", "nats", "what is minimised: `plain_loss`, or a cure's own loss", place="train")
    plain_loss: float = measure("plain loss", "nats", "the reconstruction term + KL weight * KL", place="train")
    mse: float = measure("MSE", "per pixel", "squared error with z drawn from q(z|x)", place="train")
    kld: float = measure("KL", "nats", "E KL(q(z|x) || p(z)), summed over dimensions", place="train")
    kl_weight: float = measure("KL weight", "", "the schedule's weight (beta) of the KL term", place="train")
    images_per_second: float = measure(
        "images per second",
        "1/s",
        "training images per second since the last row, evaluations not counted",
        place="train",
    )


@dataclass(frozen=True)
class SplitMeasures:
    """At every evaluation, over the whole test split, or over `evaluation.test_images` of it."""

    test_images: int = measure("test images measured", "", "how many test images these measures are of", place="test")
    mse: float = measure(
        "MSE",
        "per pixel",
        "squared error of the mean image, z drawn from q(z|x); `one_step`: of each pixel given those before it",
        _ONE_DRAW,
        place="test",
    )
    mse_error: float = measure(
        "its standard error",
        "per pixel",
        "of the mean over the test images",
        "standard deviation / sqrt N",
        place="test",
    )
    mse_mu: float = measure(
        "MSE at z = mu",
        "per pixel",
        "squared error of the mean image, z = mu",
        "exact at the end, during a run of a quarter of `evaluation.probe_images`: `mse` and their mean difference, or "
        "their own mean, whichever has the smaller error; mostly, but not always, below `mse`: a decoder that has only "
        "met noisy codes can be worse at mu",
        place="test",
    )
    sse: float = measure(
        "SSE", "per image", "squared error summed over pixels, z drawn from q(z|x)", _ONE_DRAW, place="test"
    )
    kld: float = measure(
        "KL",
        "nats",
        "E KL(q(z|x) || p(z)), summed over dimensions",
        "closed form, exact; `expm1` keeps its digits near collapse",
        "Kingma and Welling 2014, arXiv 1312.6114, app. B",
        place="test",
    )
    elbo: float = measure(
        "ELBO",
        "nats",
        "E log p(x|z) - KL at KL weight 1, with the likelihood's constants",
        _ONE_DRAW,
        "Kingma and Welling 2014, arXiv 1312.6114",
        place="test",
    )
    elbo_error: float = measure(
        "its standard error", "nats", "of the mean over the test images", "standard deviation / sqrt N", place="test"
    )
    mu_min: float = bound("minimum", "mu")
    mu_mean: float = bound("mean", "mu")
    mu_max: float = bound("maximum", "mu")
    sigma_min: float = bound("minimum", "sigma")
    sigma_mean: float = bound("mean", "sigma")
    sigma_max: float = bound("maximum", "sigma")
    active_units: int = measure(
        "active units",
        "",
        "number of j with Var_x(E[z_j|x]) > `thresholds.active_variance`",
        "variance with 1/N; blind to a decoder that does not read the code",
        f"{_BURDA}, sec. 5",
    )
    active_sigma: float = measure(
        "sigma of the active units", "", "mean sigma over images and active dimensions; over all where none is active"
    )
    active_spread: float = measure(
        "E[z^2] of the active units", "", "E[z_j^2] over images and those dimensions: 1 where q(z) fits the prior"
    )
    sigma_ratio: float = measure(
        "sigma over the spread of mu",
        "",
        "the largest, over those dimensions, of mean sigma_j / standard deviation of mu_j: near 0 each code is a point",
    )
    mutual_information: float = measure(
        "mutual information",
        "nats",
        "I(x; z) under q",
        f"E[log q(z|x) - log q(z)]: {_DRAWS}; never above `mutual_information_ceiling`, too low where that binds",
        _HOFFMAN,
    )
    mutual_information_ceiling: float = measure("its ceiling", "nats", "log N", source=_HOFFMAN)
    marginal_kl: float | None = measure(
        "marginal KL",
        "nats",
        "KL(q(z) || p(z))",
        f"E[log q(z) - log p(z)]: {_DRAWS}; errs high where the mutual information errs low, so none within a nat of "
        "its ceiling: there it is at most `kld` - `mutual_information`",
        _HOFFMAN,
    )
    swap_gap: float = measure(
        "nats lost with another's code",
        "nats",
        "E [log p(x|z) - log p(x|z')], z the image's own code and z' another image's: what the decoder reads in it",
        f"{_SWAP}; unbiased",
    )
    swap_gap_error: float = measure(
        "its standard error",
        "nats",
        "of the mean over images of that difference",
        "paired: standard deviation / sqrt N",
    )
    swap_gap_p: float = measure(
        "its sign test",
        "",
        "the chance that so many images lose by the swap, or more, if each did with probability 1/2, as where the "
        "decoder does not read the code",
        "exact, one-sided; tells with few images, of which a mean is not known well",
    )
    explained_variance: float = measure(
        "explained variance",
        "",
        "1 - MSE / the variance of a pixel over the test images, around its own mean",
        "1: perfect, 0: no better than one image for all; z drawn from q(z|x)",
        place="test",
    )
    reconstruction_gap: float = measure(
        "SSE lost with another's code", "per image", "SSE with another image's code less SSE with its own", _SWAP
    )
    reconstruction_gap_prior: float = measure(
        "SSE lost with a prior code", "per image", "SSE with a code from the prior less SSE with its own", _PRIOR
    )
    collapsed_fraction_001: float = measure(
        "(0.001, 0.01)-collapse",
        "",
        "fraction of the dimensions with KL_j < 0.001 nats on at least 99 % of the images",
        source=f"{_LUCAS}, def. 1",
    )
    collapsed_fraction_01: float = measure(
        "(0.01, 0.01)-collapse", "", "the same with KL_j < 0.01 nats", source=f"{_LUCAS}, def. 1"
    )
    collapsed_fraction_1: float = measure(
        "(0.1, 0.01)-collapse", "", "the same with KL_j < 0.1 nats", source=f"{_LUCAS}, def. 1"
    )


@dataclass(frozen=True)
class FinalMeasures:
    """Once, at the end of a run or with `python run.py evaluate=DIR`. None where a measure does not apply."""

    total_correlation: float | None = measure(
        "total correlation",
        "nats",
        "KL(q(z) || prod_j q(z_j))",
        "as the mutual information, on `evaluation.marginal_samples` draws; errs high where that errs low, so none "
        "within a nat of its ceiling",
        "Watanabe 1960; Chen et al. 2018, arXiv 1802.04942",
    )
    probe_accuracy: float | None = measure(
        "accuracy of a linear probe",
        "",
        "accuracy on the test split of logistic regression on one draw of z; none without labels of two kinds",
        "fitted on up to 10,000 training images, fewer where there are many classes or dimensions; of more than 100 "
        "classes the 100 most frequent ones",
    )
    probe_majority: float | None = measure(
        "accuracy of always the same answer",
        "",
        "fraction of the most frequent class among the test images that the probe was asked",
    )
    iwae_bound: float | None = measure(
        "IWAE bound",
        "nats",
        "E log (1/K) sum_k p(x, z_k) / q(z_k|x); none where the likelihood is no density of these images",
        "K = `evaluation.iw_samples` on the probe images; a lower bound on log p(x)",
        f"{_BURDA}, eq. 8",
    )
    iwae_elbo: float | None = measure(
        "ELBO of the same images", "nats", "the mean over those K draws of log p(x, z_k) / q(z_k|x)", "unbiased"
    )
    posterior_gap: float | None = measure(
        "IWAE bound over that ELBO",
        "nats",
        "`iwae_bound` - `iwae_elbo`: what inexact inference costs, KL(q(z|x) || p(z|x))",
        "at least so much is lost: the bound lies below log p(x)",
        f"{_BURDA}, eq. 8",
    )
    cut_gap: float = measure(
        "gap with the code cut off",
        "nats",
        "E log p(x|z) - log p(x|0): what log p(x|z) loses when the decoder gets zeros for a code. To be held against "
        "the KL, which is what the code costs",
        "on the probe images; a decoder without a code, as explain= trains it, makes up for part of it",
    )
    cut_gap_error: float = measure(
        "standard error of that gap", "nats", "over the images, of the paired differences", "on the probe images"
    )
    used_dimensions: int | None = measure(
        "used dimensions",
        "",
        "number of j whose replacement by prior noise costs more than `thresholds.used_nats` of log p(x|z) for each "
        "unit of the KL weight",
        "on `evaluation.probe_images` images, of large images or wide codes on fewer, from 32 on; none of more than "
        "512 dimensions",
    )
    pca_mse: float | None = measure(
        "MSE of a PCA",
        "per pixel",
        "squared error of the test images' projections on the first d principal components of the training images",
        "exact up to 1,024 pixels or images, a block Krylov method beyond; where the training images are not at hand, "
        "of one half of the images on the other's components, which errs high",
    )
    constant_elbo: float | None = measure(
        "ELBO of a constant image",
        "nats",
        "E log p(x) of the test images where every code decodes to the mean of the training images: a dead code's best",
        "exact but for a fitted variance, which is the training images'",
    )
    gain: float | None = measure(
        "gain over a constant image",
        "nats",
        "how far the loss of training images, at the highest KL weight that the run has had, lies below that of a "
        "constant image: to be held against `predicted_gain`",
        "on the images of `train_elbo`, one z an image; unbiased",
    )
    train_elbo: float = measure(
        "ELBO of training images",
        "nats",
        "the ELBO on as many training images as there are test images, at most 10,000",
        _ONE_DRAW,
    )
    train_constant_elbo: float | None = measure(
        "ELBO of a constant image, training images", "nats", "`constant_elbo` of the images of `train_elbo`"
    )
    overfit_error: float | None = measure(
        "standard error of what test images lack",
        "nats",
        "of how much less test images gain than training images: (`train_elbo` - `train_constant_elbo`) - (`elbo` - "
        "`constant_elbo`)",
        "of the gains of each image, over a constant image: the root of the sum of both squared standard errors",
    )
    train_mse: float = measure("MSE of training images", "per pixel", "MSE of the same images", _ONE_DRAW)
    decoder_sensitivity: float | None = measure(
        "decoder sensitivity",
        "pixel values",
        "mean over j of |d image / d z_j| at z = mu",
        "exact, by differentiating twice, on the images of `used_dimensions`; none of more than 512 dimensions",
    )
    predicted_test_kld: float | None = measure(
        "KL of a linear VAE, of test images",
        "nats",
        "`predicted_kld` with the variance of the test images, in all and along the principal components of the "
        "training images, in place of the eigenvalues: what a code can say of images that it has not learnt by heart",
        "errs low where components are known from few training images; none of fewer than 100 test images, or where "
        "these vary by less than half as much",
        source=_WANG,
        place="prediction",
        default=None,
    )


_KINDS = {
    "sample": "prior samples",
    "mixture": "mixture samples",
    "real": "training images",
}


def sampled(kind: str, what: str, space: str = "") -> Any:
    """A measure of generated images, or of real ones in their place."""
    label, definition, estimator, source = {
        "density": (
            "density",
            "in how many balls around test images one of the {} lies, on average, over 5; 1 where alike",
            "balls to the fifth neighbour; on `quality_images` images",
            _NAEEM,
        ),
        "coverage": (
            "coverage",
            "fraction of the test images in whose ball one of the {} lies",
            "about .97 where alike; on `quality_images` images",
            _NAEEM,
        ),
        "kid": (
            "KID",
            "squared maximum mean discrepancy between {} and test images, kernel (x.y / f + 1)^3 of f features",
            "unbiased, so it may be below 0; mean of ten blocks of images",
            _BINKOWSKI,
        ),
        "kid_error": ("its standard error", "of the mean over the ten blocks, of {}", "exact", _BINKOWSKI),
        "c2st": (
            "C2ST accuracy",
            "accuracy of a small network that tells {} from test images; .5: it cannot",
            "trained on one half, asked of the other; standard deviation 1 / (2 sqrt `quality_images`)",
            "Lopez-Paz and Oquab 2017, arXiv 1610.06545",
        ),
    }[what]
    where = ", in the space of the classifier" if space else ""
    of = {"sample": "of prior samples", "mixture": "of mixture samples", "real": "of real images"}[kind]
    title = f"{label} {of}{where}" if what != "kid_error" else label
    return measure(title, "", definition.format(_KINDS[kind]) + where, estimator, source, place="samples", default=None)


@dataclass(frozen=True)
class SampleMeasures:
    """Once, at the end of a run: generated images beside test images, in two spaces of features: coordinates on the
    first 64 principal components of the training images and the length of the rest, and the last layer of a small
    classifier. Those of real images look worse than they are where the components were fitted to few images,
    these among them (see vae.measure.quality). None where a measure does not apply."""

    quality_images: int | None = measure(
        "images of each kind", "", "how many images of each kind these measures are of", place="samples", default=None
    )
    sample_density: float | None = sampled("sample", "density")
    sample_coverage: float | None = sampled("sample", "coverage")
    sample_kid: float | None = sampled("sample", "kid")
    sample_kid_error: float | None = sampled("sample", "kid_error")
    sample_c2st: float | None = sampled("sample", "c2st")
    mixture_density: float | None = sampled("mixture", "density")
    mixture_coverage: float | None = sampled("mixture", "coverage")
    mixture_kid: float | None = sampled("mixture", "kid")
    mixture_kid_error: float | None = sampled("mixture", "kid_error")
    mixture_c2st: float | None = sampled("mixture", "c2st")
    real_density: float | None = sampled("real", "density")
    real_coverage: float | None = sampled("real", "coverage")
    real_kid: float | None = sampled("real", "kid")
    real_kid_error: float | None = sampled("real", "kid_error")
    real_c2st: float | None = sampled("real", "c2st")
    class_accuracy: float | None = measure(
        "accuracy of the classifier",
        "",
        "accuracy on test images of the small classifier whose last layer is the second space of features; none "
        "without labels of 2 to 100 classes",
        "on at most 2,000 test images",
        place="samples",
        default=None,
    )
    sample_class_density: float | None = sampled("sample", "density", "class")
    sample_class_coverage: float | None = sampled("sample", "coverage", "class")
    sample_class_kid: float | None = sampled("sample", "kid", "class")
    sample_class_kid_error: float | None = sampled("sample", "kid_error", "class")
    mixture_class_density: float | None = sampled("mixture", "density", "class")
    mixture_class_coverage: float | None = sampled("mixture", "coverage", "class")
    mixture_class_kid: float | None = sampled("mixture", "kid", "class")
    mixture_class_kid_error: float | None = sampled("mixture", "kid_error", "class")
    real_class_density: float | None = sampled("real", "density", "class")
    real_class_coverage: float | None = sampled("real", "coverage", "class")
    real_class_kid: float | None = sampled("real", "kid", "class")
    real_class_kid_error: float | None = sampled("real", "kid_error", "class")


@dataclass(frozen=True)
class LinearMeasures:
    """For a linear VAE at its end: measured on the training split with the expectation over z taken exactly, beside the
    closed form."""

    linear_kept: int = measure("kept dimensions", "", "dimensions whose mean KL is above 0.01 nats", source=_LUCAS)
    optimum_kept: int = measure("kept at the optimum", "", "number of eigenvalues above t, at most d", source=_WANG)
    linear_kld: float = measure("KL", "nats", "E KL(q(z|x) || p(z)) on the training split", source=_LUCAS)
    optimum_kld: float = measure(
        "KL at the optimum", "nats", "(1/2) sum log(lambda_i / t) over those kept", source=_WANG
    )
    linear_sse: float = measure("SSE", "per image", "E SSE over z on the training split", source=_LUCAS)
    optimum_sse: float = measure(
        "SSE at the optimum", "per image", "the eigenvalues that are not kept, and t for each that is", source=_WANG
    )
    linear_elbo: float = measure("ELBO", "nats", "at KL weight 1, on the training split", source=_LUCAS)
    optimum_elbo: float = measure("ELBO at the optimum", "nats", "the same of the closed form", source=_WANG)


def wider(latent_dim: int) -> int:
    """How many dimensions `predicted_gain_wider` is of."""
    return latent_dim + min(latent_dim, 64)


@dataclass(frozen=True)
class Prediction:
    """Before the first step, from the spectrum of the training data; in result.json at the highest KL weight that the
    run has had. For Gaussian likelihoods of a linear VAE; for other exponential families to second order around the
    collapsed state, with lambda_i of the data whitened by the likelihood's curvature and t = beta. None where the
    closed form does not apply."""

    effective_t: float | None = measure(
        "t",
        "",
        "t = beta sigma^2, the KL weight times the pixel variance (one that is fitted: at the optimum)",
        source=_LUCAS,
        place="prediction",
    )
    largest_eigenvalue: float = measure(
        "largest eigenvalue",
        "",
        "lambda_1 of the training data's covariance with 1/N",
        "exact up to 1,024 pixels or images (products in float32 of more than 65,536 images), a block Krylov method "
        "beyond (to 1 %); of more than 2^28 pixels in all, of a random sample of the images, which errs high",
        place="prediction",
    )
    predicted_active_units: int | None = measure(
        "kept by a linear VAE",
        "",
        "min(d, number of eigenvalues above t)",
        "exact for a linear VAE; a network may keep more or fewer",
        f"{_WANG}, thm. 2",
        place="prediction",
        default=None,
    )
    predicted_mse: float | None = measure(
        "MSE of a linear VAE", "per pixel", "its expected SSE / n", source=_WANG, place="prediction", default=None
    )
    predicted_kld: float | None = measure(
        "KL of a linear VAE",
        "nats",
        "(1/2) sum log(lambda_i / t) over those kept",
        source=_WANG,
        place="prediction",
        default=None,
    )
    predicted_gain: float | None = measure(
        "gain of a linear VAE",
        "nats",
        "how far its loss lies below that of a constant image: (1/2) beta sum (lambda_i / t - 1 - log(lambda_i / t)), "
        "and what a fitted variance adds",
        source=_WANG,
        place="prediction",
        default=None,
    )
    predicted_gain_wider: float | None = measure(
        "the same with more dimensions",
        "nats",
        "`predicted_gain` with twice as many latent dimensions, at most 64 more",
        source=_WANG,
        place="prediction",
        default=None,
    )
    predicted_collapse_weight: float | None = measure(
        "KL weight from which collapse is stable",
        "",
        "lambda_1 / sigma^2: from here on the collapsed state is stable; with a fitted variance lambda_1 n / sum of "
        "all eigenvalues; for other likelihoods lambda_1 of the whitened data",
        source=_WANG,
        place="prediction",
        default=None,
    )


GROUPS = (TrainingMeasures, SplitMeasures, FinalMeasures, SampleMeasures, LinearMeasures, Prediction)
CATALOGUE: dict[str, Measure] = {item.name: item for group in GROUPS[1:] for item in measures(group)}  # of result.json


def table(group: type) -> str:
    """The measures of a group as a table in Markdown: docs/measures.md."""
    rows = [
        "| measure | unit | definition | how it is estimated, which way it errs | source |",
        "|---|---|---|---|---|",
    ]
    for item in measures(group):
        cells = (f"`{item.name}`", item.unit, item.definition, item.estimator, item.source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|").replace("\\|\\|", "‖") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
