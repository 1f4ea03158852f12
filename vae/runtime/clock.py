"""The time that a run takes, in all and of it training, over all its interruptions."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vae.runtime import untrusted

MAX_SECONDS = 1e9  # thirty years; of more than that a float does not hold the microseconds that a step takes


class Clock:
    def __init__(self) -> None:
        self._begun = self._resumed = time.perf_counter()
        self._before = self._trained = 0.0  # seconds of earlier parts of the run; of training until the last pause

    @property
    def seconds(self) -> float:
        return self._before + time.perf_counter() - self._begun

    @property
    def training_seconds(self) -> float:
        """Until the last pause."""
        return self._trained

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens in here does not count as training."""
        self._trained += time.perf_counter() - self._resumed
        try:
            yield
        finally:
            self._resumed = time.perf_counter()

    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds, "training_seconds": self._trained}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        untrusted.names(state, self.state_dict(), "clock")
        for name, value in state.items():
            untrusted.number(value, f"clock.{name}", minimum=0, maximum=MAX_SECONDS)
        self._before += float(state["seconds"])
        self._trained = float(state["training_seconds"])
