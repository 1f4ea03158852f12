"""The training loop, on one page, and below it the small parts that only it uses."""

import math
import os
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from joblib import cpu_count
from torch import Tensor, nn

from vae import anneal, checkpoint, datasets, objective, optimizers, parallel, schema
from vae.config import InputError, RunFailed
from vae.data import training_batches
from vae.fingerprint import Fingerprint
from vae.follower import Follower
from vae.machine import keep_freed_memory
from vae.model import VAE
from vae.recorder import Recorder, TrainingFigures
from vae.schema import RunConfig
from vae.signals import Interrupted, Interruption
from vae.streams import generator


class NotFinite(RunFailed):
    """Training produced NaN or infinity. The message is one line: the step, the term, a hint."""


def train(config: RunConfig, directory: Path, saved: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Train what `config` describes, leave the run in `directory` and give its final record back. `saved`: the
    checkpoint to go on from.

    Raises InputError, before anything is written, where the data, the model or the device cannot be used;
    NotFinite when the loss stops being a number, and Interrupted on a signal, both after saving what there is."""
    parallel.announce(parallel.Task(config, directory, saved))
    settings, seed = config.train, config.seed
    device = use_device(settings)
    with parallel.leader_first():
        data = datasets.load(config.dataset).to(device)
    fingerprint = Fingerprint(data, f"dataset={config.dataset.name}")
    if saved:
        fingerprint.load_state_dict(saved["data"])
    if settings.batch_size > len(data.train):
        raise InputError(
            f"train.batch_size={settings.batch_size}: the training split has {len(data.train)} images; lower it"
        )
    if settings.batch_size % parallel.size():
        raise InputError(
            f"train.batch_size={settings.batch_size}: must be divisible by {parallel.size()}, the number of processes"
        )
    likelihood = objective.build(config.objective, config.model.output, data.train.shape).to(device)
    model = VAE(config.model, likelihood.link_name, data.train.shape, seed).to(device)
    network = parallel.replicated(model, unused=model.is_dirac)
    optimizer = optimizers.build(settings, model.parameters())
    schedule = anneal.build(config.anneal)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16")
    recent = Recent(max(settings.log_every, schedule.observe_every), model.latent_dim, device)
    past = saved["recorder"] if saved else None
    stage = config, directory, model, likelihood, data, schedule.final, past
    recorder = Recorder(*stage) if parallel.leads() else Follower(*stage)
    parts: dict[str, checkpoint.Stateful] = {
        "data": fingerprint,
        "model": model,
        "likelihood": likelihood,
        "optimizer": optimizer,
        "schedule": schedule,
        "recent": recent,
        "recorder": recorder,
    }
    start, weight = 0, schedule.weight(1)
    with closing(recorder), Interruption() as interruption:
        if saved:
            checkpoint.load(saved, parts)
            start, weight = saved["step"], saved["kl_weight"]
        elif config.pictures.gif_every:
            recorder.frame(0, weight)
        batches = training_batches(data.train, settings.batch_size, seed, start)
        for step, images in zip(range(start + 1, settings.steps + 1), batches, strict=False):
            weight = schedule.weight(step)
            optimizer.lr = learning_rate(settings, step)
            chance = generator(seed, "noise", step, device)
            noise = torch.randn(settings.batch_size, model.latent_dim, generator=chance, device=device)
            with autocast:
                posterior, raw = network(images, parallel.share(noise))
            reconstruction = likelihood(images, raw)
            kl = posterior.kl().mean(0)
            loss = reconstruction.loss + weight * kl.sum() if weight else reconstruction.loss
            optimizer.zero_grad()
            loss.backward()
            if settings.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            recent.add(loss, reconstruction.loss, reconstruction.squared_error.mean() / likelihood.pixels, kl)

            last = step == settings.steps
            evaluate = last or due(step, settings.eval_every)
            stop = asked_to_stop(interruption, step, settings)
            save = evaluate or due(step, settings.checkpoint_every) or stop
            try:
                if save:
                    recent.checked_means(step, settings)  # a checkpoint never holds NaN
                if due(step, schedule.observe_every):
                    schedule.observe(step, recent.means(schedule.observe_every).mse)
                if evaluate or due(step, settings.log_every):
                    recorder.training(step, weight, recent.checked_means(step, settings))
                if due(step, config.pictures.gif_every) or (last and config.pictures.gif_every):
                    recorder.frame(step, weight)
                if evaluate and not math.isfinite(recorder.evaluation(step, weight, last).mse):
                    raise not_finite(step, "reconstruction", settings)
            except NotFinite as failure:
                recorder.finish(step, weight, str(failure))
                raise
            if save and parallel.leads():
                with recorder.pause():
                    checkpoint.save(directory, config, model.shape, step, weight, parts)
            if stop and not last:
                raise Interrupted(f"stopped after step {step} and saved; resume={directory}", stop)
        return recorder.finish(settings.steps, weight)


def not_finite(step: int, term: str, settings: schema.Train) -> NotFinite:
    return NotFinite(
        f"step {step}: the {term} term is not finite any more; lower train.lr={settings.lr:g}, "
        "or clip gradients with train.max_grad_norm=10"
    )


def asked_to_stop(interruption: Interruption, step: int, settings: schema.Train) -> int:
    """The signal that has come, to whichever process; 0: none. Several processes ask each other only when they log."""
    several = parallel.size() > 1
    return parallel.largest(interruption.number) if not several or due(step, settings.log_every) else 0


def due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) does so at `step`."""
    return every > 0 and step % every == 0


def learning_rate(settings: schema.Train, step: int) -> float:
    """The learning rate at `step` (1, 2, ...): constant, or half a cosine from lr down to 0; either times the line
    of the warm-up."""
    warmup = min(1.0, step / settings.warmup_steps) if settings.warmup_steps else 1.0
    cosine = 0.5 * (1 + math.cos(math.pi * (step - 1) / settings.steps))
    return settings.lr * warmup * (cosine if settings.lr_schedule == "cosine" else 1.0)


class Recent:
    """The figures of the last `capacity` training steps, kept on the device: the host waits for it only when it
    reads."""

    def __init__(self, capacity: int, latent_dim: int, device: torch.device) -> None:
        self.rows = torch.zeros(capacity, 3 + latent_dim, device=device)
        self.count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows.copy_(state["rows"])
        self.count = state["count"]

    def add(self, loss: Tensor, reconstruction: Tensor, mse: Tensor, kl: Tensor) -> None:
        """Of one step: three numbers, and the KL of each latent dimension (d,)."""
        row = torch.cat([torch.stack([loss, reconstruction, mse]), kl]).detach()
        self.rows[self.count % len(self.rows)] = parallel.mean(row)
        self.count += 1

    def last(self, steps: int) -> Tensor:
        """The figures of the last `steps` steps, or of as many as there are: (steps, 3 + d), oldest first."""
        steps = min(steps, self.count)
        return self.rows.roll(-self.count, 0)[-steps:].cpu()

    def means(self, steps: int) -> TrainingFigures:
        return _means(self.last(steps))

    def checked_means(self, step: int, settings: schema.Train) -> TrainingFigures:
        """Means over the steps since the last log. Raises NotFinite if the loss of one of them was not a number."""
        rows = self.last(settings.log_every)
        broken = (~rows[:, 0].isfinite()).nonzero()
        if len(broken):
            first = int(broken[0])
            term = "KL" if rows[first, 1].isfinite() else "reconstruction"
            raise not_finite(step - len(rows) + 1 + first, term, settings)
        return _means(rows)


def _means(rows: Tensor) -> TrainingFigures:
    loss, _, mse, *kl = rows.double().mean(0).tolist()
    return TrainingFigures(loss, mse, kl)


def use_device(settings: schema.Train) -> torch.device:
    """The device of train.device, with memory, torch's threads and determinism set as the run needs them."""
    keep_freed_memory()
    # Set even when it is the default: launchers set OMP_NUM_THREADS as they like, and results depend on it.
    torch.set_num_threads(settings.threads or parallel.local(cpu_count(only_physical_cores=True)))
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(parallel.local_device(name))
        torch.zeros(1, device=device, dtype=torch.float64)  # which the diagnostics need, and mps has not
    except Exception as error:  # torch raises RuntimeError, AssertionError or NotImplementedError
        reason = str(error).splitlines()[0]
        raise InputError(f"train.device={settings.device}: not usable here ({reason}); try auto or cpu") from error
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return device
