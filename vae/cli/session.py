"""What one call of the program has begun, so that its end can be put in order. Hydra makes the callbacks itself, so
they find the session in a context variable; processes that a launcher has started have none."""

import contextlib
import dataclasses
import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hydra.core.hydra_config import HydraConfig

USES = ("encode", "reconstruct", "sample", "interpolate", "export")
DIRECTORIES = {"evaluate": "evaluate", "resume": "resume", "explain.run": "explain"} | {
    f"use.{verb}": verb for verb in USES
}  # keys that name a run that exists, and how they are written
OPTIONS = ("n", "sampler", "format", "between")
TAKES = {
    "encode": ("format",),
    "reconstruct": ("n",),
    "sample": ("n", "sampler"),
    "interpolate": ("between",),
    "export": ("format",),
}  # which of the short keys below each verb has
SHORT = {"explain": "explain.run"} | {name: f"use.{name}" for name in (*USES, *OPTIONS)}  # keys of the command line


class Report(Protocol):
    directory: Path | None

    def write(self) -> None:
        """Once, and only where there are runs."""


@dataclass
class Session:
    wants_traceback: bool = False  # HYDRA_FULL_ERROR=1 in the user's environment
    composed: bool = False  # Hydra has a configuration: what fails now is no mistake in it
    new_directory: Path | None = None  # of a single run, until it has begun
    sweep: Report | None = None
    added: list[str] = dataclasses.field(default_factory=list)  # arguments that nobody has typed
    stack: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)  # what ends with the call


@dataclass(frozen=True)
class Job:
    """One run of this call: alone, or one of a sweep's."""

    directory: Path
    keys: list[str]  # the groups and values that the command line sets
    is_single: bool
    is_refused: bool = False  # its sweep has said so, and why


CURRENT: ContextVar[Session | None] = ContextVar("session", default=None)


def config_directories() -> list[str]:
    """The --config-dir of this call, as arguments."""
    sources = HydraConfig.get().runtime.config_sources
    own = [os.path.relpath(source.path) for source in sources if source.provider == "command-line"]
    return [argument for path in own for argument in ("--config-dir", path)]
