"""A VAE watched while it trains elsewhere: in any loop `monitor.step(...)` after each step, `monitor.evaluate(...)`
when asked. TensorBoard has the same tags as a run of this program, events are told as they happen, and before the first
step stands what the closed form expects."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from vae.config import checks, load
from vae.config.errors import InputError
from vae.data.in_memory import split_of
from vae.diagnose.call import History, check_loss, diagnose, meaning
from vae.diagnose.diagnosis import Diagnosis
from vae.measure import prediction, spectrum, verdict
from vae.measure.catalogue import CATALOGUE, SplitMeasures, wider
from vae.measure.subject import MORE_EIGENVALUES
from vae.measure.watch import Watch
from vae.measure.written import number
from vae.output.events import there
from vae.output.history import History as Rows
from vae.output.recorder import tagged
from vae.output.tensorboard import TensorBoardWriter
from vae.scale.loss import Scale

log = logging.getLogger(__name__)

NEGATIVE = 1e-3  # nats, of a dimension's KL: rounding
APART = 5  # times: a term that differs by so much from what is measured, and is more than a nat, is another


class Monitor:
    """Writes into `directory`. With `images` and `latent_dim` it says at once what is to be expected at `kl_weight`,
    where the schedule ends; `likelihood`, `sigma2` or `loss=vae.scale(...)` as for vae.diagnose. Where neither
    `kl_weight` nor `loss` says it, that is expected at 1, and nothing is said of the schedule's end. A row is logged
    every `log_every` steps. `events`: what has happened so far, `warning`: the prediction, where that is a collapse."""

    def __init__(
        self,
        directory: str | Path,
        *,
        images: Any = None,
        latent_dim: int | None = None,
        likelihood: Any = None,
        sigma2: float | None = None,
        kl_weight: float | None = None,
        loss: Scale | None = None,
        log_every: int = 10,
        name: str = "monitor",
    ) -> None:
        log_every = checks.whole("log_every", log_every, 1)
        latent_dim = None if latent_dim is None else checks.whole("latent_dim", latent_dim, 1)
        kl_weight = None if kl_weight is None else checks.number("kl_weight", kl_weight)
        check_loss(loss)
        self.directory = checks.path("directory", directory)
        self.images, self.name, self.log_every = images, name, log_every
        self.told: dict[str, Any] = {"likelihood": likelihood, "sigma2": sigma2, "loss": loss}
        self.final_weight = loss.beta if kl_weight is None and loss is not None else kl_weight  # None: not said
        self.thresholds = load.measuring()[0].thresholds
        self.watch = Watch(self.thresholds)
        self.rows: Rows | None = None
        self.expected = 1.0 if self.final_weight is None else self.final_weight  # of a step, unless it says
        self.steps, self.weight, self.is_closed = 0, self.expected, False
        self.dimensions = latent_dim  # d; None until the first step
        self.fed: tuple[float, float] | None = None  # of the last row: reconstruction term and KL
        self.said: set[str] = set()  # what is said once
        self.events: list[str] = []
        self.warning: str | None = None
        self.waiting: list[tuple[Tensor | float, Tensor]] = []  # since the last row: reconstruction terms, KL (d,)
        self.tensorboard = TensorBoardWriter(self.directory, there(self.directory))
        if images is not None and latent_dim is not None:
            self._expect(latent_dim)

    def step(
        self, loss_reconstruction: Tensor | float, kl_per_dimension: Tensor, kl_weight: float | None = None
    ) -> None:
        """After a training step. `loss_reconstruction`: -log p(x|z) in nats, the mean over the batch of the sum over
        pixels, without constants (for a Gaussian, SSE / (2 sigma^2)). With a fitted variance n/2 log(2 pi sigma^2) is
        no constant, and belongs to it: without, SSE / (2 sigma^2) is n/2 at every step, and no loss is seen to fall.
        `kl_per_dimension`: in nats, (d,), or of each image (B, d) or (B, ...). `kl_weight`: that the KL had in this
        step, beside that reconstruction term; None: that of the constructor, 1 where it has none."""
        self._check_open("step")
        if not isinstance(kl_per_dimension, Tensor):
            raise InputError(f"kl_per_dimension: is a {type(kl_per_dimension).__name__}; must be a tensor")
        weight = self.expected if kl_weight is None else checks.number("kl_weight", kl_weight)
        self.steps += 1
        kl = kl_per_dimension.detach()
        kl = kl.flatten(1).mean(0) if kl.dim() > 1 else kl
        dimensions = self.dimensions or len(kl) if kl.dim() == 1 else self.dimensions
        if kl.shape != (dimensions,):
            given_shape = tuple(kl_per_dimension.shape)
            raise InputError(
                f"kl_per_dimension: has shape {given_shape}; must be ({dimensions or 'd'},), a number a latent "
                "dimension, or (B, d) of each image"
            )
        self.dimensions = dimensions
        given = loss_reconstruction.detach() if isinstance(loss_reconstruction, Tensor) else loss_reconstruction
        if not isinstance(given, Tensor):
            given = checks.number("loss_reconstruction", given)
        elif given.numel() != 1:
            raise InputError(
                f"loss_reconstruction: has shape {tuple(given.shape)}; must be one number, the mean over the batch"
            )
        self.waiting.append((given, kl))
        self.weight = weight
        self.watch.weighed(weight)
        if self.steps % self.log_every == 0:
            self._row(weight)

    def evaluate(self, model: Any, images: Any = None, **how: Any) -> Diagnosis:
        """Measure `model`, or a pair (encode, decode), on `images` (those of the constructor, where none are given),
        log it, and return the diagnosis, which knows how the training went. `how`: as for vae.diagnose."""
        self._check_open("evaluate")
        if callable(images) and not hasattr(images, "__iter__"):
            raise InputError("monitor.evaluate: two functions go in as a pair, monitor.evaluate((encode, decode))")
        encode, decode = model if isinstance(model, tuple) else (model, None)
        seen = () if self.rows is None else (self.rows.rows(),)
        history = History(self.steps, self.watch.found, self.final_weight, *seen) if self.steps else None
        given: dict[str, Any] = {"kl_weight": self.weight, "name": self.name, "history": history} | self.told | how
        found = diagnose(encode, decode, self.images if images is None else images, **given)
        split = found.record.split
        assert split is not None
        found = dataclasses.replace(found, doubts=(*found.doubts, *self._fed(split, found)))
        values = {CATALOGUE[name].tag: value.value for name, value in found.measures.items()}
        self.tensorboard.scalars(values | {"test/negative_elbo": -split.elbo}, self.steps)
        self.tensorboard.histogram("collapse/kl_per_dimension", torch.tensor(found.kl), self.steps)
        for tag, picture in found.pictures.items():
            self.tensorboard.picture(tag, picture, self.steps)
        is_used = verdict.is_used(split, found.record.identity.kl_weight, self.thresholds)
        self._tell(self.watch.evaluation(self.steps, is_used, split.kld))
        return found

    def close(self) -> None:
        self.is_closed = True
        self.tensorboard.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_open(self, call: str) -> None:
        if self.is_closed:
            raise InputError(f"monitor.{call}: the monitor is closed; make another one")

    def _expect(self, latent_dim: int) -> None:
        """Say what the closed form says of images like these at the weight at which the schedule ends."""
        split, _ = split_of(self.images)
        objective, likelihood = meaning(split, **self.told)
        found = spectrum.of_halves(split, wider(latent_dim) + MORE_EIGENVALUES)  # as vae.diagnose does
        white = prediction.whitened(split, found, likelihood, wider(latent_dim), spectrum.of_halves)
        predicted = prediction.measures(found, white, likelihood, latent_dim, self.expected)
        optimum = prediction.predict(found, likelihood, latent_dim, self.expected)
        said = prediction.sentence(predicted, optimum, objective.name, latent_dim, self.expected, rises=False)
        self.tensorboard.scalars(tagged(predicted), 0)
        if predicted.predicted_kld:
            self.watch.expect(predicted.predicted_kld)
        if predicted.predicted_active_units == 0:
            self.warning = said
        log.log(logging.WARNING if self.warning else logging.INFO, "%s", said)

    def _row(self, weight: float) -> None:
        """The means of the steps since the last one."""
        reconstruction = sum(float(given) for given, _ in self.waiting) / len(self.waiting)
        kl: Sequence[float] = torch.stack([kl for _, kl in self.waiting]).double().mean(0).tolist()
        self.waiting.clear()
        kld = math.fsum(kl)
        self._check(reconstruction, kld, min(kl))
        self.fed = reconstruction, kld
        values = {"train/loss": reconstruction + weight * kld, "train/kld": kld, "train/kl_weight": weight}
        self.tensorboard.scalars(values, self.steps)
        if self.rows is None:
            self.rows = Rows(len(kl))
        self.rows.add(self.steps, weight, reconstruction, list(kl))
        if min(kl) >= -NEGATIVE:  # else it is no KL, and says nothing of a code
            self._tell(self.watch.training(self.steps, None, kld, weight))

    def _check(self, reconstruction: float, kld: float, lowest: float) -> None:
        """Say once what no training should show."""
        below = f"the KL of a dimension is {lowest:.3g} nats: no KL is below 0, is its sign or its formula wrong?"
        for name, is_seen, said in (
            ("reconstruction", not math.isfinite(reconstruction), "the reconstruction term is no finite number"),
            ("kl", not math.isfinite(kld), "the KL is no finite number"),
            ("sign", lowest < -NEGATIVE, below),
        ):
            if is_seen and name not in self.said:
                self.said.add(name)
                self._tell(f"step {self.steps}: {said}")

    def _fed(self, split: SplitMeasures, found: Diagnosis) -> Iterator[str]:
        """What says that the steps were told of another loss than was measured: likelihood or reduction differ."""
        if self.fed is None:
            return
        reconstruction, kld = self.fed
        objective = found.record.identity.objective
        whole = -split.elbo - split.kld
        measured = whole if objective in ("bernoulli", "optimal_gaussian") else 0.0
        if objective == "gaussian" and _are_apart(reconstruction, whole):  # or without the constants
            t, trajectory = found.record.prediction.effective_t, found.record.trajectory
            measured = split.sse * trajectory.max_kl_weight / (2 * t) if t and trajectory else 0.0
        is_fitted = objective == "optimal_gaussian" and split.mse > 0  # then it is n/2 log(2 pi e sigma^2)
        if measured and _are_apart(reconstruction, measured, split.sse / split.mse / 2 if is_fitted else 0.0):
            has = ", with n/2 log(2 pi sigma^2) in it" if is_fitted else ""
            yield (
                f"The steps were told of a reconstruction term of {number(reconstruction)} nats an image, measured are "
                f"{number(measured)}: it must be summed over the pixels{has}, or the likelihood is another; "
                "vae.scale(...) tells what a loss means"
            )
        if math.isfinite(split.kld) and _are_apart(kld, split.kld):
            yield (
                f"The steps were told of a KL of {number(kld)} nats an image, measured are {number(split.kld)}: it "
                "must be summed over the dimensions, and have no weight and no free bits in it; what is said of the "
                "code's way there rests on what was told"
            )

    def _tell(self, event: str | None) -> None:
        if event is not None:
            self.events.append(event)
            log.info("%s  %s", self.name, event)
            self.tensorboard.text("events", event, self.steps)


def _are_apart(fed: float, measured: float, logs: float = 0.0) -> bool:
    """Whether one is many times the other; of two that are `logs` times a logarithm, whether what it is of is."""
    if logs:
        return abs(fed - measured) > max(1.0, logs * math.log(APART))
    least, most = sorted((abs(fed), abs(measured)))
    return most > max(1.0, APART * least)
