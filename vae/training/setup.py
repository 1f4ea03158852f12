"""Everything that a run trains with, made of its configuration: data, model, likelihood, optimiser, schedule."""

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vae.config.errors import InputError
from vae.config.load import allowed_modules, at_home, modules
from vae.config.schema import CustomCure, CustomKL, CustomModel, CustomObjective, RunConfig
from vae.data import readers, scale
from vae.data.binarize import training_images
from vae.data.fingerprint import Fingerprint
from vae.data.split import Data
from vae.measure.evaluation import Evaluation
from vae.measure.subject import Subject
from vae.models import likelihood as likelihoods
from vae.models import probe
from vae.models.vae import VAE
from vae.output import tracking
from vae.runtime import directory as names
from vae.runtime import files, parallel
from vae.runtime.clock import Clock
from vae.runtime.machine import check_precision, choose_device, choose_precision, configure_process, count_memory
from vae.runtime.rng import generator
from vae.training import bounds, checkpoint, controllers, own_cure, rules, start, terms  # noqa: F401  (which register cures)
from vae.training import cure as cures
from vae.training import optimizer as optimizers
from vae.training import schedule as schedules
from vae.training.checkpoint import Checkpoint, Parts, rehearse
from vae.training.cure import Context, Cure
from vae.training.optimizer import Optimizer
from vae.training.recent import Recent, not_finite
from vae.training.schedule import Schedule
from vae.training.stopping import Stopping, with_validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Learner:
    """What an update of the weights needs."""

    subject: Subject  # model, likelihood and data, to be trained and measured
    network: nn.Module  # the model, or its replica of several processes
    optimizer: Optimizer
    cure: Cure
    device: torch.device

    def autocast(self) -> AbstractContextManager[None]:
        """Networks compute in it as train.precision has it; weights and losses stay float32."""
        precision = choose_precision(self.subject.config.train.precision, self.device)
        return torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16")


@dataclass(frozen=True)
class Setup(Learner):
    schedule: Schedule
    stopping: Stopping
    recent: Recent
    clock: Clock
    parts: Parts
    variance: float  # of a pixel over the training images

    def batches(self, after: int) -> Iterator[tuple[int, Tensor]]:
        """The steps that follow step `after`, each with this process's images (B, C, H, W); none where training was
        stopped early."""
        config = self.subject.config
        steps = () if self.stopping.is_over else range(after + 1, config.train.steps + 1)
        images = training_images(self.subject.data, config.train.batch_size, config.seed, after)
        return zip(steps, images, strict=False)

    def noise(self, step: int) -> Tensor:
        """(B, d) from N(0, I), or (B, K, d) where the cure draws K codes an image: a function of the seed and the step
        alone; this process's rows of it."""
        config = self.subject.config
        rng = generator(config.seed, "noise", step, self.device)
        codes = () if self.cure.codes == 1 else (self.cure.codes,)
        shape = config.train.batch_size, *codes, config.model.latent_dim
        return parallel.own_rows(torch.randn(shape, generator=rng, device=self.device))

    def is_best(self, step: int) -> bool:
        """Whether early stopping finds the model of `step` better than those before. It counts only evaluations at
        which the KL weight and the cure are as they will be at the end: a model that pays less for its code is
        another, and no gain over it says nothing. All processes of a run take part."""
        counts = self.stopping.patience is not None and self._is_settled(step)
        return counts and self.stopping.observe(step, self.subject.validation_loss(self.stopping.weight))

    def check_finite(self, step: int) -> None:
        """Raises NotFinite where a weight is no finite number after `step`: the loss that tells it is the next step's,
        and a checkpoint never holds one."""
        model = self.subject.model
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise not_finite(step, "model", self.subject.config.train)

    def _is_settled(self, step: int) -> bool:
        return self.schedule.is_settled(step) and self.cure.is_settled(step)

    def restore(self, saved: Checkpoint, directory: Path) -> None:
        """Give every part its state in `saved`, and have its best checkpoint beside it where that is `saved` itself:
        as after a run that has ended, or was cut short there."""
        self.parts.restore(saved)
        if self.stopping.best is not None and not self._is_settled(self.stopping.best_step):
            self.stopping.begin()  # before format 9 every evaluation counted
        if parallel.is_leader() and self.stopping.best_step == saved.step:
            content = dataclasses.replace(saved, config=self.subject.config).content()
            files.replace(directory / names.BEST_CHECKPOINT, content)

    def evaluate(self, thorough: bool) -> Evaluation:
        """Over the whole test split; all processes of a run take part, with the leader's running statistics."""
        parallel.share_buffers(self.network)
        return self.subject.evaluate(thorough)

    def keep_best(self, directory: Path, step: int) -> Checkpoint | None:
        """Give the model the weights of its best evaluation, before or at `step`, and the leader the checkpoint of
        that; None, and the weights stay, where there is none. All processes of a run take part."""
        stopping, best = self.stopping, None
        if stopping.patience is None:
            return None
        if stopping.best is None:
            log.info("%s  %s", self.subject.config.run_name, stopping.sentence(step))
            return None
        if parallel.is_leader():
            own = modules(dataclasses.asdict(self.subject.config))
            best = checkpoint.best(directory, stopping.best_step, own)
        weights = parallel.broadcast(best and (best.parts["model"], best.parts["likelihood"]))
        if weights is not None:
            self.subject.model.load_state_dict(weights[0])
            self.subject.likelihood.load_state_dict(weights[1])
            if stopping.best_step < step:
                log.info("%s  %s", self.subject.config.run_name, stopping.sentence(step))
        return best

    @property
    def is_capturable(self) -> bool:
        """Whether an update is the same kernels each time, so that a CUDA graph can stand for it."""
        config = self.subject.config
        own = isinstance(config.model, CustomModel) or isinstance(config.objective, CustomObjective)
        plain = type(self.cure) is Cure and parallel.size() == 1 and not own
        return config.train.cuda_graph and self.device.type == "cuda" and plain


def prepare(config: RunConfig, saved: Checkpoint | None = None, data: Data | None = None) -> Setup:
    """`data`: its images, where they have been read already, by a process that is alone. Raises InputError, before
    anything is written, where the data, the model or the device cannot be used, or the data are not those of the
    checkpoint to resume from."""
    settings = config.train
    configure_process(settings.threads)
    tracking.library(config.tracking)
    device = choose_device(settings.device)
    check_precision(settings.precision, device)
    count_memory(device)
    if data is None:
        with parallel.leader_first():
            data = with_validation(readers.load(config.dataset), settings)
    variance = scale.check(data, f"dataset={config.dataset.name}")
    fingerprint = Fingerprint(data, f"dataset={config.dataset.name}")
    if saved is not None:  # here, since other data may have images of another shape
        fingerprint.load_state_dict(saved.parts["data"])
    data = data.measured(config.evaluation.test_images).to(device)
    if settings.batch_size > len(data.train):
        raise InputError(
            f"train.batch_size={settings.batch_size}: the training split has {len(data.train)} images; lower it"
        )
    if settings.batch_size % parallel.size():
        raise InputError(
            f"train.batch_size={settings.batch_size}: must be divisible by {parallel.size()}, the number of processes"
        )
    likelihood = likelihoods.build(config.objective, config.model.output, data.train.shape).to(device)
    probe.check_images(likelihood, data, f"objective={config.objective.name} with dataset={config.dataset.name}")
    model = VAE(config.model, likelihood, data.train.shape, config.seed, config.cure).to(device)
    some = data.train.batch(slice(0, 2))
    if isinstance(config.model, CustomModel):
        probe.check_networks(model, some)
    if isinstance(config.objective, CustomObjective):
        probe.check_likelihood(likelihood, some)
    if parallel.size() > 1 and list(likelihood.parameters()):
        raise InputError("objective.likelihood: has parameters to train, which several processes do not average")
    trained = [p for part in (model, likelihood) for p in part.parameters() if p.requires_grad]
    optimizer = optimizers.build(settings, trained)
    schedule = schedules.of(config)
    subject = Subject(config, model, likelihood, data)
    cure = cures.build(config.cure, Context(subject, optimizer, variance, device))
    if saved is None and config.init is not None:
        _begin_with(at_home(config.init), subject)
    elif saved is None and config.model.start == "spectral":
        start.spectral(subject, schedule.final)
    stopping = Stopping(settings.patience, schedule.final)
    recent = Recent(max(settings.log_every, schedule.observe_every), model.latent_dim, device)
    clock = Clock()
    parts = Parts(fingerprint, model, likelihood, optimizer, schedule, cure, stopping, recent, clock)
    own = (CustomModel, CustomObjective, CustomKL, CustomCure)
    if any(isinstance(part, own) for part in (config.model, config.objective, config.anneal, config.cure)):
        rehearse(config, data.train.shape, parts)
    return Setup(
        subject=subject,
        network=parallel.replicated(
            model, unused=config.model.posterior != "gaussian" or isinstance(config.model, CustomModel)
        ),
        optimizer=optimizer,
        schedule=schedule,
        cure=cure,
        stopping=stopping,
        recent=recent,
        clock=clock,
        parts=parts,
        device=device,
        variance=variance,
    )


def _begin_with(directory: Path, subject: Subject) -> None:
    """Give the model the weights of the run in `directory`. Raises InputError where they are of another network."""
    config = subject.config
    found = checkpoint.read(directory, allowed_modules(config), groups=("model", "objective"))
    model, likelihood = found.model()
    if found.shape != subject.model.shape:
        raise InputError(
            f"init={directory}: trained on images of shape {found.shape}, dataset={config.dataset.name} has "
            f"{subject.model.shape}{readers.reshaping(config.dataset)}"
        )
    ours, theirs = (dataclasses.asdict(part) for part in (config.cure, found.config.cure))
    if ours != theirs and not (config.cure.fits_spectral_start and found.config.cure.fits_spectral_start):
        key = next(key for key in ("name", *ours) if ours[key] != theirs.get(key))
        here, there = (f"cure{'' if key == 'name' else f'.{key}'}={part[key]}" for part in (ours, theirs))
        raise InputError(
            f"init={directory} with {here}: trained with {there}, and the cure is a layer of the network; it must be "
            "the same"
        )
    ours, theirs = subject.model.state_dict(), model.state_dict()
    differs = [name for name in ours | theirs if _shape(ours.get(name)) != _shape(theirs.get(name))]
    if differs:
        name = differs[0]
        raise InputError(
            f"init={directory}: its network is another one ({name} is {_shape(theirs.get(name))}, here "
            f"{_shape(ours.get(name))}); leave model= out, then it is that run's"
        )
    own = isinstance(config.objective, CustomObjective) and config.objective == found.config.objective
    if not own and (model.link is not subject.model.link or model.outputs != subject.model.outputs):
        raise InputError(
            f"init={directory} with objective={config.objective.name}: what its decoder puts out means something else "
            f"with objective={found.config.objective.name}; leave objective= out, then it is that run's"
        )
    subject.model.load_state_dict(theirs)
    if likelihood.state_dict().keys() == subject.likelihood.state_dict().keys():
        subject.likelihood.load_state_dict(likelihood.state_dict())
    log.info("Start: the weights of %s after %d steps.", directory, found.step)


def _shape(weight: Tensor | None) -> str:
    return "missing" if weight is None else "x".join(map(str, weight.shape)) or "a number"
