"""What a person sees while a run trains: a progress bar on a terminal, plain lines where stderr is a file."""

import sys
from collections.abc import Mapping

from tqdm import tqdm


class Progress:
    def __init__(self, name: str, steps: int, done: int = 0) -> None:
        self.name, self.steps = name, steps
        self.bar = tqdm(total=steps, initial=done, desc=name, unit="step", dynamic_ncols=True, disable=None)

    def update(self, step: int, figures: Mapping[str, float]) -> None:
        """Called whenever training figures were read."""
        if not self.bar.disable:
            self.bar.set_postfix({key: f"{value:.4g}" for key, value in figures.items()}, refresh=False)
            self.bar.update(step - self.bar.n)

    def milestone(self, step: int, figures: Mapping[str, float]) -> None:
        """Called at every evaluation: the only lines of a log file."""
        if self.bar.disable:
            said = "  ".join(f"{key} {value:.4g}" for key, value in figures.items())
            self.say(f"{self.name}  step {step}/{self.steps}  {said}")

    def say(self, line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
