"""result.json: the final record of a run, flat, in JSON numbers. No torch: the report reads it too."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae import files

FILE = "result.json"


def write(directory: Path, record: Mapping[str, Any], file: str = FILE) -> None:
    """A number that is not finite becomes null, and `null_reasons` says what it was."""
    clean: dict[str, Any] = {}
    reasons = []
    for key, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            reasons.append(f"{key} was {value}")
            value = None
        clean[key] = value
    if reasons:
        clean["null_reasons"] = "; ".join(reasons)
    files.replace(directory / file, json.dumps(clean, indent=2, allow_nan=False).encode() + b"\n")
