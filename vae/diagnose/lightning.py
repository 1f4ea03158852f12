"""The monitor as a callback of Lightning (`lightning` or `pytorch_lightning`, whichever the program has imported): it
needs nothing of the LightningModule but that its encoder and decoder can be found (vae.models.faces), or are handed
over."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vae.data.in_memory import pair_of, split_of
from vae.diagnose.call import meaning
from vae.diagnose.diagnosis import Diagnosis
from vae.diagnose.monitor import Monitor
from vae.models.faces import Face, face_of
from vae.models.foreign import tried, undisturbed
from vae.models.likelihood import Bernoulli, Likelihood
from vae.runtime.rng import generator
from vae.scale.loss import Scale

if TYPE_CHECKING:
    Callback = object
elif "lightning" in sys.modules or "pytorch_lightning" not in sys.modules:
    from lightning.pytorch import Callback
else:
    from pytorch_lightning import Callback


class CollapseMonitor(Callback):
    """Every `every` steps it measures the batch that was just trained on, and after each validation, and at the end,
    the `images` (any kind that vae.diagnose takes); `diagnosis` is the last of these.

    `kl_weight`: a number, or a function of the module that gives the weight of the moment, with `final_weight` where
    that will end; the rest as for vae.diagnose and vae.Monitor. `encode` and `decode`: functions of the module and of
    images or codes, where the module has no known face. Writes into `directory`, or into `collapse` in the trainer's
    own."""

    def __init__(
        self,
        images: Any,
        *,
        likelihood: str | Likelihood | None = None,
        sigma2: float | None = None,
        loss: Scale | None = None,
        kl_weight: float | Callable[[Any], float] | None = None,
        final_weight: float | None = None,
        encode: Callable[[Any, Any], Any] | None = None,
        decode: Callable[[Any, Any], Any] | None = None,
        log_variance: bool | None = None,
        every: int = 10,
        directory: str | Path | None = None,
        max_images: int | None = 1000,
    ) -> None:
        super().__init__()
        self.images, self.every, self.directory, self.max_images = images, every, directory, max_images
        self.told: dict[str, Any] = {"likelihood": likelihood, "sigma2": sigma2, "loss": loss}
        self.kl_weight, self.final_weight, self.log_variance = kl_weight, final_weight, log_variance
        self.functions = encode, decode
        self.monitor: Monitor | None = None
        self.diagnosis: Diagnosis | None = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Tries the model, and says what is to be expected. Of several processes the first alone watches."""
        if not trainer.is_global_zero:
            return
        self.images, _ = split_of(self.images, most=self.max_images)
        face = self._face(pl_module)
        _, likelihood = meaning(self.images, **self.told, face=face)
        with undisturbed([pl_module]), torch.no_grad():
            some = self.images.batch(slice(0, 8))
            gives = face.gives if isinstance(likelihood, Bernoulli) else None
            self.model = tried(face.encode, face.decode, likelihood, some, self._log_variance(face), gives)
        self.likelihood = likelihood
        ends = None if callable(self.kl_weight) else self._weight(pl_module, face)
        self.monitor = Monitor(
            self.directory or Path(trainer.log_dir or trainer.default_root_dir) / "collapse",
            images=self.images,
            latent_dim=self.model.latent_dim,
            kl_weight=ends if self.final_weight is None else self.final_weight,
            log_every=1,
            name=type(pl_module).__name__,
            **(self.told if face.likelihood is None else {"likelihood": likelihood}),
        )

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """A row: the reconstruction term and the KL of this batch, one draw of z an image. Of several batches that one
        step is made of, the one that ends it."""
        step = int(trainer.global_step)
        if self.monitor is None or step % self.every or step == self.monitor.steps:
            return
        given, _ = pair_of(batch, "batch")
        if len(given) < 2:
            return
        with undisturbed([pl_module]), torch.no_grad():
            images = split_of(given)[0].batch(slice(None))
            posterior = self.model.encode(images)
            noise = torch.randn(posterior.mu.shape, generator=generator(0, "lightning", step))
            found = self.likelihood(images, self.model.raw(posterior.sample(noise), images))
        self.monitor.steps = step - 1
        self.monitor.step(found.loss, posterior.kl(), self._weight(pl_module, self._face(pl_module)))

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self._evaluate(pl_module)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """The last diagnosis, which is said, and the end of the log."""
        self._evaluate(pl_module)
        if self.monitor is not None:
            self.monitor.close()

    def _evaluate(self, pl_module: Any) -> None:
        if self.monitor is not None:
            face = self._face(pl_module)
            model = (face.encode, face.decode) if None not in self.functions else pl_module
            how = {"kl_weight": self._weight(pl_module, face), "log_variance": self._log_variance(face)}
            self.diagnosis = self.monitor.evaluate(model, **how)

    def _face(self, pl_module: Any) -> Face:
        encode, decode = self.functions
        if encode is None or decode is None:
            return face_of(pl_module)
        return Face(type(pl_module).__name__, lambda x: encode(pl_module, x), lambda z: decode(pl_module, z))

    def _log_variance(self, face: Face) -> bool:
        return bool(self.log_variance if self.log_variance is not None else face.log_variance)

    def _weight(self, pl_module: Any, face: Face) -> float:
        """The KL weight of the moment, beside the likelihood in nats."""
        if callable(self.kl_weight):
            return float(self.kl_weight(pl_module))
        loss = self.told["loss"]
        known = (self.kl_weight, None if loss is None else loss.beta, face.said_weight())
        return float(next(weight for weight in known if weight is not None))
