"""What a run of a sweep is called: by the settings that the sweep varies, as in `mlp_vae,lr=0.003,seed=1`. Its
directory bears that name, and so TensorBoard, the HParams tab and the report do. No torch."""

import re
from collections.abc import Collection, Iterable, Sequence

MAX_BYTES = 200  # of a directory's name, of which the system takes 255


def varied(jobs: Iterable[Sequence[str]]) -> list[str]:
    """The keys that not all of these lists of overrides set alike, in the order in which they stand there."""
    found = [dict(map(split, job)) for job in jobs]
    keys = dict.fromkeys(key for job in found for key in job)
    return [key for key in keys if len({job.get(key) for job in found}) > 1]


def label(overrides: Sequence[str], keys: Collection[str]) -> str:
    """The values of these keys: an option of a group by its name alone, a value as `lr=0.003`, with as much of its key
    as tells it from the others. Empty where none of the keys is set."""
    chosen = {key: value for key, value in map(split, overrides) if key in keys}
    last = [key.rpartition(".")[2] for key in chosen]
    parts = []
    for key, value in chosen.items():
        short = key.rpartition(".")[2]
        if "." in key or key == "seed":
            parts.append(f"{short if last.count(short) == 1 else key}={value}")
        else:
            parts.append(value)
    return ",".join(parts)


def as_directory(name: str) -> str:
    """`name` as one part of a path."""
    safe = re.sub(r"[^\w.,=+-]+", "-", name.replace("[", "").replace("]", ""))
    return safe.encode()[:MAX_BYTES].decode(errors="ignore").strip("-.") or "run"


def split(override: str) -> tuple[str, str]:
    """Key and value, without Hydra's + and ~."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value
