"""What a function of the library is handed, before it is used. No torch."""

import math
import numbers
import os
from pathlib import Path
from typing import Any

from vae.config.errors import InputError

SHOWN = 60  # characters of what was given


def number(name: str, value: Any) -> float:
    """A real number, or a tensor or array of one. Raises InputError for anything else."""
    try:
        single = value.item() if hasattr(value, "item") else value
    except (TypeError, ValueError, RuntimeError):  # of several
        single = None
    if isinstance(single, numbers.Real) and not isinstance(single, bool):
        return float(single)
    raise InputError(f"{name}={_short(value)}: must be a number")


def whole(name: str, value: Any, least: int) -> int:
    """A whole number, from `least` on. Raises InputError for anything else."""
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_whole and int(value) >= least):
        raise InputError(f"{name}={_short(value)}: must be a whole number, at least {least}")
    return int(value)


def span(name: str, value: Any) -> tuple[float, float]:
    """The values that are black and white. Raises InputError for anything else."""
    try:
        black, white = (float(item) for item in value)
    except (TypeError, ValueError):
        black = white = math.nan
    if not -math.inf < black < white < math.inf:
        raise InputError(f"{name}={_short(value)}: must be (black, white), two numbers, black below white")
    return black, white


def path(name: str, value: Any) -> Path:
    """Raises InputError for what is no path."""
    if not isinstance(value, str | os.PathLike):
        raise InputError(f"{name}={_short(value)}: must be a path, as in 'outputs/my_run'")
    return Path(value)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
