"""The shape of a run's configuration: every name that conf/ may set, its type, its range and its unit.

The values live in conf/*.yaml; these dataclasses say what may stand there. No torch."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


def within(
    *, ge: float | None = None, gt: float | None = None, le: float | None = None, lt: float | None = None
) -> Any:
    """A field without a default whose value (or each value of a list) must lie within these bounds."""
    bounds = [("at least", ge), ("above", gt), ("at most", le), ("below", lt)]
    allowed = " and ".join(f"{word} {bound:g}" for word, bound in bounds if bound is not None)

    def accepts(value: float) -> bool:
        return not (
            (ge is not None and value < ge)
            or (gt is not None and value <= gt)
            or (le is not None and value > le)
            or (lt is not None and value >= lt)
        )

    return dataclasses.field(default=MISSING, metadata={"accepts": accepts, "allowed": allowed})


def one_of(*options: str) -> Any:
    """A field without a default that takes one of these strings."""
    metadata = {"accepts": options.__contains__, "allowed": "one of " + ", ".join(options)}
    return dataclasses.field(default=MISSING, metadata=metadata)


def name() -> Any:
    """A short name that is part of a path: letters, digits and ._-=,+ only."""

    def accepts(value: str) -> bool:
        return 0 < len(value) <= 120 and value[0] not in ".-" and all(c.isalnum() or c in "._-=,+" for c in value)

    allowed = "up to 120 letters, digits and ._-=,+ that do not start with a dot or dash"
    return dataclasses.field(default=MISSING, metadata={"accepts": accepts, "allowed": allowed})


@dataclass
class Model:
    name: str = MISSING
    latent_dim: int = within(ge=1)  # d, dimensions of z
    posterior: str = one_of("gaussian", "dirac")  # dirac: z = mu, the deterministic autoencoder
    output: str | None = None  # linear or sigmoid: from the decoder's last layer to pixels; null: the objective's


@dataclass
class ConvModel(Model):
    channels: list[int] = within(ge=1)  # feature maps of the two stride-2 convolutions
    hidden: int = within(ge=1)  # units of the fully connected layer on each side of the code


@dataclass
class MLPModel(Model):
    encoder_widths: list[int] = within(ge=1)  # units of each hidden layer; the list's length is the depth
    decoder_widths: list[int] = within(ge=1)


@dataclass
class LinearModel(Model):
    pass


@dataclass
class Objective:
    name: str = MISSING


@dataclass
class Gaussian(Objective):
    sigma2: float = within(gt=0)  # variance of a pixel around the decoder's mean


@dataclass
class OptimalGaussian(Objective):
    smoothing: float = within(ge=0, lt=1)  # a step's share in the fitted variance is 1 - smoothing


@dataclass
class Anneal:
    name: str = MISSING


@dataclass
class NoKL(Anneal):
    pass


@dataclass
class ConstantKL(Anneal):
    weight: float = within(ge=0)  # KL weight (beta) at every step


@dataclass
class RisingKL(Anneal):
    """What every schedule that rises has: the weight at which it stops."""

    weight: float = within(gt=0)  # KL weight (beta) at the end of the rise


@dataclass
class DelayedKL(RisingKL):
    threshold: float = within(gt=0)  # waits until the smoothed training MSE (per pixel) is at most this
    rate: float = within(gt=0)  # then the weight rises by this much a step
    smoothing: float = within(ge=0, lt=1)  # memory of the exponential mean over steps
    observe_every: int = within(ge=1)  # steps between two looks at the MSE (each waits for the device)


@dataclass
class LinearKL(RisingKL):
    steps: int = within(ge=1)  # the weight reaches its end here


@dataclass
class SigmoidKL(RisingKL):
    midpoint: float = within(ge=0)  # step at which half of the weight is reached
    steepness: float = within(gt=0)  # per step


@dataclass
class CyclicalKL(RisingKL):
    steps: int = within(ge=1)  # T, length of the whole schedule
    cycles: int = within(ge=1)  # M
    rising: float = within(gt=0, le=1)  # R, the part of a cycle in which the weight rises


@dataclass
class Dataset:
    name: str = MISSING


@dataclass
class Torchvision(Dataset):
    root: str = MISSING  # directory that holds the files, or that they are downloaded to
    download: bool = MISSING


@dataclass
class HoldOut(Dataset):
    """What a dataset needs that brings no test split of its own."""

    test_fraction: float = within(gt=0, lt=1)
    split_seed: int = within(ge=0)  # the split stays the same when `seed` changes


@dataclass
class Embedded(HoldOut):
    pass


@dataclass
class Folder(HoldOut):
    root: str = MISSING  # directory of images, or of train/ and test/
    size: int | None = within(ge=4, le=4096)  # pixels a side, scaled and cropped to it; null: the files' own size
    grayscale: bool = MISSING
    cache: str = MISSING  # directory for the decoded images


@dataclass
class Arrays(HoldOut):
    train: str = MISSING  # .npy of images, or .npz with `images` and, if there are any, `labels`
    test: str | None = None  # the same for the test split; null: a part of `train`


@dataclass
class Synthetic(Dataset):
    spectrum: list[float] = within(gt=0)  # variance of each pixel; the image is 1 x 1 x len(spectrum)
    train_size: int = within(ge=2)
    test_size: int = within(ge=2)
    data_seed: int = within(ge=0)


@dataclass
class Train:
    steps: int = within(ge=1)
    batch_size: int = within(ge=1)  # images a step
    optimizer: str = one_of("adam", "adamw", "sgd")
    lr: float = within(gt=0)
    momentum: float = within(ge=0, lt=1)  # of the gradient: Adam's beta1
    beta2: float = within(ge=0, lt=1)  # of the squared gradient: Adam's and AdamW's; sgd has none
    lr_schedule: str = one_of("constant", "cosine")  # cosine: from lr to 0 over the run
    warmup_steps: int = within(ge=0)  # the learning rate rises to lr in a line over this many steps; 0: at once
    max_grad_norm: float | None = within(gt=0)  # longer gradients are scaled down to it; null: never
    log_every: int = within(ge=1)  # steps between two rows of train/ scalars
    eval_every: int = within(ge=1)  # steps between two passes over the test split
    checkpoint_every: int = within(ge=0)  # steps between two checkpoints besides those at evaluations; 0: only those
    device: str = MISSING  # auto, cpu, cuda, cuda:1
    precision: str = one_of("fp32", "bf16")  # bf16: autocast; weights and losses stay fp32
    threads: int = within(ge=0, le=1024)  # CPU threads; 0: one a core


@dataclass
class Thresholds:
    """Where one verdict ends and the next begins. Each is printed with the verdict that it decided."""

    active_variance: float = within(ge=0)  # a dimension is active when mu varies by more than this over the images
    used_gap: float = within(ge=0)  # the code is used when swapping codes raises the squared error by this part
    collapsed_kld: float = within(ge=0)  # nats; with an unused code and less KL than this: collapsed
    deterministic_sigma: float = within(ge=0)  # mean sigma of the active dimensions below which a code is a point
    prior_misfit: float = within(ge=1)  # and E[z^2] more than this factor away from the prior's 1
    partly_fraction: float = within(ge=0, le=1)  # of the dimensions expected; with fewer: partly collapsed
    dip_fraction: float = within(ge=0, lt=1)  # a fall of the KL below this part of its peak is a collapse on its way


@dataclass
class Evaluation:
    batch_size: int = within(ge=1)  # images a forward pass
    marginal_samples: int = within(ge=1)  # codes drawn for q(z) at each evaluation (at the end: one an image)
    probe_images: int = within(ge=2)  # images for what is costly: single dimensions, sensitivity, the IWAE bound
    iw_samples: int = within(ge=1)  # K of the IWAE bound
    thresholds: Thresholds = MISSING


@dataclass
class Pictures:
    columns: int = within(ge=1, le=64)  # images a row in the grids
    traversal_dims: int = within(ge=1)  # how many of the most active dimensions are traversed
    gamma: float = within(gt=0)  # pixels are shown as x ** (1 / gamma); above 1 lifts small values
    gif_every: int = within(ge=0)  # steps between two frames of training.gif; 0: no GIF


@dataclass
class RunConfig:
    run_name: str = name()
    seed: int = within(ge=0, lt=2**63)
    model: Model = MISSING
    objective: Objective = MISSING
    anneal: Anneal = MISSING
    dataset: Dataset = MISSING
    train: Train = MISSING
    evaluation: Evaluation = MISSING
    pictures: Pictures = MISSING
    metric: str = one_of("mse", "sse", "kld", "elbo", "active_units", "mutual_information")  # for sweepers that search
    evaluate: str | None = None  # directory of a finished run, to measure again instead of training one
    resume: str | None = None  # directory of a run, or of a sweep, to go on with
    experiment: Any = None  # groups that set the others and hold nothing themselves
    sweep: Any = None
