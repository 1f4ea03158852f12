"""`vae.diagnose`: a model from elsewhere, measured by what measures the runs of this program."""

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae.config import checks, load, schema
from vae.config.errors import InputError
from vae.data import scale as pixel_scale
from vae.data.in_memory import split_of
from vae.data.split import Data, Split
from vae.diagnose.diagnosis import Diagnosis, Maps
from vae.diagnose.own_run import Told, data_of, told_by
from vae.measure import diagnostics, doubts
from vae.measure.advice import Advice
from vae.measure.evaluation import Evaluation
from vae.measure.setting import Elsewhere
from vae.measure.subject import Measured
from vae.measure.verdict import FEW
from vae.measure.watch import Rows, Trajectory
from vae.models import likelihood as likelihoods
from vae.models.faces import Face, face_of
from vae.models.foreign import TRIED, ForeignModel, networks_of, tried, undisturbed
from vae.models.likelihood import Bernoulli, Likelihood, OptimalGaussian
from vae.models.posteriors import Posterior
from vae.output.conclusion import judged
from vae.output.pictures import Album
from vae.output.record import Identity
from vae.runtime.rng import generator
from vae.scale.loss import Scale
from vae.training.finished import Run, load_run

MAX_CODES = 2**26  # numbers of all codes that are held; with larger codes fewer images are measured
MAX_CHANNELS = 64  # of a map, up to which each is replaced by noise
UNLIKE = 2.5  # times, by which the mean square of a pixel differs between images and train where it is said
FAR_OUT = 0.001  # of all pixel values, at either end: of no account for their range
SHOWN = 100  # eigenvalues in the plot
SMOOTHING = 0.99  # of a fitted variance in training, which is not seen here
LIKELIHOODS: dict[str, type[schema.Objective]] = {
    "bernoulli": schema.Bernoulli,
    "continuous_bernoulli": schema.ContinuousBernoulli,
    "categorical": schema.Categorical,
    "discretised_logistic": schema.DiscretisedLogistic,
}


@dataclasses.dataclass(frozen=True)
class History:
    """What was seen of a training: nothing, unless a Monitor saw it."""

    steps: int | None = None
    trajectory: Trajectory = Trajectory()
    final_weight: float | None = None  # the KL weight at which the schedule ends; None: it has ended
    rows: Rows = Rows((), (), ())
    best_step: int | None = None  # whose model it is, where early stopping was asked for
    cure: schema.Cure = dataclasses.field(default_factory=lambda: schema.NoCure(name="none"))
    stopped: bool = False  # the training has come to its own end (vae.output.record.stopped)
    anneal: schema.Anneal | None = None  # the schedule; None: not known, or not that of the KL weight which was said


def diagnose(
    encode: Any,
    decode: Any = None,
    images: Any = None,
    *,
    likelihood: str | Likelihood | None = None,
    sigma2: float | None = None,
    kl_weight: float | None = None,
    loss: Scale | None = None,
    labels: Any = None,
    train: Any = None,
    train_labels: Any = None,
    log_variance: bool | None = None,
    decoder_gives: str | None = None,
    device: str | torch.device | None = None,
    max_images: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    history: History | None = None,
    **evaluation: Any,
) -> Diagnosis:
    """Measure a VAE, judge it, say why and what may help. Nothing is trained, written or left changed.

    `encode`: images (B, C, H, W) to mu and log sigma (B, ...) of any shape, or with `log_variance` to mu and the log
    variance; or to a torch.distributions.Normal, or an object with .mean and .logvar or .latent_dist; mu alone is an
    autoencoder's. `decode`: codes to mean images, or to logits (Bernoulli likelihoods; `decoder_gives` says mean or
    logits, else their range does). Or a model in place of both: `diagnose(model, images)`, of the kinds in
    vae.models.faces. Or a run of this program, `diagnose("outputs/...")` or `diagnose(vae.load_run(...))`, which says
    all the rest itself. `images`: a tensor, an array, a DataLoader, a list of its batches or a dataset, on the scale
    that the model was trained on, best of images that it was not trained on. `train`: those that it was trained on, for
    the prediction, the gain and a linear probe; without it `images` stand for them. `labels` and `train_labels`: whole
    numbers.

    `likelihood`: gaussian (with `sigma2`, the variance of a pixel: 0.5 for a summed squared error), optimal_gaussian
    (its variance fitted), bernoulli, continuous_bernoulli, categorical, discretised_logistic, or a Likelihood of one's
    own; `kl_weight`: beside that likelihood in nats. Or `loss=vae.scale(...)`, which says both from the loss as it is
    written. `evaluation`: batch_size, probe_images, iw_samples, marginal_samples as in conf/config.yaml. `history`:
    what a vae.Monitor saw. The noise is a function of `seed` (0, of a run its own): a run of this program with that
    seed has the same numbers.

    Raises vae.InputError, in one line, where something is missing or has a wrong shape, range or sign."""
    check_loss(loss)
    _check_names(evaluation)
    sigma2 = None if sigma2 is None else checks.number("sigma2", sigma2)
    kl_weight = None if kl_weight is None else checks.number("kl_weight", kl_weight)
    max_images = None if max_images is None else checks.whole("max_images", max_images, 2)
    seed = None if seed is None else checks.whole("seed", seed, 0)
    if not callable(decode) and images is None:
        decode, images = None, decode
    if isinstance(encode, str | Path):
        encode = load_run(encode)
    if isinstance(encode, Run) and decode is None:
        face_of(encode)  # refuses what cannot be diagnosed, before anything is read
        own = told_by(encode)
        history = history or _history(own, images is None, kl_weight is None and loss is None)
        if images is None:
            images = data_of(encode, own.saved)
        elif isinstance(images, str | Path):
            images = encode.images(images)
        if loss is None:
            kl_weight = _first(kl_weight, own.kl_weight)
        if likelihood is None and loss is None:
            likelihood, sigma2 = own.likelihood, _first(sigma2, own.sigma2)
        evaluation = dataclasses.asdict(own.settings) | evaluation
        seed, name = _first(seed, own.saved.config.seed), name or own.saved.config.run_name
    face = face_of(encode) if decode is None else Face(name or "model", encode, decode)
    if images is None:
        raise InputError("images: needed, as in vae.diagnose(encode, decode, images)")
    log_variance = _first(log_variance, face.log_variance, False)
    settings, pictures = load.measuring(**evaluation)
    test, notes = split_of(images, labels, "images", max_images)
    objective, given = meaning(test, likelihood, sigma2, loss, face)
    if isinstance(encode, Run) and isinstance(given, OptimalGaussian):
        given.floor = given.FLOOR  # as it was trained
    where = None if device is None else _usable(device)
    with undisturbed(networks_of(face.encode, face.decode)), torch.no_grad():
        some = test.batch(slice(0, TRIED))
        refused = given.refuses(pixel_scale.sample(test).batch(slice(None)))
        if refused is not None:
            raise InputError(f"likelihood={objective.name}: {refused}")
        gives = face.gives if isinstance(given, Bernoulli) and decoder_gives is None else decoder_gives
        model = tried(face.encode, face.decode, given, some, log_variance, gives, where)
        weight = _weight(kl_weight, loss, face, model.is_dirac)
        if model.is_dirac:
            notes.append("encode gives mu alone: taken for an autoencoder, which has no KL term")
        limit = max(2, MAX_CODES // model.latent_dim)
        if limit < len(test):
            notes.append(
                f"{limit} of {len(test)} images are measured: their codes have {model.latent_dim} numbers each"
            )
            test = test.take(torch.arange(limit) * len(test) // limit)
        data, said = _data(test, images, train, train_labels)
        history = history or History()
        told = _model(model, name or face.name), objective, history.anneal or _anneal(weight), settings, seed or 0
        config = Elsewhere(*told, cure=history.cure)
        are_maps = math.prod(model.layout.latent_shape[1:]) > 1
        unseen = train is None and not isinstance(images, Data)
        subject = Measured(config, model, given, data, by_dimension=not are_maps, unseen=unseen)
        if isinstance(given, OptimalGaussian) and sigma2 is None:
            given.start_at(_left(subject))
        return _measured(subject, face, loss, weight, pictures, history, [*notes, *said])


def _history(own: Told, on_own_images: bool, at_own_weight: bool) -> History:
    """Of a run's own training. With other images nothing is said of its losses and events, which were of its own; at
    another KL weight there, not of its schedule either."""
    seen = own.steps, own.trajectory, own.final_weight, own.rows, own.best_step, own.cure, own.stopped
    history = History(*seen, own.anneal if at_own_weight else None)
    if on_own_images:
        return history
    if not at_own_weight:
        return History(cure=own.cure)
    highest = Trajectory(max_kl_weight=own.trajectory.max_kl_weight)
    return dataclasses.replace(history, trajectory=highest, rows=History.rows)


def _measured(
    subject: Measured,
    face: Face,
    loss: Scale | None,
    weight: float,
    pictures: schema.Pictures,
    history: History,
    notes: list[str],
) -> Diagnosis:
    config, model, data = subject.config, subject.model, subject.data
    assert isinstance(model, ForeignModel)
    done = subject.evaluate(thorough=True)
    _check_finite("images", data.test, _has_code(done.posterior, model.is_dirac), done.nll.isfinite())
    highest = max(history.trajectory.max_kl_weight, weight)
    trajectory = dataclasses.replace(history.trajectory, max_kl_weight=highest)
    identity = Identity(
        run_name=config.model.name,
        model=face.name,
        objective=config.objective.name,
        anneal=config.anneal.name,
        cure=config.cure.name,
        dataset="images",
        seed=config.seed,
        steps=history.steps,
        best_step=history.best_step,
        changes=None,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        latent_dim=model.latent_dim,
        train_images=len(data.train),
        classes=None,
        one_step=False,
        kl_weight=weight,
        final_kl_weight=weight if history.final_weight is None else history.final_weight,
    )

    settles, least = not config.cure.changes_loss, config.cure.least_kl(model.latent_dim)
    say, stopped = _in_words(weight, loss), history.stopped
    found = judged(subject, identity, done, trajectory, history.rows, say, settles, least, stopped)
    assert found.examination is not None
    final = found.examination.measures
    if not all(map(math.isfinite, (final.train_mse, final.gain or 0.0))):
        _left(subject)  # which says of which images
    some = data.test.batch(slice(0, config.evaluation.probe_images))
    notes = [*notes, *_few(data, subject.unseen)]
    doubt = doubts.of_scale(model, subject.likelihood, some, face.gives) or doubts.of_sigma(
        model, subject.likelihood, some, weight, config.seed
    )
    album = Album(pictures, data.test, model.latent_dim, config.seed, _span(data.test))
    drawn = album.page(model).grids() | {"traversal": album.traversal(model, done.posterior)}
    return Diagnosis(
        record=found.record,
        errors=dict(done.errors) | dict(found.examination.errors),
        kl=done.kl.tolist(),
        eigenvalues=subject.spectrum.eigenvalues[:SHOWN].tolist(),
        maps=_maps(subject, done),
        doubts=tuple(said for said in (*_unsaid(loss), _unlike(data), doubt) if said is not None),
        notes=tuple(notes),
        pictures=drawn,
    )


def _check_names(further: Iterable[str]) -> None:
    """Raises InputError for a keyword that is neither an argument of `diagnose` nor one of the evaluation."""
    parameters = inspect.signature(diagnose).parameters.values()
    own = [item.name for item in parameters if item.kind is not item.VAR_KEYWORD]
    known = [*own, *(field.name for field in dataclasses.fields(schema.Evaluation))]
    for name in further:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"{name}: no such argument; {meant}vae.diagnose takes {', '.join(known)}")


def check_loss(loss: Scale | None) -> None:
    if loss is not None and not isinstance(loss, Scale):
        raise InputError(f"loss={loss!r}: must be what vae.scale(...) gives, as in loss=vae.scale({loss!r}, ...)")


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.zeros(1, device=device).device
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError
        raise InputError(f"device={device}: not usable here ({str(error).splitlines()[0]}); leave it out") from error


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _weight(given: float | None, loss: Scale | None, face: Face, is_dirac: bool) -> float:
    """Of the KL term; 0 where each image has a point for a code, of which there is no KL."""
    said = _first(given, None if loss is None else loss.beta)
    weight = float(said if said is not None else face.said_weight(0.0 if is_dirac else 1.0))
    if not 0 <= weight < math.inf:
        raise InputError(f"kl_weight={weight}: must be a finite number from 0 on")
    if is_dirac and weight > 0:
        raise InputError(
            f"encode: gives mu alone, and the KL weight is {weight:.3g}; must give (mu, log_sigma), or the weight must "
            "be 0, as an autoencoder's"
        )
    return weight


def meaning(
    images: Split,
    likelihood: str | Likelihood | None = None,
    sigma2: float | None = None,
    loss: Scale | None = None,
    face: Face | None = None,
) -> tuple[schema.Objective, Likelihood]:
    """What the likelihood is called, and itself for images like these; the arguments are those of `diagnose`. Raises
    InputError."""
    shape = images.shape
    check_loss(loss)
    if isinstance(likelihood, Likelihood):
        return schema.Objective(kind="own", name=type(likelihood).__name__), likelihood
    if loss is not None and loss.likelihood is None:
        raise InputError(
            f"loss: no likelihood is known here for reconstruction={loss.reconstruction}; hand over your own beside "
            "it, as Laplace(shape, scale=1) of examples/my_parts.py, or say likelihood= and kl_weight= in its place"
        )
    said = likelihood is None and face is not None  # what a model says of itself goes last
    name = _first(likelihood, None if loss is None else loss.likelihood, face.likelihood if said and face else None)
    if loss is not None and loss.pixels != math.prod(shape):
        raise InputError(f"loss: is of images of {loss.pixels} values, and these are {shape}; say its image_shape anew")
    if loss is not None and likelihood is not None and likelihood != loss.likelihood:
        raise InputError(f"likelihood={likelihood}: the loss means {loss.likelihood}; leave one of the two out")
    given = sigma2
    sigma2 = _first(sigma2, None if loss is None else loss.sigma2, face.sigma2 if said and face else None)
    known = ("gaussian", "optimal_gaussian", *LIKELIHOODS)
    if name not in known:
        must = "likelihood: needs" if name is None else f"likelihood={name}: must be"
        raise InputError(
            f"{must} one of {', '.join(known)}; vae.scale(...) tells what a loss means, and goes in as loss="
        )
    objective: schema.Objective
    if name == "gaussian":
        if sigma2 is None:
            raise InputError(
                "sigma2: needed with likelihood=gaussian, the variance of a pixel: 0.5 for a summed squared error, "
                "loss=vae.scale(...) for another, likelihood=optimal_gaussian for one that is fitted"
            )
        objective = schema.Gaussian(name=name, sigma2=sigma2)
    elif name == "optimal_gaussian":
        objective = schema.OptimalGaussian(name=name, smoothing=SMOOTHING)
    else:
        objective = LIKELIHOODS[name](name=name)
    if given is not None and name not in ("gaussian", "optimal_gaussian"):
        raise InputError(f"sigma2={given}: likelihood={name} has no pixel variance; leave it out")
    if sigma2 is not None and not 0 < sigma2 < math.inf:
        raise InputError(f"sigma2={sigma2}: must be above 0, the variance of a pixel")
    output = None if name in LIKELIHOODS or face is None else face.output
    found = likelihoods.build(objective, output, shape).eval()
    if isinstance(found, OptimalGaussian):
        found.floor *= _unit(images) ** 2
        if sigma2 is not None:
            found.start_at(sigma2)
    return objective, found


def _unit(images: Split) -> float:
    """What stands for the range of a pixel: 1, or what floats span, but for a few that lie far out."""
    if not images.images.is_floating_point():
        return 1.0
    values = pixel_scale.sample(images).batch(slice(None)).flatten()
    few = int(FAR_OUT * len(values))
    low, high = (float(values.kthvalue(place).values) for place in (1 + few, len(values) - few))
    return high - low or float(values.max() - values.min()) or 1.0


def _data(test: Split, images: Any, train: Any, train_labels: Any) -> tuple[Data, list[str]]:
    """What is measured, and beside it what it was trained on, as far as that is known."""
    if train is None and isinstance(images, Data):
        train = images.train
    if train is None:
        own = dataclasses.replace(test, labels=None)  # a probe that is fitted and asked on the same images says nothing
        data = Data(own, test, notes=())
        notes = ["train= was not given: the prediction and the gain are of images like those given"]
    else:
        split, notes = split_of(train, train_labels, "train")
        if split.shape != test.shape:
            raise InputError(f"train: has images of shape {split.shape}, images {test.shape}")
        data = Data(split, test)
    if test.labels is not None and data.train.labels is None:
        notes.append("labels were not used: a linear probe is fitted on train= and train_labels=")
    pixel_scale.check(data, "images")
    return data, notes


def _few(data: Data, unseen: bool) -> list[str]:
    """What is to be said of measures on so few images."""
    count, trained = len(data.test), len(data.train)
    said = [f"{count} images are few: more than {FEW} make the answer surer"] if count < FEW else []
    if trained < FEW and not unseen:
        said.append(f"train: {trained} images are few: what a linear VAE and a PCA do with them they have by heart")
    return said


def _unlike(data: Data) -> str | None:
    """A sentence where `images` and `train` can hardly be of one kind, or on one scale."""
    found = [float(pixel_scale.sample(split).batch(slice(None)).square().mean()) for split in (data.test, data.train)]
    if max(found) <= UNLIKE * min(found):
        return None
    return (
        f"The mean square of a pixel is {found[0]:.3g} in images and {found[1]:.3g} in train: are both on the scale "
        "that the model was trained on, and of the same kind?"
    )


def _model(model: ForeignModel, name: str) -> schema.Model:
    posterior = "dirac" if model.is_dirac else "gaussian"
    return schema.Model(kind="elsewhere", name=name, latent_dim=model.latent_dim, posterior=posterior, output=None)


def _anneal(weight: float) -> schema.Anneal:
    return schema.ConstantKL(name="constant", weight=weight) if weight else schema.NoKL(name="none")


def _left(subject: Measured) -> float:
    """The squared error per pixel of the training images, one draw of z each: the variance that fits them. Raises
    InputError where that is no number."""
    model, rng = subject.model, generator(subject.config.seed, "fitted variance")
    split, batch_size = subject.data.train, subject.config.evaluation.batch_size
    coded, errors = [], []
    for start in range(0, len(split), batch_size):
        batch = split.batch(slice(start, start + batch_size))
        posterior = model.encode(batch)
        coded.append(_has_code(posterior, model.is_dirac))
        z = posterior.sample(torch.randn(posterior.mu.shape, generator=rng))
        errors.append(subject.likelihood.squared_error(batch, model.raw(z, batch)).double())
    left = torch.cat(errors)
    _check_finite("images" if subject.unseen else "train", split, torch.cat(coded), left.isfinite())
    return float(left.sum()) / (len(split) * subject.likelihood.pixels)


def _has_code(posterior: Posterior, is_dirac: bool) -> Tensor:
    """(B,): whether mu and sigma are finite numbers, and so is log sigma, but for that of a point."""
    mu, log_sigma = posterior
    is_number = mu.isfinite() & log_sigma.exp().isfinite()
    return (is_number if is_dirac else is_number & log_sigma.isfinite()).all(1)


def _check_finite(what: str, split: Split, coded: Tensor, decoded: Tensor) -> None:
    """Raises InputError where some of the images (N,), beyond those that were tried, have no code of finite numbers, or
    no finite error when that is decoded."""
    for fine, fault in (
        (coded, "encode: mu or sigma is no finite number"),
        (decoded, "decode: log p(x|z) is no finite number"),
    ):
        wrong = int((~fine).sum())
        if wrong:
            raise InputError(
                f"{fault} for {wrong} of {len(split)} {what}; fix what divides by 0 or overflows there, or leave such "
                "images out"
            )


def _in_words(weight: float, loss: Scale | None) -> Callable[[Advice], dict[str, Any]]:
    """A piece of advice as its reader can follow it, in the KL weight of the loss as it is written. There is no
    command."""

    def said(advice: Advice) -> dict[str, Any]:
        if advice.kl_weight is None:
            return {"why": f"{advice.elsewhere}: {advice.why}", "command": ""}
        to = advice.kl_weight if loss is None else loss.weight_for(advice.kl_weight)
        now = weight if loss is None else loss.kl_weight
        change = (advice.elsewhere or "write {weight} as the KL weight").format(weight=f"{to:.3g}")
        if not math.isclose(to, now):
            change += f" (now {now:.3g})"
        if loss is not None and (summed := loss.summed(advice.kl_weight)):
            change += f", or {summed}"
        return {"why": f"{change}: {advice.why}", "command": "", "kl_weight": to}

    return said


def _unsaid(loss: Scale | None) -> tuple[str, ...]:
    """What the loss leaves open, on which the KL weight depends."""
    return () if loss is None else tuple(f"{note[:1].upper()}{note[1:]}" for note in loss.unsaid)


def _span(test: Split) -> tuple[float, float]:
    """What is shown black and white: 0 and 1, or the range of images that go beyond it."""
    some = test.batch(slice(0, 1000))
    low, high = float(some.min()), float(some.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (-1.0, 1.0) if low >= -1 and high <= 1 else (low, high)


def _maps(subject: Measured, done: Evaluation) -> Maps | None:
    """Per channel and per position, of codes that are maps."""
    model, likelihood, settings = subject.model, subject.likelihood, subject.config.evaluation
    assert isinstance(model, ForeignModel)
    shape = model.layout.latent_shape
    if len(shape) != 3:
        return None
    channels, height, width = shape
    places = torch.arange(model.latent_dim).reshape(channels, -1)
    rows = slice(0, min(settings.probe_images, len(subject.data.test)))
    images, z = subject.data.test.batch(rows), done.z[rows]
    noise = torch.randn(z.shape, generator=generator(subject.config.seed, "channels"))

    def nll(codes: Tensor) -> Tensor:
        parts = zip(codes.split(settings.batch_size), images.split(settings.batch_size), strict=True)
        return torch.cat([likelihood.nll(batch, model.raw(part, batch)) for part, batch in parts])

    groups = list(places) if channels <= MAX_CHANNELS else []
    gaps = diagnostics.dimension_gaps(nll, z, noise, groups) if groups else torch.full((channels,), math.nan)
    kl = done.kl.reshape(shape)
    active = done.mu_variance.reshape(channels, -1) > settings.thresholds.active_variance
    return Maps(
        shape=(channels, height, width),
        channel_kl=kl.sum((1, 2)).tolist(),
        channel_gaps=gaps.tolist(),
        channel_active=active.double().mean(1).tolist(),
        position_kl=kl.sum(0).tolist(),
    )
