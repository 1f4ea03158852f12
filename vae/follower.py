"""What stands in the recorder's place in the processes that follow: it takes part in measuring, and writes nothing."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from vae.data import Data
from vae.evaluation import Figures, evaluate
from vae.model import VAE
from vae.objective import Likelihood
from vae.schema import RunConfig


class Follower:
    """Has the recorder's methods; where the recorder evaluates, it evaluates too, since the work is divided."""

    def __init__(
        self, config: RunConfig, directory: Path, model: VAE, likelihood: Likelihood, data: Data, *of_recorder: object
    ) -> None:
        self.config, self.model, self.likelihood, self.data = config, model, likelihood, data
        self.evaluated = False

    def evaluation(self, step: int, weight: float, last: bool = False) -> Figures:
        self.evaluated = True
        settings, seed = self.config.evaluation, self.config.seed
        return evaluate(self.model, self.likelihood, self.data.test, settings, seed, thorough=last).figures

    def finish(self, step: int, weight: float, failure: str | None = None) -> dict[str, Any]:
        if not self.evaluated and failure is None:
            self.evaluation(step, weight, last=True)
        return {}

    def pause(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass

    def training(self, *figures: object) -> None:
        pass

    def frame(self, *place: object) -> None:
        pass

    def close(self) -> None:
        pass
