"""What a loss really weighs: `vae.scale(...)`, `python -m vae.scale`, and `vae.audit_schedule`."""

from vae.runtime.doors import make_callable
from vae.scale.loss import Scale, scale

__all__ = ["Scale", "scale"]

make_callable(__name__, scale)
