"""Models that other libraries train, known by what they offer (duck typing): no library is imported to tell.

A face is what a model says of itself: how it encodes and decodes, and, where it says so, its likelihood and KL weight.
Known are vae.load_run's models; modules with `encode` and `decode`, as in PyTorch's example and in Lightning's, whose
forward gives (reconstruction, mu, logvar); pythae's VAEs (Chadebec et al. 2022, arXiv 2206.08309) whose posterior is a
Gaussian and whose prior is N(0, I); diffusers' AutoencoderKL; and modules that hold one of these."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vae.config.errors import InputError
from vae.models import links
from vae.models.foreign import Decode, Encode
from vae.models.vae import VAE

# Models of pythae whose loss has other terms, so that what the KL weighs in it is no single number.
WITH_OTHER_TERMS = {"BetaTCVAE", "DisentangledBetaVAE", "FactorVAE", "VAEGAN", "Adversarial_AE", "MSSSIM_VAE"}
# Those whose loss is the IWAE bound, in which the KL weighs 1.
IWAES = {"IWAE", "CIWAE", "MIWAE", "PIWAE"}
# Those whose code is not drawn from N(mu, sigma^2), or whose prior is not N(0, I).
NOT_GAUSSIAN = {"VAE_IAF", "VAE_LinNF", "HVAE", "RHVAE", "SVAE", "PoincareVAE", "VAMP"}


@dataclass(frozen=True)
class Face:
    name: str
    encode: Encode
    decode: Decode
    log_variance: bool | None = None  # what the second output of encode is; None: the user says
    likelihood: str | None = None
    sigma2: float | None = None
    kl_weight: float | None = None  # None: it says nothing of it
    unknown: bool = False  # the KL weight: the user has to say it
    output: str | None = None  # as model.output: from what decode gives to pixels
    gives: str | None = None  # "logits": what decode gives to a Bernoulli likelihood; None: the user says

    def said_weight(self, usual: float = 1.0) -> float:
        """The KL weight, `usual` where the model says nothing of it. Raises InputError where the user has to."""
        if self.unknown:
            raise InputError(
                f"{self.name}: its loss does not tell what the KL weighs in it; say kl_weight=, beside the "
                "reconstruction term in nats"
            )
        return usual if self.kl_weight is None else self.kl_weight


def face_of(model: Any) -> Face:
    """What `model` offers. Raises InputError where nothing known is found in it."""
    found = _known(model)
    if found is not None:
        return found
    if isinstance(model, nn.Module):
        inside = {name: face for name, child in model.named_children() if (face := _known(child)) is not None}
        if len(inside) == 1:
            return next(iter(inside.values()))
        if inside:
            raise InputError(
                f"{type(model).__name__}: has several models in it ({', '.join(inside)}); hand over one of them"
            )
    raise InputError(
        f"{type(model).__name__}: has no encode and decode that are known; hand over two functions, encode(images) -> "
        "(mu, log_sigma) and decode(z) -> images"
    )


def _known(model: Any) -> Face | None:
    return next(
        (face for look in (_ours, _diffusers, _pythae, _pair, _forward) if (face := look(model)) is not None), None
    )


def _ours(given: Any) -> Face | None:
    """A network of vae.models.vae, or a trained run (vae.Run), whose `model` is one: that gives logits and gradients,
    which the run itself keeps back."""
    model = given if isinstance(given, nn.Module) else getattr(given, "model", None)
    if not isinstance(model, VAE):
        return None
    if model.is_autoregressive or not model.has_code:
        raise InputError("a decoder that sees pixels, or gets no code: python run.py evaluate=DIR measures such a run")
    output = "sigmoid" if model.link is links.sigmoid else None
    gives = None if model.link is links.identity else "logits"
    return Face("collapse-lab", model.encode, model.raw, output=output, gives=gives)


def _diffusers(model: Any) -> Face | None:
    """AutoencoderKL.encode(x).latent_dist and .decode(z).sample."""
    if not (hasattr(model, "quant_conv") and hasattr(model, "encode") and hasattr(model, "decode")):
        return None
    return Face("AutoencoderKL", model.encode, model.decode, log_variance=True)


def _pythae(model: Any) -> Face | None:
    """Its encoder gives embedding and log_covariance, its decoder a reconstruction; its loss is half the squared error,
    or the cross-entropy of probabilities, summed over pixels, and beta times the KL."""
    config = getattr(model, "model_config", None)
    if config is None or not hasattr(config, "reconstruction_loss") or not hasattr(model, "encoder"):
        return None
    name, kinds = type(model).__name__, {kind.__name__ for kind in type(model).__mro__}
    if kinds & NOT_GAUSSIAN:
        raise InputError(
            f"{name}: its code is not of N(mu, sigma^2) with the prior N(0, I), for which all measures here are; those "
            "of a VAE whose posterior and prior are can be diagnosed"
        )
    is_ssim = "MSSSIM_VAE" in kinds  # it inherits a reconstruction_loss that it does not use
    likelihood, sigma2 = {"mse": ("gaussian", 1.0), "bce": ("bernoulli", None)}.get(
        "" if is_ssim else config.reconstruction_loss, (None, None)
    )
    beta = 1 - model.alpha if "INFOVAE_MMD" in kinds else 1.0 if kinds & IWAES else getattr(model, "beta", 1.0)
    unknown = bool(kinds & WITH_OTHER_TERMS) or not isinstance(beta, int | float)
    weight = None if unknown else float(beta)
    return Face(name, model.encoder, model.decoder, True, likelihood, sigma2, weight, unknown)


def _pair(model: Any) -> Face | None:
    """`encode` and `decode` methods. By the convention of PyTorch's example the second output of encode is the log
    variance."""
    encode, decode = getattr(model, "encode", None), getattr(model, "decode", None)
    if not (callable(encode) and callable(decode)):
        return None
    return Face(type(model).__name__, encode, decode, log_variance=True)


def _forward(model: Any) -> Face | None:
    """A forward that gives (reconstruction, mu, logvar), and a decoder."""
    decode = getattr(model, "decode", getattr(model, "decoder", None))
    if not isinstance(model, nn.Module) or not callable(decode):
        return None

    def encode(images: Tensor) -> tuple[Tensor, ...]:
        given = model(images)
        if not isinstance(given, tuple) or len(given) != 3 or not all(isinstance(part, Tensor) for part in given):
            raise InputError(
                f"{type(model).__name__}: has no encode, and its forward gives no (reconstruction, mu, logvar); hand "
                "over two functions, encode and decode"
            )
        return given[1:]

    return Face(type(model).__name__, encode, decode, log_variance=True)
