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
    label: str, unit: str, definition: str, estimator: str = "exact", source: str = "", place: str = "collapse"
) -> Any:
    """A field that holds a measure; `place` is the first part of its TensorBoard tag."""
    return dataclasses.field(
        metadata={
            "measure": {
                "label": label,
                "unit": unit,
                "definition": definition,
                "estimator": estimator,
                "source": source,
            },
            "place": place,
        }
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
_DRAWS = "`evaluation.marginal_samples` draws during a run, one an image at the end; q(z) of all N images"
_SWAP = "one permutation without fixed points, on `evaluation.probe_images` images during a run, on all at the end"
_BURDA = "Burda, Grosse and Salakhutdinov 2016, arXiv 1509.00519"
_HOFFMAN = "Hoffman and Johnson 2016"
_LUCAS = "Lucas et al. 2019, arXiv 1911.02469"
_WANG = "Wang and Ziyin 2022, arXiv 2205.04009"


@dataclass(frozen=True)
class TrainingMeasures:
    """Means over the training batches since the last row, every `train.log_every` steps."""

    loss: float = measure("loss", "nats", "what is minimised: the reconstruction term + KL weight * KL", place="train")
    mse: float = measure("MSE", "per pixel", "squared error with z drawn from q(z|x)", place="train")
    kld: float = measure("KL", "nats", "E KL(q(z|x) || p(z)), summed over dimensions", place="train")
    kl_weight: float = measure("KL weight", "", "the weight (beta) of the KL term at this step", place="train")
    images_per_second: float = measure(
        "images per second",
        "1/s",
        "training images per second since the last row, evaluations not counted",
        place="train",
    )


@dataclass(frozen=True)
class SplitMeasures:
    """At every evaluation, over the whole test split."""

    mse: float = measure(
        "MSE", "per pixel", "squared error of the mean image, z drawn from q(z|x)", _ONE_DRAW, place="test"
    )
    mse_mu: float = measure("MSE at z = mu", "per pixel", "squared error of the mean image, z = mu", place="test")
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
    mutual_information: float = measure(
        "mutual information",
        "nats",
        "I(x; z) under q",
        f"E[log q(z|x) - log q(z)]: {_DRAWS}; never above `mutual_information_ceiling`, too low where that binds",
        _HOFFMAN,
    )
    mutual_information_ceiling: float = measure("its ceiling", "nats", "log N", source=_HOFFMAN)
    marginal_kl: float = measure(
        "marginal KL",
        "nats",
        "KL(q(z) || p(z))",
        f"E[log q(z) - log p(z)]: {_DRAWS}; errs high where the mutual information errs low",
        _HOFFMAN,
    )
    reconstruction_gap: float = measure(
        "SSE lost with another's code", "per image", "SSE with another image's code less SSE with its own", _SWAP
    )
    reconstruction_gap_prior: float = measure(
        "SSE lost with a prior code", "per image", "SSE with a code from the prior less SSE with its own", _SWAP
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

    total_correlation: float = measure(
        "total correlation",
        "nats",
        "KL(q(z) || prod_j q(z_j))",
        "as the mutual information, on `evaluation.marginal_samples` draws",
        "Watanabe 1960; Chen et al. 2018, arXiv 1802.04942",
    )
    probe_accuracy: float | None = measure(
        "accuracy of a linear probe",
        "",
        "accuracy on the test split of logistic regression on mu; none without labels",
        "fitted on up to 10,000 training images",
    )
    iwae_bound: float | None = measure(
        "IWAE bound",
        "nats",
        "E log (1/K) sum_k p(x, z_k) / q(z_k|x); none where the likelihood is no density",
        "K = `evaluation.iw_samples` on the probe images; a lower bound on log p(x)",
        f"{_BURDA}, eq. 8",
    )
    iwae_elbo: float | None = measure("ELBO of the same images", "nats", "the IWAE bound's K = 1", "one z an image")
    used_dimensions: int = measure(
        "used dimensions",
        "",
        "number of j whose replacement by prior noise raises the SSE by the fraction `thresholds.used_gap`",
        "on `evaluation.probe_images` images",
    )
    decoder_sensitivity: float = measure(
        "decoder sensitivity",
        "pixel values",
        "mean over j of |d image / d z_j| at z = mu",
        "exact, by differentiating twice, on the probe images",
    )


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


@dataclass(frozen=True)
class Prediction:
    """Before the first step, from the spectrum of the training data; in result.json at the KL weight that the run has
    reached. None where the closed form does not apply."""

    effective_t: float | None = measure(
        "t", "", "t = beta sigma^2, the KL weight times the pixel variance", source=_LUCAS, place="prediction"
    )
    largest_eigenvalue: float = measure(
        "largest eigenvalue",
        "",
        "lambda_1 of the training data's covariance with 1/N",
        "exact in float64 up to 1,024 pixels, randomised subspace iteration beyond",
        place="prediction",
    )
    predicted_active_units: int | None = measure(
        "kept by a linear VAE",
        "",
        "min(d, number of eigenvalues above t)",
        "exact for a linear VAE; a network may keep more or fewer",
        f"{_WANG}, thm. 2",
        place="prediction",
    )
    predicted_mse: float | None = measure(
        "MSE of a linear VAE", "per pixel", "its expected SSE / n", source=_WANG, place="prediction"
    )
    predicted_kld: float | None = measure(
        "KL of a linear VAE", "nats", "(1/2) sum log(lambda_i / t) over those kept", source=_WANG, place="prediction"
    )
    predicted_collapse_weight: float | None = measure(
        "KL weight of its collapse",
        "",
        "lambda_1 / sigma^2: from here on it keeps nothing; with a fitted variance lambda_1 n / sum of all eigenvalues",
        source=_WANG,
        place="prediction",
    )


GROUPS = (TrainingMeasures, SplitMeasures, FinalMeasures, LinearMeasures, Prediction)
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
