"""The shape of a run's configuration: every name that conf/ may set, its type, its range and its unit.

The values live in conf/*.yaml; these dataclasses say what may stand there. No torch."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol

from omegaconf import MISSING

MAX_SIZE = 2**31 - 1  # of a layer: more than any memory holds
MAX_LAYERS = 100  # of each network of an MLPModel
TABLES, EXPORTS = ("csv", "npz", "parquet"), ("onnx", "safetensors", "torchscript")  # formats
MAX_STAGES = 12  # that halve an image


def within(
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    **default: Any,
) -> Any:
    """A field whose value (or each value of a list) must lie within these bounds. `default`: as for a dataclass's
    field; for keys that configurations of earlier versions do not have."""
    bounds = [("at least", ge), ("above", gt), ("at most", le), ("below", lt)]
    allowed = " and ".join(f"{word} {bound:.10g}" for word, bound in bounds if bound is not None)

    def accepts(value: float) -> bool:
        return not (
            (ge is not None and value < ge)
            or (gt is not None and value <= gt)
            or (le is not None and value > le)
            or (lt is not None and value >= lt)
        )

    return dataclasses.field(**(default or {"default": MISSING}), metadata={"accepts": accepts, "allowed": allowed})


def one_of(*options: str, default: str | None = MISSING) -> Any:
    """A field that takes one of these strings."""
    metadata = {"accepts": options.__contains__, "allowed": "one of " + ", ".join(options)}
    return dataclasses.field(default=default, metadata=metadata)


def place(default: Any = MISSING) -> Any:
    """A file or a directory of the user's, as this call's directory sees it."""
    return dataclasses.field(default=default, metadata={"is_place": True})


def name() -> Any:
    """A short name that is part of a path: letters, digits and ._-=,+ only."""

    def accepts(value: str) -> bool:
        return 0 < len(value) <= 120 and value[0] not in ".-" and all(c.isalnum() or c in "._-=,+" for c in value)

    allowed = "up to 120 letters, digits and ._-=,+ that do not start with a dot or dash"
    return dataclasses.field(default=MISSING, metadata={"accepts": accepts, "allowed": allowed})


@dataclass
class Part:
    """One option of a group. `kind` says which dataclass and which builder; `name` is free: it tells runs apart."""

    kind: str = MISSING
    name: str = name()

    def check(self) -> None:
        """Raises ValueError, with the field's name first, where this option's own values are no good together."""


def kinds(group: type[Part]) -> dict[str, type[Part]]:
    """The dataclasses that an option of this group may have, by their `kind`: all below `group` that give it one."""
    found: dict[str, type[Part]] = {}
    for part in group.__subclasses__():
        if part.kind != MISSING:
            found[part.kind] = part
        found |= kinds(part)
    return found


@dataclass
class Model(Part):
    latent_dim: int = within(ge=1, le=MAX_SIZE)  # d, dimensions of z
    posterior: str = one_of("gaussian", "dirac", "none")  # dirac: z = mu, an autoencoder; none: the decoder has no code
    output: str | None = one_of("linear", "sigmoid")  # from the decoder's last layer to pixels; null: the objective's
    start: str = one_of("glorot", "spectral", default="glorot")  # spectral: a linear path beside it, at its optimum

    def misfit(self, objective: "Objective") -> str | None:
        """What of it, each fine alone, does not go together, or not with `objective`; None where all does."""
        if self.start != "spectral":
            return None
        if not objective.has_linear_optimum:
            return (
                f"model.start=spectral with objective={objective.name}: no linear optimum is known of it; take a "
                "Gaussian one or bernoulli, or leave model.start out"
            )
        if self.output == "sigmoid" and not isinstance(objective, Bernoulli | ContinuousBernoulli):
            return "model.start=spectral with model.output=sigmoid: the optimum is of a linear output; leave one out"
        return None


def check_stages(field: str, channels: list[int] | None) -> None:
    if channels is not None and not 1 <= len(channels) <= MAX_STAGES:
        raise ValueError(f"{field}={channels}: must be 1 to {MAX_STAGES} numbers, one a convolution, or null")


@dataclass
class ConvModel(Model):
    kind: str = "conv"
    channels: list[int] | None = within(ge=1, le=MAX_SIZE)  # feature maps of each stride-2 convolution; null: by size
    hidden: int = within(ge=1, le=MAX_SIZE)  # units of the fully connected layer on each side of the code

    def check(self) -> None:
        check_stages("channels", self.channels)


@dataclass
class AutoencoderModel(ConvModel):
    """The conv network that has no KL term."""

    kind: str = "ae"


@dataclass
class MLPModel(Model):
    kind: str = "mlp"
    encoder_widths: list[int] = within(ge=1, le=MAX_SIZE)  # units of each hidden layer; the list's length is the depth
    decoder_widths: list[int] = within(ge=1, le=MAX_SIZE)

    def check(self) -> None:
        for field in ("encoder_widths", "decoder_widths"):
            if len(getattr(self, field)) > MAX_LAYERS:
                raise ValueError(f"{field}: {len(getattr(self, field))} layers; at most {MAX_LAYERS} are allowed")


@dataclass
class LinearModel(Model):
    kind: str = "linear"


@dataclass
class PixelCNNModel(Model):
    """A decoder that predicts each pixel from those before it and from the code."""

    kind: str = "pixelcnn"
    encoder: str = one_of("mlp", "conv")
    encoder_widths: list[int] = within(ge=1, le=MAX_SIZE)  # of the mlp: units of each hidden layer
    encoder_channels: list[int] | None = within(ge=1, le=MAX_SIZE)  # of the conv, as in ConvModel
    encoder_hidden: int = within(ge=1, le=MAX_SIZE)  # of the conv: units of its fully connected layer
    kernels: list[int] = within(
        ge=1, le=99
    )  # pixels a side, one a layer, odd; []: no autoregression, the code as a map
    channels: int = within(ge=1, le=MAX_SIZE)  # feature maps of each layer
    residual: bool = MISSING  # what comes into a layer is added to what goes out, from the second on
    z_as: str = one_of("map", "bias")  # a map says where; a bias is one number a channel, the same everywhere
    skip: bool = MISSING  # the code enters at every layer, not just the first
    map_by: str = one_of("dense", "conv")  # how a map is made of a code: place by place, or by transposed convolutions
    map_channels: int = within(ge=1, le=MAX_SIZE)
    map_hidden: int = within(ge=1, le=MAX_SIZE)  # units between code and map; of conv: feature maps

    def check(self) -> None:
        check_stages("encoder_channels", self.encoder_channels)
        for field in ("encoder_widths", "kernels"):
            if len(getattr(self, field)) > MAX_LAYERS:
                raise ValueError(f"{field}: {len(getattr(self, field))} layers; at most {MAX_LAYERS} are allowed")
        even = [kernel for kernel in self.kernels if kernel % 2 == 0]
        if even:
            raise ValueError(f"kernels={self.kernels}: {even[0]} is even; kernels have a centre, so they must be odd")
        if self.kernels and self.kernels[0] < 3:
            raise ValueError(
                f"kernels={self.kernels}: the first leaves out its centre, and one of 1 sees nothing; at least 3, or "
                "[] for no autoregression"
            )

    def misfit(self, objective: "Objective") -> str | None:
        if self.start == "spectral" and self.kernels:
            return (
                f"model.start=spectral with model.kernels={self.kernels}: no linear optimum is known of a decoder that "
                "sees pixels; leave it out"
            )
        return super().misfit(objective)


@dataclass
class CustomModel(Model):
    kind: str = "custom"
    encoder: dict[str, Any] = MISSING  # _target_ and arguments; called with shape (C, H, W) and latent_dim
    decoder: dict[str, Any] = MISSING


@dataclass
class Objective(Part):
    has_linear_optimum = True  # model.start=spectral knows where to begin; of one's own its likelihood says so


@dataclass
class SquaredError(Objective):
    kind: str = "sse"


@dataclass
class PixelMSE(Objective):
    kind: str = "pixel_mse"


@dataclass
class Gaussian(Objective):
    kind: str = "gaussian"
    sigma2: float = within(gt=0)  # variance of a pixel around the decoder's mean


@dataclass
class OptimalGaussian(Objective):
    kind: str = "optimal_gaussian"
    smoothing: float = within(ge=0, lt=1)  # a step's weight in the fitted variance is 1 - smoothing


@dataclass
class Bernoulli(Objective):
    kind: str = "bernoulli"


@dataclass
class ContinuousBernoulli(Objective):
    kind: str = "continuous_bernoulli"


@dataclass
class DiscretisedLogistic(Objective):
    has_linear_optimum = False
    kind: str = "discretised_logistic"


@dataclass
class Categorical(Objective):
    has_linear_optimum = False
    kind: str = "categorical"


@dataclass
class CustomObjective(Objective):
    kind: str = "custom"
    likelihood: dict[str, Any] = MISSING  # _target_ and arguments; called with shape (C, H, W)


@dataclass
class Anneal(Part):
    def without_kl(self) -> str | None:
        """What leaves the KL term out at every step; None where nothing does."""
        return None


@dataclass
class NoKL(Anneal):
    kind: str = "no_kl"

    def without_kl(self) -> str | None:
        return f"anneal={self.name}"


@dataclass
class ConstantKL(Anneal):
    kind: str = "constant"
    weight: float = within(ge=0)  # KL weight (beta) at every step

    def without_kl(self) -> str | None:
        return "anneal.weight=0" if self.weight == 0 else None


@dataclass
class RisingKL(Anneal):
    """What every schedule that rises has: the weight at which it stops."""

    weight: float = within(gt=0)  # KL weight (beta) at the end of the rise


@dataclass
class DelayedKL(RisingKL):
    kind: str = "delayed"
    threshold: float = within(gt=0)  # waits until the smoothed training MSE is at most this,
    threshold_of: str = one_of("variance", "mse")  # as a fraction of the data's variance, or per pixel
    patience: int | None = within(ge=1)  # or has made no progress for so many steps; null: waits for the threshold
    rate: float = within(gt=0)  # then the weight rises by this much a step
    smoothing: float = within(ge=0, lt=1)  # memory of the exponential mean over steps
    observe_every: int = within(ge=1)  # steps between two looks at the MSE (each waits for the device)


@dataclass
class LinearKL(RisingKL):
    kind: str = "linear"
    steps: int = within(ge=1)  # the weight reaches its end here


@dataclass
class SigmoidKL(RisingKL):
    kind: str = "sigmoid"
    midpoint: float = within(ge=0)  # step at which half of the weight is reached
    steepness: float = within(gt=0)  # per step


@dataclass
class CyclicalKL(RisingKL):
    kind: str = "cyclical"
    steps: int = within(ge=1)  # T, length of the whole schedule
    cycles: int = within(ge=1)  # M
    rising: float = within(gt=0, le=1)  # R, the fraction of a cycle in which the weight rises


@dataclass
class CustomKL(Anneal):
    kind: str = "custom"
    schedule: dict[str, Any] = MISSING  # _target_ and arguments


class Curable(Protocol):
    """What a cure must go together with; RunConfig is one."""

    @property
    def model(self) -> Model: ...
    @property
    def anneal(self) -> Anneal: ...
    @property
    def train(self) -> "Train | None": ...  # None: not known


@dataclass
class Cure(Part):
    """A published rule against collapse. `changes_loss`: what is minimised is not the reconstruction term + KL weight *
    KL; `changes_weight`: the KL weight is not the schedule's; `compares_images`: it goes by how the codes of a batch's
    images differ; `ends_plain`: at the end of the training neither is changed any more."""

    changes_loss = False
    changes_weight = False
    ends_plain = False
    compares_images = False
    fits_spectral_start = True  # the model is still what model.start=spectral is exact for

    @property
    def ends_with_own_loss(self) -> bool:
        """Whether the end of the training minimises another loss than the one that predictions are of."""
        return self.changes_loss and not self.ends_plain

    def least_kl(self, latent_dim: int) -> float:
        """The mean KL, in nats, below which its layer lets no code fall."""
        return 0.0

    def refuses(self, config: Curable) -> str | None:
        """Why this cure cannot go with the other parts, which part first; None where it can."""
        model = config.model
        if model.posterior != "gaussian":
            return f"model.posterior={model.posterior}: there is no KL term to cure; take model.posterior=gaussian"
        without = config.anneal.without_kl()
        if without is not None:
            return f"{without}: there is no KL term to cure; take another anneal, or leave cure out"
        if self.changes_weight and not isinstance(config.anneal, ConstantKL):
            return f"anneal={config.anneal.name}: both say what the KL weight is; leave one of them out"
        if model.start == "spectral" and not self.fits_spectral_start:
            return "model.start=spectral: it starts a model without that layer; leave one of them out"
        if self.compares_images and config.train is not None and config.train.batch_size == 1:
            return "train.batch_size=1: it goes by how the images of a batch differ, and one does not; take 2 or more"
        return None


@dataclass
class NoCure(Cure):
    kind: str = "none"

    def refuses(self, config: Curable) -> str | None:
        return None


@dataclass
class ScheduleCure(Cure):
    """A KL schedule that rises to the weight of anneal=constant."""

    changes_weight = True
    kind: str = "schedule"
    schedule: Anneal = MISSING  # its weights are fractions of anneal.weight


@dataclass
class FreeBits(Cure):
    changes_loss = True
    kind: str = "free_bits"
    floor: float = within(gt=0)  # nats of each group, which cost nothing
    group_size: int = within(ge=1)  # dimensions a group; 1: each by itself

    def refuses(self, config: Curable) -> str | None:
        if config.model.latent_dim % self.group_size:
            return (
                f"cure.group_size={self.group_size} and model.latent_dim={config.model.latent_dim}: groups must be of "
                "one size; take a divisor"
            )
        return super().refuses(config)


@dataclass
class Capacity(Cure):
    changes_loss = True
    kind: str = "capacity"
    capacity: float = within(gt=0)  # nats, C at the end of its rise
    steps: int = within(ge=1)  # over which C rises from 0
    gamma: float = within(gt=0)  # price of a nat off C


@dataclass
class MuForcing(Cure):
    changes_loss = True
    compares_images = True
    kind: str = "mu_forcing"
    floor: float = within(gt=0)  # of the variance of mu over the images, summed over dimensions
    strength: float = within(gt=0)  # nats for each unit below it


@dataclass
class MMD(Cure):
    changes_loss = True
    compares_images = True
    kind: str = "mmd"
    alpha: float = within(le=1)  # 1 - alpha is the fraction of the KL term that stays
    lam: float = within(ge=0)  # alpha + lam - 1 is the weight of the MMD, in nats

    def check(self) -> None:
        if self.alpha + self.lam - 1 <= 0:
            raise ValueError(
                f"lam={self.lam:g} with alpha={self.alpha:g}: the MMD would have weight alpha + lam - 1 = "
                f"{self.alpha + self.lam - 1:g}; must be above 0, so lam above {1 - self.alpha:g}"
            )


@dataclass
class ControlVAE(Cure):
    changes_loss = True
    changes_weight = True
    kind: str = "controlvae"
    target: float = within(gt=0)  # nats, the KL that is held
    proportional: float = within(ge=0)  # Kp
    integral: float = within(gt=0)  # Ki, a step and nat
    max_weight: float = within(gt=0)  # of the KL term, as a multiple of anneal.weight


@dataclass
class GECO(Cure):
    changes_loss = True
    changes_weight = True
    kind: str = "geco"
    goal: float = within(gt=0, lt=1)  # the squared error that is allowed, as a fraction of the data's variance
    rate: float = within(gt=0, le=1)  # that log lambda moves by, a step and unit of the constraint
    smoothing: float = within(ge=0, lt=1)  # memory of the constraint's exponential mean over steps


@dataclass
class BatchNormMu(Cure):
    compares_images = True
    fits_spectral_start = False
    kind: str = "batch_norm_mu"
    gamma: float = within(gt=0)  # standard deviation of each mu_j over the images
    momentum: float = within(gt=0, le=1)  # of a batch in the running mean and variance that evaluation uses

    def least_kl(self, latent_dim: int) -> float:
        return latent_dim * self.gamma**2 / 2


@dataclass
class Delta(Cure):
    fits_spectral_start = False
    kind: str = "delta"
    delta: float = within(gt=0, le=100)  # nats, the KL that each dimension has for every image

    def least_kl(self, latent_dim: int) -> float:
        return latent_dim * self.delta


@dataclass
class Scale(Cure):
    changes_loss = True
    compares_images = True
    fits_spectral_start = False
    kind: str = "scale"
    spread: float = within(gt=0)  # standard deviation over the images of each mu_j that the decoder gets
    momentum: float = within(gt=0, le=1)  # of a batch in the running factors that evaluation uses


@dataclass
class Skip(Cure):
    fits_spectral_start = False
    kind: str = "skip"

    def refuses(self, config: Curable) -> str | None:
        model = config.model
        if not isinstance(model, ConvModel | MLPModel | PixelCNNModel):
            return f"model={model.name}: its decoder has no layers that are known here to skip to; take another model"
        if isinstance(model, PixelCNNModel) and len(model.kernels) < 2:
            return f"model.kernels={model.kernels}: there is no layer to skip to; take two or more"
        if isinstance(model, MLPModel) and not model.decoder_widths:
            return "model.decoder_widths=[]: there is no layer to skip to; take one or more"
        return super().refuses(config)


@dataclass
class InverseLipschitz(Cure):
    fits_spectral_start = False
    kind: str = "inverse_lipschitz"
    bound: float = within(gt=0)  # L: raw outputs of two codes lie at least L times as far apart as the codes
    widths: list[int] = within(ge=1, le=MAX_SIZE)  # units of each layer of the two convex potentials

    def check(self) -> None:
        if not 1 <= len(self.widths) <= MAX_LAYERS:
            raise ValueError(f"widths={self.widths}: must be 1 to {MAX_LAYERS} numbers, one a layer")

    def refuses(self, config: Curable) -> str | None:
        model = config.model
        sees_no_pixels = isinstance(model, PixelCNNModel) and not model.kernels
        if not (isinstance(model, ConvModel | MLPModel) or sees_no_pixels):
            return f"model={model.name}: the cure is a decoder of its own, in place of one of conv_vae or mlp_vae"
        return super().refuses(config)


@dataclass
class SpectralStart(Cure):
    kind: str = "spectral_start"

    def refuses(self, config: Curable) -> str | None:
        if config.model.start != "spectral":
            return f"model.start={config.model.start}: the cure is model.start=spectral; leave model.start out"
        return super().refuses(config)


@dataclass
class Aggressive(Cure):
    kind: str = "aggressive"
    max_inner: int = within(ge=1)  # steps of the encoder alone before each of the decoder
    compare_every: int = within(ge=1)  # they end where the mean loss of so many steps is above that of those before
    patience: int = within(ge=1)  # passes of the decoder over the data after which mutual information is below its best


@dataclass
class Pretrain(Cure):
    changes_loss = True
    changes_weight = True
    ends_plain = True
    kind: str = "pretrain"
    autoencoder: float = within(gt=0, lt=1)  # fraction of the steps without a KL term, after which the decoder is reset
    rising: float = within(gt=0, le=1)  # fraction of the steps in which the KL weight then rises to its end
    floor: float = within(ge=0)  # nats, of all dimensions together, which cost nothing

    def refuses(self, config: Curable) -> str | None:
        if config.model.start == "spectral":
            return "model.start=spectral: the decoder is reset on the way; leave one of them out"
        return super().refuses(config)

    def check(self) -> None:
        if self.autoencoder + self.rising > 1:
            raise ValueError(
                f"rising={self.rising:g} with autoencoder={self.autoencoder:g}: more than the run; at most 1 in all"
            )


@dataclass
class IWAE(Cure):
    changes_loss = True
    kind: str = "iwae"
    samples: int = within(ge=1, le=10_000)  # K codes an image
    gradient: str = one_of("dreg", "plain")  # of the encoder: doubly reparameterised, or of the bound as it stands


@dataclass
class CustomCure(Cure):
    """What it changes stands here, not on its class: a saved run is judged, and explained, without importing that."""

    kind: str = "custom"
    rule: dict[str, Any] = MISSING  # _target_ and arguments; called with context
    changes_loss: bool = MISSING
    changes_weight: bool = MISSING


def schedule_of(anneal: Anneal, cure: Cure) -> tuple[str, Anneal]:
    """What the KL weight follows, and the key that it stands under."""
    return ("cure.schedule", cure.schedule) if isinstance(cure, ScheduleCure) else ("anneal", anneal)


def is_side(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 4 <= value <= 4096


def is_range(value: Any) -> bool:
    return value == "auto" or (isinstance(value, int | float) and not isinstance(value, bool))


def check_range(value: Any) -> None:
    numbers = isinstance(value, list) and not any(isinstance(item, str) for item in value)
    if value != "auto" and not (numbers and len(value) == 2 and value[0] < value[1]):
        raise ValueError(f"range={value}: must be auto, or [black,white] with black below white")


def is_colour(value: str) -> bool:
    from PIL import ImageColor  # only where a colour is given

    try:
        ImageColor.getrgb(value)
    except ValueError:
        return False
    return True


@dataclass
class Dataset(Part):
    """`binarize`: threshold: 1 from half of white on; static: 1 with each pixel's own brightness for its probability,
    once; dynamic: the training images anew each time they are drawn."""

    binarize: str = one_of("none", "threshold", "static", "dynamic", default="none")


@dataclass
class Torchvision(Dataset):
    kind: str = "torchvision"
    train_size: int | None = within(ge=2, default=None)  # only the first so many training images; null: all
    source: str = one_of("MNIST", "FashionMNIST", "KMNIST", "CIFAR10")  # class of torchvision.datasets
    root: str = place()  # directory that holds the files, or that they are downloaded to
    download: bool = MISSING


@dataclass
class HoldOut(Dataset):
    """What a dataset needs that brings no test split of its own."""

    test_fraction: float = within(gt=0, lt=1)
    split_seed: int = within(ge=0)  # the split stays the same when `seed` changes


@dataclass
class Embedded(HoldOut):
    kind: str = "embedded"


@dataclass
class Folder(HoldOut):
    kind: str = "folder"
    root: str = place()  # directory of images, or of train/ and test/ (or val/)
    size: Any = dataclasses.field(  # pixels a side, or [height, width]; null: the files' own size
        default=None,
        metadata={"accepts": is_side, "allowed": "a whole number from 4 to 4096, or [height,width] of them"},
    )
    fit: str = one_of("crop", "pad", "stretch", default="crop")  # how another shape is brought to `size`
    grayscale: bool = MISSING  # one channel; else three, equal ones of grey files
    background: str | None = dataclasses.field(  # what lies behind transparent pixels; null: they are refused
        default=None,
        metadata={
            "accepts": is_colour,
            "allowed": "white, black, or a colour as in CSS, quoted twice (\"'#ff8800'\")",
        },
    )
    range: Any = dataclasses.field(  # [black, white] of files of more than 8 bits; auto: from the values of all of them
        default="auto", metadata={"accepts": is_range, "allowed": "auto, or [black,white], two numbers"}
    )
    frames: str = one_of("first", "all", default="first")  # of files with several, which are images
    skip_broken: bool = False  # files that cannot be read are left out
    follow_links: bool = False  # also those that lead out of `root`
    max_megapixels: int = within(ge=1, le=100_000, default=200)  # a larger image counts as broken
    cache: str = place()  # directory for the decoded images

    def check(self) -> None:
        if self.root == "":
            raise ValueError("root=: is empty; must name the folder that the images are in ('.': this one)")
        if isinstance(self.size, list) and len(self.size) != 2:
            raise ValueError(f"size={self.size}: must be one number, or [height,width]")
        check_range(self.range)


@dataclass
class Arrays(HoldOut):
    kind: str = "arrays"
    train: str = place()  # .npy, .npz, .pt, .h5, .csv or .parquet
    test: str | None = place(None)  # the same for the test split; null: a fraction of `train`
    labels: str | None = place(None)  # .npy of the training labels; null: in the file, or beside it as NAME_labels.npy
    test_labels: str | None = place(None)
    key: str | None = None  # name of the images, in the file that has it; null: the usual ones
    shape: list[int] | None = within(ge=1, default=None)  # of rows of pixels: [H,W] or [C,H,W], as `layout` says
    layout: str = one_of("auto", "channels_first", "channels_last", default="auto")
    range: Any = dataclasses.field(  # [black, white]; auto: from the type and the values
        default="auto", metadata={"accepts": is_range, "allowed": "auto, or [black,white], two numbers"}
    )

    def check(self) -> None:
        if self.shape is not None and len(self.shape) not in (2, 3):
            raise ValueError(f"shape={self.shape}: must be [height,width] or [channels,height,width]")
        check_range(self.range)


@dataclass
class StaticMNIST(Dataset):
    kind: str = "amat"
    root: str = place()  # directory of binarized_mnist_train.amat, _valid.amat and _test.amat
    with_validation: bool = MISSING  # the validation images are trained on too


@dataclass
class Omniglot(Dataset):
    kind: str = "omniglot"
    file: str = place()  # chardata.mat of Burda et al. 2016


@dataclass
class Synthetic(Dataset):
    kind: str = "gaussian"
    spectrum: list[float] = within(gt=0)  # variance of each pixel; the image is 1 x 1 x len(spectrum)
    train_size: int = within(ge=2)
    test_size: int = within(ge=2)
    data_seed: int = within(ge=0)

    def check(self) -> None:
        if not self.spectrum:
            raise ValueError("spectrum=[]: must be the variances of one pixel or more, as in '[4,1,0.5]'")


@dataclass
class CustomDataset(Dataset):
    kind: str = "custom"
    data: dict[str, Any] = MISSING  # _target_ and arguments of a function that gives a vae.data.split.Data


@dataclass
class Train:
    steps: int = within(ge=1)
    batch_size: int = within(ge=1)  # images a step
    optimizer: str = one_of("adam", "adamw", "sgd", "rmsprop")  # of torch.optim
    lr: float = within(gt=0)
    momentum: float = within(ge=0, lt=1)  # of the gradient: Adam's beta1, SGD's and RMSprop's momentum
    beta2: float = within(ge=0, lt=1)  # of the squared gradient: Adam's beta2, RMSprop's alpha; sgd has none
    lr_schedule: str = one_of("constant", "cosine", "steps")  # cosine: from lr to 0 over the run
    milestones: list[int] = within(ge=1, default_factory=list)  # steps: after each of them the learning rate is
    decay: float = within(gt=0, le=1, default=0.1)  # multiplied by this
    eps: float = within(gt=0, default=1e-8)  # added to what a step is divided by; sgd has none
    centered: bool = False  # rmsprop: the squared gradient less the square of its mean
    warmup_steps: int = within(ge=0)  # the learning rate rises to lr in a line over this many steps; 0: at once
    max_grad_norm: float | None = within(gt=0)  # longer gradients are scaled down to it; null: never
    log_every: int = within(ge=1)  # steps between two rows of train/ scalars
    eval_every: int = within(ge=1)  # steps between two passes over the test split
    patience: int | None = within(ge=1, default=None)  # evaluations without a lower loss of validation images
    # after which training stops, and the best model is kept; null: all steps
    validation_fraction: float = within(gt=0, lt=1, default=0.1)  # of the training images, where data bring none
    checkpoint_every: int = within(ge=0)  # steps between two checkpoints besides those at evaluations; 0: only those
    device: str = MISSING  # auto, cpu, cuda, cuda:1
    precision: str = one_of("fp32", "bf16", "auto")  # of the networks in training; auto: bf16 where it is no emulation
    threads: int = within(ge=0, le=1024)  # CPU threads; 0: one a core, of a launcher's worker its share of them
    cuda_graph: bool = True  # on a GPU an update is one CUDA graph, where its kernels are the same each time

    def held_out(self, total: int) -> int:
        """How many of so many training images early stopping goes by, where the data bring no validation images."""
        return min(max(round(self.validation_fraction * total), 2), total - 2)


@dataclass
class Thresholds:
    """Where one verdict ends and the next begins. Each is printed with the verdict that it decided."""

    active_variance: float = within(ge=0)  # a dimension is active when mu varies by more than this over the images
    used_nats: float = within(ge=0)  # the code is used when another image's costs this much log p(x|z), at KL weight 1
    residue_nats: float = within(ge=0)  # both, of an autoregressive decoder: less is what its own fit leaves over
    collapsed_kld: float = within(ge=0)  # nats; with an unused code and less KL than this: collapsed
    little_kld: float = within(ge=0)  # nats; where no more than this is predicted, the objective leaves no code
    deterministic_sigma: float = within(ge=0)  # sigma over the spread of mu, in each active dimension, of a point
    prior_misfit: float = within(ge=1)  # and E[z^2] above this, where the prior's is 1
    partly_fraction: float = within(ge=0, le=1)  # of the KL predicted; with less: partly collapsed
    partly_gain: float = within(ge=0, le=1)  # and less than this fraction of what the loss was predicted to gain
    dip_fraction: float = within(ge=0, lt=1)  # a KL below this fraction of its peak, and back, is a dip
    unfinished_steps: int = within(ge=0)  # with fewer steps nothing is judged
    unfinished_fall: float = within(ge=0, le=1)  # of the loss's whole fall; with more in the last third: unfinished
    overfit: float = within(ge=0)  # of what the training loss gained over a constant image, lost on test images


@dataclass
class Evaluation:
    batch_size: int = within(ge=1)  # images a forward pass
    test_images: int | None = within(ge=2, default=10_000)  # of more, a random choice is measured; null: all
    marginal_samples: int = within(ge=1)  # draws for the total correlation; a quarter of them for q(z) during a run
    probe_images: int = within(ge=2)  # images for what is costly: single dimensions, sensitivity, the IWAE bound
    iw_samples: int = within(ge=1)  # K of the IWAE bound
    quality_images: int = within(ge=0, default=1000)  # of each kind, for the quality of samples; 0: not measured
    thresholds: Thresholds = MISSING


@dataclass
class Pictures:
    columns: int = within(ge=1, le=64)  # images a row in the grids
    traversal_dims: int = within(ge=1)  # how many of the most active dimensions are traversed
    gamma: float = within(gt=0)  # pixels are shown as x ** (1 / gamma); above 1 lifts small values
    gif_every: int = within(ge=0)  # steps between two frames of training.gif; 0: no GIF
    report: bool = True  # a single run ends with a report.html of its own; a sweep has one for all of them


@dataclass
class Tracking(Part):
    """What a run's curves are written with, besides TensorBoard, which always has them."""


@dataclass
class TensorBoardAlone(Tracking):
    kind: str = "tensorboard"


@dataclass
class MLflow(Tracking):
    kind: str = "mlflow"
    experiment: str = MISSING  # the name that its runs stand under


@dataclass
class WandB(Tracking):
    kind: str = "wandb"
    project: str = MISSING  # the name that its runs stand under


@dataclass
class Explain:
    """Twins of a finished run that differ from it in one thing, and tell the cause of a collapse."""

    run: str | None = None  # its directory, or a sweep's; explain=DIR is short for it
    steps: int | None = dataclasses.field(  # of each twin; null: as many as the run's own
        default=None, metadata={"accepts": lambda value: value >= 1, "allowed": "at least 1"}
    )


@dataclass
class Use:
    """What a finished run is used for: each of the first five names a run's directory, on the command line without
    `use.`."""

    encode: str | None = None  # the codes of the images of `dataset`, into a table
    reconstruct: str | None = None  # the images of `dataset` beside their reconstructions
    sample: str | None = None  # new images
    interpolate: str | None = None  # between two images of `dataset`
    export: str | None = None  # the network, for other programs
    n: int = within(ge=1, le=1_000_000, default=100)  # images to make
    sampler: str = one_of("prior", "gaussian", "mixture", default="prior")  # where codes are drawn from
    format: str | None = one_of(*TABLES, *EXPORTS, default=None)  # of encode=, null: csv; of export=
    between: list[int] = within(ge=0, default_factory=lambda: [0, 1])  # places of two test images


@dataclass
class RunConfig:
    run_name: str = name()
    seed: int = within(ge=0, lt=2**63)
    model: Model = MISSING
    objective: Objective = MISSING
    anneal: Anneal = MISSING
    cure: Cure = MISSING
    dataset: Dataset = MISSING
    train: Train = MISSING
    evaluation: Evaluation = MISSING
    pictures: Pictures = MISSING
    tracking: Tracking = MISSING
    metric: str = one_of("mse", "sse", "kld", "elbo", "active_units", "mutual_information")  # for sweepers that search
    evaluate: str | None = None  # directory of a finished run, to measure again instead of training one
    resume: str | None = None  # directory of a run, or of a sweep, to resume
    init: str | None = place(None)  # directory of a run whose weights a new run begins with
    recommend: bool = False  # say which settings suit the images, and train nothing
    choose: bool = False  # a run takes those settings that this call does not give
    explain: Explain = dataclasses.field(default_factory=Explain)
    use: Use = dataclasses.field(default_factory=Use)
    allow: Any = None  # modules that a resumed or re-evaluated run's own parts may be imported from: a name, or a list
    experiment: Any = None  # groups that set the others and hold nothing themselves
    cause: Any = None  # which cause of a dead code the run is to show; sets the others as an experiment does
    sweep: Any = None

    def schedule(self) -> tuple[str, Anneal]:
        """What the KL weight follows, and the key that it stands under."""
        return schedule_of(self.anneal, self.cure)

    def verbs(self) -> dict[str, str]:
        """What this call is to do with a run that exists, and the run's directory; empty where it trains a new one."""
        use = self.use
        asked = {
            "evaluate": self.evaluate,
            "resume": self.resume,
            "explain": self.explain.run,
            "encode": use.encode,
            "reconstruct": use.reconstruct,
            "sample": use.sample,
            "interpolate": use.interpolate,
            "export": use.export,
        }
        return {verb: directory for verb, directory in asked.items() if directory is not None}
