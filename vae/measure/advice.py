"""What may help a run, as settings to change: each with its reason. No torch.

tests/measure/test_advice.py follows each of them on a case of its kind and shows that it helped."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vae.config import schema
from vae.measure import cured
from vae.measure.catalogue import wider
from vae.measure.setting import Setting
from vae.measure.verdict import DEAD
from vae.measure.written import number

LONG = 1000  # steps that most runs need
PATIENCE = 5  # evaluations
LOOKS = 20  # evaluations of a run that stops by them
FAR = 4  # times the KL weight: where the collapsed state is stable from there on only, much is to be had
BLOWN_UP = 10_000  # times the variance: where so much squared error is there, after few steps, these were too large
SLIGHT = 10  # times t: where so much squared error is left, and
FEATHER = 0.01  # of the ELBO's own KL weight, where there is no t: it is not the KL term that holds a code back
WIDE, WORSE_IMAGES = 10, 1.2  # times the squared error that is left, and times a PCA's
WORSE = 0.9  # of a linear VAE's gain: with less the network is worse than one
LEFT_OUT, BROUGHT_BACK = 0.1, 0.5  # of the test images; of those left out: where another sampler is worth it
IMAGES_EACH = 10  # to train on, for each dimension of a code
WIDER, LITTLE = 1.2, 1.0  # of a linear VAE's gain, with more latent dimensions, and nats: from there on worth them
NEAR = 0.8  # times the KL weight, at most 1: what is no less leaves a dead code dead


@dataclass(frozen=True)
class Advice:
    why: str
    overrides: tuple[str, ...]  # to add to the run's own; with a verb, to what it needs
    verb: str = ""  # resume, sample: what is to be done with the run itself; empty: a new run
    elsewhere: str = ""  # the same for a loss of one's own; empty: to write kl_weight, for which {weight} stands
    kl_weight: float | None = None  # beside the likelihood as it is


def advise(config: Setting, record: Mapping[str, Any], verdict: str, cause: str | None) -> list[Advice]:
    """For a run with this flat record, the most helpful first; nothing where nothing is wrong."""
    if verdict == "unfinished":
        return [_longer(config, record)]
    if verdict == "undecided":
        return []
    if not_begun(record):
        return [_begin(config, record)]
    if config.model.posterior == "none":
        return []
    if cause is None and verdict in DEAD and why_open(config, record):
        return []
    if cause == "decoder" or (cause is None and verdict in DEAD and record.get("one_step")):
        return [*_blinder(config), *_cured(config, record, cause)]
    if verdict in DEAD:
        if cause == "objective":
            return [*_scale(config, record), *_cured(config, record, cause)]
        if cause is None and config.cure.ends_with_own_loss:
            return _plain()
        return [*_cured(config, record, cause), _kinder(config, record)]
    if verdict == "deterministic":
        return [_with_kl(config, record), *_sampler(record)]
    if verdict == "alive_on_paper":
        stops = _stop_earlier(config, record) if by_heart(config, record) else []
        return [*_blinder(config), *_without_cure(config), *stops]
    own_loss = config.cure.ends_with_own_loss
    found = []
    if verdict == "partly_collapsed":
        found = _plain() if own_loss else [_kinder(config, record)]
    dimensions = f"model.latent_dim={config.model.latent_dim}"
    little = config.evaluation.thresholds.little_kld
    predicted = record["predicted_kld"]
    if predicted is not None and max(predicted, record["kld"]) < little and _has_scale(config):
        found += _scale(config, record)
    elif too_wide(config, record):
        weight = record["max_kl_weight"]
        times = _width(record) / record["mse"]
        what = "the pixel variance" if weight >= 1 else "KL weight x pixel variance"
        found.append(
            Advice(
                f"sharper images: {what} is {times:.0f} times the squared error that is left",
                ("objective=optimal_gaussian",),
                kl_weight=weight * record["mse"] / record["effective_t"],
            )
        )
    elif not own_loss and worse_than_linear(config, record):
        found.append(
            Advice(
                "a linear VAE does better on these data",
                ("model=linear_vae", dimensions, *_of_layers(config)),
                elsewhere="give encoder and decoder a linear path beside the network, or train longer in smaller steps",
            )
        )
    if wants_dimensions(record):
        more = record["predicted_gain_wider"] / record["predicted_gain"] - 1
        more_dimensions = wider(config.model.latent_dim)
        found.append(
            Advice(
                f"with more dimensions a linear VAE would gain {more:.0%} more",
                (f"model.latent_dim={more_dimensions}",),
                elsewhere=f"take {more_dimensions} latent dimensions",
            )
        )
    return found + _sampler(record)


def why_open(config: Setting, record: Mapping[str, Any]) -> str:
    """Why nothing can be said of the cause of a dead code that has none; empty where it is not for want of images."""
    if config.cure.ends_with_own_loss and config.cure.changes_weight:
        return ""  # whatever is predicted for which images
    limits, kld = config.evaluation.thresholds, record["predicted_kld"]
    if kld is None or record.get("one_step"):
        return ""
    little = number(limits.little_kld)
    if kld < limits.little_kld:
        return (
            f"Why cannot be told without the training images: {number(kld)} nats are predicted for other images like "
            f"these, and at least {little} for these very ones, which a code could learn by heart. Hand over the "
            "training images, as train="
        )
    of_test = record.get("predicted_test_kld")
    if of_test is None or of_test >= limits.little_kld or record["kld"] >= kld / 2:
        return ""
    return (
        f"Why cannot be told: {number(kld)} nats are predicted for the training images, and {number(of_test)} for test "
        "images, so a code would learn the former by heart. Train on more images"
    )


def mixture_is_nearer(record: Mapping[str, Any]) -> bool:
    """Whether images of prior codes leave out test images that training images would cover, and those of a mixture's
    codes bring back half of them."""
    prior, mixture, real = (record.get(f"{kind}_coverage") for kind in ("sample", "mixture", "real"))
    if prior is None or mixture is None or real is None:
        return False
    return bool(real - prior > LEFT_OUT and mixture - prior > BROUGHT_BACK * (real - prior))


def overfit(config: Setting, record: Mapping[str, Any]) -> tuple[float, float] | None:
    """What training and test images have gained, each over a constant image, in nats, where the test images lack much
    of it, and more than their means may be off; None where they do not, or that is not known."""
    if record["constant_elbo"] is None or record["train_constant_elbo"] is None:
        return None
    limits = config.evaluation.thresholds
    train = record["train_elbo"] - record["train_constant_elbo"]
    test = record["elbo"] - record["constant_elbo"]
    error = record.get("overfit_error")
    if error is None:  # as in earlier versions: of either mean, over as many images
        error = math.sqrt(2) * (record.get("elbo_error") or 0.0)
    is_much = train >= limits.little_kld and train - test > max(limits.overfit * train, 3 * error)
    return (float(train), float(test)) if is_much else None


def by_heart(config: Setting, record: Mapping[str, Any]) -> bool:
    """Whether a code that is not worth its KL on test images is one of training images, and not a cure's doing."""
    asks = config.cure.changes_loss or config.cure.least_kl(config.model.latent_dim) > 0
    return not asks and overfit(config, record) is not None


def _stop_earlier(config: Setting, record: Mapping[str, Any]) -> list[Advice]:
    """What helps where images are learnt by heart, of those that this run has not had."""
    why = "training stops before images are learnt by heart: once others gain no more; more images help as well"
    elsewhere = "train on more images, or stop once images that are not trained on gain no more"
    if config.train is None:
        return [Advice(why, (), elsewhere=elsewhere)]
    if config.train.patience is not None:
        return []
    often = min(config.train.eval_every, max(1, config.train.steps // LOOKS))
    left = record["train_images"] - config.train.held_out(record["train_images"])
    smaller = (f"train.batch_size={left}",) if left < config.train.batch_size else ()
    return [Advice(why, (f"train.patience={PATIENCE}", f"train.eval_every={often}", *smaller))]


def _sampler(record: Mapping[str, Any]) -> list[Advice]:
    why = "draw codes like those of the training images, whose images cover more of the real ones than the prior's"
    return [Advice(why, ("sampler=mixture",), verb="sample")] if mixture_is_nearer(record) else []


def not_begun(record: Mapping[str, Any]) -> bool:
    """Whether a schedule that should have reached a KL weight never gave it any."""
    return bool(record["final_kl_weight"] > 0 and record["max_kl_weight"] == 0)


def worse_than_linear(config: Setting, record: Mapping[str, Any]) -> bool:
    """Whether the loss has gained less over a constant image than a linear VAE would (Gaussian likelihoods only)."""
    predicted, gain = record["predicted_gain"], record["gain"]
    if predicted is None or gain is None or record["predicted_mse"] is None:
        return False
    if isinstance(config.model, schema.LinearModel):
        return False
    return gain < WORSE * predicted and predicted > config.evaluation.thresholds.little_kld


def too_wide(config: Setting, record: Mapping[str, Any]) -> bool:
    """Whether images are worse than a PCA's because the given pixel variance is far above the squared error that is
    left, at KL weight 1 and at the run's: the objective does not ask for better ones."""
    if not _has_scale(config) or record["effective_t"] is None or record["max_kl_weight"] == 0:
        return False
    if record["pca_mse"] is None:
        return False
    return _width(record) > WIDE * record["mse"] and record["mse"] > WORSE_IMAGES * record["pca_mse"]


def _width(record: Mapping[str, Any]) -> float:
    """The pixel variance that the objective stands for: its own, or at a KL weight below 1 t, which is less."""
    return float(record["effective_t"] / max(1.0, record["max_kl_weight"]))


def wants_dimensions(record: Mapping[str, Any]) -> bool:
    """Whether a linear VAE with more latent dimensions would gain much more, and more than this run has, which has used
    those it has. Of few images that gain is their noise, learnt by heart."""
    images, dimensions = record.get("train_images"), wider(record["latent_dim"])
    if images is not None and images < IMAGES_EACH * dimensions:
        return False
    gain, more, kept = (record[f"predicted_{name}"] for name in ("gain", "gain_wider", "active_units"))
    if gain is None or more is None or kept < record["latent_dim"] or record["used_dimensions"] is None:
        return False
    is_more = more > max(WIDER * gain, gain + LITTLE, record["gain"] or 0.0)
    return is_more and record["used_dimensions"] >= 0.9 * record["latent_dim"]


def _has_scale(config: Setting) -> bool:
    return isinstance(config.objective, schema.SquaredError | schema.PixelMSE | schema.Gaussian)


def _begin(config: Setting, record: Mapping[str, Any]) -> Advice:
    """What lets a KL term begin that never had a weight."""
    left, (key, anneal) = 1 - record["explained_variance"], config.schedule()
    if not isinstance(anneal, schema.DelayedKL):
        return _longer(config, record)
    waits_for = anneal.threshold / (1 if anneal.threshold_of == "variance" else variance(record))
    fitted = _fitted(config, record)
    if left <= waits_for and fitted:
        why = "at KL weight 1 this objective would leave little of the code: the pixel variance fitted, and longer"
        return Advice(
            why, (*fitted, f"train.steps={max(LONG, 3 * record['steps'])}"), elsewhere="fit the pixel variance"
        )
    if left <= waits_for:
        longer, why = _longer(config, record), "it waits for the smoothed MSE, which lags"
        return dataclasses.replace(longer, why=why if longer.elsewhere else f"train longer: {why}")
    if left >= 0.9:
        return _gentler(config)
    enough = min(0.9, math.ceil(200 * left) / 100)  # twice: the smoothed MSE lags behind
    more = [f"train.steps={LONG}"] if record["steps"] < LONG else []
    return Advice(
        f"the KL term waits no longer than until {enough:.0%} of the variance are left",
        (f"{key}.threshold_of=variance", f"{key}.threshold={enough:g}", *more, *fitted),
        elsewhere="raise its threshold",
    )


def variance(record: Mapping[str, Any]) -> float:
    """Of a pixel over the test images."""
    left = 1 - record["explained_variance"]
    return float(record["mse"] / left) if left > 0 else math.inf


def _fitted(config: Setting, record: Mapping[str, Any]) -> list[str]:
    """A fitted variance, where the given one would leave little to be had at KL weight 1."""
    objective, pixels = config.objective, record["sse"] / record["mse"]
    given = {schema.SquaredError: 0.5, schema.PixelMSE: pixels / 2, schema.Gaussian: getattr(objective, "sigma2", 0.0)}
    sigma2 = given.get(type(objective))
    is_wide = sigma2 is not None and record["largest_eigenvalue"] < FAR * sigma2
    return ["objective=optimal_gaussian"] if is_wide else []


def _longer(config: Setting, record: Mapping[str, Any]) -> Advice:
    train = config.train
    if train is None:
        return Advice("the loss has not settled", (), elsewhere="train longer")
    if record["steps"] < train.steps and record["best_step"] is None:
        return Advice("it was interrupted", (), verb="resume")
    before, excess = record["loss_fall_before"], record["loss_excess"]
    explained = record["explained_variance"]
    is_lost = before is None and (explained is None or explained < -BLOWN_UP)
    if is_lost or (before is not None and before < 0):
        return _gentler(config)
    if before is not None and excess is not None and excess > before and train.lr < 1e-4:
        return Advice("the learning rate is too low to get anywhere", ("train.lr=0.001",))
    steps = max(3 * record["steps"], train.steps, LONG)
    longer = (f"train.steps={steps}",)
    if record["steps"] < train.steps:  # stopped by its looks at the validation images, each of which counts against it
        apart = max(2 * train.eval_every, steps // LOOKS)
        return Advice("train longer, with more steps between two evaluations", (*longer, f"train.eval_every={apart}"))
    anew = train.patience is not None or train.lr_schedule == "cosine" or isinstance(config.cure, schema.Pretrain)
    return Advice("train longer", longer, verb="" if anew else "resume")  # as resume= refuses


def _scale(config: Setting, record: Mapping[str, Any]) -> list[Advice]:
    """What makes the objective ask for a code: the ELBO's own weight, a fitted variance, or a lower weight."""
    weight, edge = record["max_kl_weight"], record["predicted_collapse_weight"]
    why, overrides = [], []
    to: float | None = None  # the weight that does the same with the likelihood as it is
    if weight > 1:
        to = 1.0
        why.append("KL weight 1, where the loss is the ELBO")
        overrides += _at_weight(config, 1)
    if has_little_to_say(config, record):
        return [Advice("; ".join(why), tuple(overrides), kl_weight=to)] if overrides else []
    fitted = _fitted_weight(record)
    can_fit = config.train is not None or fitted is not None  # for the variance of a model from elsewhere: a KL weight
    if can_fit and _has_scale(config) and (edge is None or edge < FAR * min(weight, 1)):
        why.append("the pixel variance is fitted to what is left, so that t falls with it")
        overrides.append("objective=optimal_gaussian")
        to = fitted
        if config.train is None:
            left, t = f"{record['pca_mse']:.2g}", f"{record['effective_t']:.3g}"
            why = [f"KL weight x pixel variance is then {left}, what a PCA of as many dimensions leaves; now {t}"]
    elif weight > 0 and edge is not None and (weight <= 1 or edge <= 1):
        to = min(weight, edge) / 10
        why = ["a tenth of the KL weight, or of that from which on the collapsed state is stable"]
        overrides = _at_weight(config, to)
    return [Advice("; ".join(why), tuple(overrides), kl_weight=to)] if overrides else []


def has_little_to_say(config: Setting, record: Mapping[str, Any]) -> bool:
    """Whether what a PCA of as many dimensions leaves is about the pixel variance that is given: with that fitted, a
    dead code would stay dead. So it is of noise."""
    to = _fitted_weight(record) if _has_scale(config) else None
    return to is not None and NEAR * min(record["max_kl_weight"], 1) < to < 1 / NEAR


def _fitted_weight(record: Mapping[str, Any]) -> float | None:
    """The KL weight that does beside the given pixel variance what weight 1 does beside the variance that a PCA of as
    many dimensions leaves: t is the same."""
    t, weight, left = record["effective_t"], record["max_kl_weight"], record["pca_mse"]
    return left * weight / t if t and left else None


def _at_weight(config: Setting, weight: float) -> list[str]:
    own = [] if hasattr(config.anneal, "weight") else ["anneal=constant"]
    return [*own, f"anneal.weight={weight:.2g}"]


def _is_slight(record: Mapping[str, Any]) -> bool:
    """Whether the KL term asks for far better images than there are: then it is not what holds the code back."""
    t, weight = record["effective_t"], record["max_kl_weight"]
    return bool(weight > 0 and (weight < FEATHER if t is None else record["mse"] > SLIGHT * t))


def _kinder(config: Setting, record: Mapping[str, Any]) -> Advice:
    if _is_slight(record):
        gentle = _gentler(config)
        why = "the KL term is too slight to be what holds the code back: the images could be far better at this weight"
        elsewhere = "leave the KL weight as it is; take a larger network, train longer, or in smaller steps"
        return dataclasses.replace(gentle, why=why, elsewhere=elsewhere)
    weight = getattr(config.anneal, "weight", 1)
    waits = isinstance(config.anneal, schema.DelayedKL | schema.NoKL) or config.cure.changes_weight
    if waits or weight == 0:
        return _gentler(config)
    overrides = ("anneal=delayed", *([f"anneal.weight={weight:g}"] if weight != 1 else []))
    return Advice(
        "the KL term waits until the images are reconstructed",
        overrides,
        elsewhere="train anew with KL weight 0, and raise it to {weight} in small steps later",
        kl_weight=record["final_kl_weight"],
    )


def _without_cure(config: Setting) -> list[Advice]:
    why, elsewhere = "the cure is what makes it pay for a code", "train without the cure"
    return [] if config.cure.kind == "none" else [Advice(why, ("cure=none",), elsewhere=elsewhere)]


def _plain() -> list[Advice]:
    """The loss that the prediction is of, where a cure minimises its own."""
    return [Advice("the cure's own loss may ask for this", ("cure=none",), elsewhere="train without the cure")]


def _blinder(config: Setting) -> list[Advice]:
    """Less for a decoder to see that may need no code; its map twin says of explain= what helps one that cannot use
    it."""
    if not isinstance(config.model, schema.PixelCNNModel):
        return []
    return [Advice("a decoder that sees no pixels needs its code", ("model.kernels=[]", *_of_layers(config)))]


def _cured(config: Setting, record: Mapping[str, Any], cause: str | None) -> list[Advice]:
    """The cure that has done best where a code was dead for this cause, of those that go with this run and pay."""
    if record["max_kl_weight"] == 0:
        return []  # there is no KL term to cure
    is_predicted = record["predicted_kld"] is not None
    fit = [cell for cell in cured.helped(cause) if cured.fits(cell.cure, config, is_predicted)]
    able = [cell for cell in fit if cured.pays(cell.cure, record)]
    if not able:
        return []
    best, *others = able
    why = f"in trials {best.alive} of {best.runs} runs that show this cause were alive with cure={best.cure}, "
    why += cured.without(cause)
    if others:
        why += f"; as many with {' and with '.join(cell.cure for cell in others)}"
    why += " (docs/cures.md)"
    return [Advice(why, (f"cure={best.cure}",), elsewhere=f"take a published cure, {best.cure}")]


def _of_layers(config: Setting) -> tuple[str, ...]:
    """What goes with another decoder: none of the cures that need one of their kind."""
    return ("cure=none",) if isinstance(config.cure, schema.Skip | schema.InverseLipschitz) else ()


def _gentler(config: Setting) -> Advice:
    overrides = () if config.train is None else as_overrides(gentle_start(config.train))
    return Advice(
        "smaller steps, and a slow start",
        overrides,
        elsewhere="take a quarter of the learning rate, momentum (beta1) of at most 0.9, and a warm-up of the rate",
    )


def gentle_start(train: schema.Train) -> dict[str, Any]:
    """A quarter of the learning rate, no more momentum than 0.9, and a warm-up: fields of schema.Train."""
    return {
        "lr": float(f"{train.lr / 4:.2g}"),
        "warmup_steps": max(1, min(100, train.steps // 10)),
        "momentum": min(train.momentum, 0.9),
    }


def as_overrides(train: Mapping[str, Any]) -> tuple[str, ...]:
    """Fields of schema.Train as a command line sets them."""
    return tuple(f"train.{name}={value:g}" for name, value in train.items())


def _with_kl(config: Setting, record: Mapping[str, Any]) -> Advice:
    why, fitted = "a KL term makes codes from the prior mean something", _fitted(config, record)
    if config.train is None:
        sigma2 = getattr(config.objective, "sigma2", None)
        to = record["mse"] / sigma2 if sigma2 else 1.0  # beside a Gaussian: as with the variance that is left
        return Advice(why, (), kl_weight=to)
    if isinstance(config.model, schema.AutoencoderModel):
        return Advice(why, ("model=conv_vae", f"model.latent_dim={config.model.latent_dim}", *fitted))
    if config.model.posterior == "dirac":
        return Advice(why, ("model.posterior=gaussian", "anneal=constant", *fitted))
    if isinstance(config.anneal, schema.NoKL):
        return Advice(why, ("anneal=constant", *fitted))
    if record["max_kl_weight"] < 1:
        return Advice("KL weight 1, where the loss is the ELBO", (*_at_weight(config, 1), *fitted))
    return _longer(config, record)
