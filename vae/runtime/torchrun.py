"""Which of several processes this one is: what torchrun puts into the environment. No torch, so that the first process
can answer at once where it only composes a configuration."""

import os
from typing import NamedTuple

from vae.config.errors import InputError


class World(NamedTuple):
    """The processes that train one run together. A process that is alone leads itself."""

    size: int = 1
    rank: int = 0
    local_size: int = 1  # on this machine
    local_rank: int = 0

    @property
    def is_leader(self) -> bool:
        """The leader composes the configuration and alone writes."""
        return self.rank == 0


def world() -> World:
    """Raises InputError where the environment says that there are several processes, and not how they find together."""
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return World()
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise InputError(
            f"WORLD_SIZE={size} without {', '.join(missing)}: start several processes with torchrun, which sets them "
            "all; for one, unset WORLD_SIZE"
        )
    rank, port = _number("RANK", 0), _number("MASTER_PORT", 0)
    if not 0 <= rank < size:
        raise InputError(f"RANK={rank}: must be from 0 to {size - 1}, below WORLD_SIZE")
    if not 0 < port < 2**16:
        raise InputError(f"MASTER_PORT={port}: must be from 1 to {2**16 - 1}")
    return World(size, rank, _number("LOCAL_WORLD_SIZE", 1), _number("LOCAL_RANK", 0))


def _number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or (name.endswith("SIZE") and int(text) < 1):
        raise InputError(f"{name}={text}: must be a whole number; torchrun sets it, unset it to run one process")
    return int(text)
