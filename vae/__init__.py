"""A laboratory for posterior collapse. `vae.load_run(directory)` gives a trained model back."""

from typing import TYPE_CHECKING, Any

from vae.config.errors import InputError

if TYPE_CHECKING:
    from vae.training.checkpoint import load_run

__all__ = ["InputError", "load_run"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: the config and the report need no torch.
    if name == "load_run":
        from vae.training.checkpoint import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
