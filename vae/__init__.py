"""A laboratory for posterior collapse. `vae.load_run(directory)` gives a trained run back, `vae.diagnose(...)` says
what is wrong with a model that was trained elsewhere, `vae.scale(...)` what its loss really weighs."""

import importlib
from typing import TYPE_CHECKING, Any

from vae.config.errors import InputError

if TYPE_CHECKING:
    from vae.diagnose.call import diagnose
    from vae.diagnose.monitor import Monitor
    from vae.scale.audit import audit_schedule
    from vae.scale.loss import scale
    from vae.training.finished import Run, load_run

__all__ = ["InputError", "Monitor", "Run", "audit_schedule", "diagnose", "load_run", "scale"]

# Loaded on demand: the config and the report need no torch. `diagnose` and `scale` are packages that can be called.
_HOMES = {
    "Run": "vae.training.finished",
    "load_run": "vae.training.finished",
    "Monitor": "vae.diagnose.monitor",
    "audit_schedule": "vae.scale.audit",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in ("diagnose", "scale"):
        return importlib.import_module(f"vae.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
