"""The names of what lies in a run's directory and in a sweep's."""

from pathlib import Path

CHECKPOINT = "checkpoint.pt"
PREVIOUS_CHECKPOINT = "checkpoint.previous.pt"
BEST_CHECKPOINT = "checkpoint.best.pt"  # of early stopping, until it becomes checkpoint.pt
RESULT = "result.json"  # the final record; a run that has it is whole
EVALUATION = "evaluation.json"  # the same, measured again by evaluate=
SAMPLES = "samples"  # what sample= has made: a folder, and a grid beside it
RECONSTRUCTED = "reconstructed"
INTERPOLATION = "interpolation"
CHANGES = "changes.txt"  # what resume= has changed for the steps ahead, a line a call
EXPORT = "export"  # the folder that export= writes to
EXPLANATION = "explanation.json"  # what explain= has found
TWINS = "explain"  # directory of the runs that explain= has trained, in that of the run that they explain
HISTORY = "history.npz"
FILM = "training.gif"
CODES = "[0-9]*/latents/tensors.tsv"  # of the projector, in a folder of the step
EVENTS = "events.out.tfevents.*"
TRACKING = "tracking.json"  # which run of MLflow or Weights & Biases this one is, where it is one
LOG = "run.log"  # what was said of the run while it trained
ERROR = "error.txt"  # of a sweep's job that failed
REFUSED = "refused.txt"  # of a sweep's job whose settings cannot go together, why
CONFIG = ".hydra/config.yaml"  # the composed configuration
HYDRA = ".hydra/hydra.yaml"  # how Hydra was called
OVERRIDES = ".hydra/overrides.yaml"  # this call's; Hydra writes it last
SWEEP = "multirun.yaml"  # in a sweep's directory: its own configuration
REPORT = "report.html"


def has_checkpoint(directory: Path) -> bool:
    return (directory / CHECKPOINT).exists() or (directory / PREVIOUS_CHECKPOINT).exists()


def runs_below(directory: Path) -> set[Path]:
    """The run directories in and below `directory`, without the twins that explain others of them."""
    found = {path.parent.parent for path in directory.rglob(CONFIG)}
    return {run for run in found if not (run.parent.name == TWINS and run.parent.parent in found)}
