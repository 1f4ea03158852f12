"""What Hydra calls around a run: `Guard` looks at the configuration and at the directory before Hydra writes
anything."""

import os
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae import config as conf


class Guard(Callback):
    """Refuses a run that cannot be made: a wrong config, a directory that holds another run or cannot be written.

    Hydra turns an exception in a callback into a warning, so the refusal is a SystemExit with one line."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            values = {key: value for key, value in config.items_ex(resolve=False) if key != "hydra"}
            conf.load(OmegaConf.create(values))
            if config.evaluate is None:
                check_directory(Path(str(config.hydra.run.dir)))
            elif not Path(config.evaluate).is_dir():
                raise conf.InputError(f"evaluate={config.evaluate}: no such directory")
        except conf.InputError as error:
            sys.exit(str(error))
        except OmegaConfBaseException as error:
            sys.exit(conf.one_line(error))


def check_directory(directory: Path) -> None:
    """Raise InputError unless `directory` is empty or can be made."""
    if directory.is_dir() and any(directory.iterdir()):
        raise conf.InputError(f"hydra.run.dir={directory}: holds a run already; choose another, or remove it")
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise conf.InputError(f"hydra.run.dir={directory}: {parent} is no directory that can be written to")
