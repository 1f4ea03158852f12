"""A laboratory for posterior collapse. `vae.load_run(directory)` gives a trained run back."""

from typing import TYPE_CHECKING, Any

from vae.config.errors import InputError

if TYPE_CHECKING:
    from vae.training.finished import Run, load_run

__all__ = ["InputError", "Run", "load_run"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: the config and the report need no torch.
    if name in ("Run", "load_run"):
        from vae.training import finished

        return getattr(finished, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
