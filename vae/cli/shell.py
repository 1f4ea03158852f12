"""Command lines beside run.py: `python -m vae.scale` and `python -m vae.diagnose`. What they take is written as for
run.py, KEY=VALUE; their own keys come first, and what else there is chooses and sets a dataset as in conf/."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from vae.config.errors import InputError
from vae.config.load import CONF, load
from vae.runtime import terminal


def run(main: Callable[[list[str]], None], about: str | None) -> None:
    """Call `main` with the arguments; a mistake ends the process with one line on stderr and status 1."""
    terminal.open_streams()
    terminal.log_to_stderr()
    arguments = sys.argv[1:]
    if not arguments or any(item in ("-h", "--help", "help") for item in arguments):
        terminal.show(about or "")
        return
    try:
        main(arguments)
    except InputError as error:
        sys.exit(terminal.printable(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)


def own_keys(
    arguments: Sequence[str], known: Sequence[str], texts: Sequence[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The values of the `known` keys, as YAML reads them (of `texts` as they stand), and the arguments that are left.
    Raises InputError for what is neither a known key nor one of a dataset."""
    values: dict[str, Any] = {}
    left: list[str] = []
    for item in arguments:
        key, equals, text = item.partition("=")
        if key in known and equals:
            values[key] = text if key in texts and text.lower() not in ("", "null") else value(text)
        elif equals and (key == "dataset" or key.lstrip("+").startswith("dataset.")):
            left.append(item)
        else:
            raise InputError(f"{item}: must be KEY=VALUE with one of {', '.join(known)}, dataset, dataset.KEY")
    return values, left


def value(text: str) -> Any:
    """A number, a truth value, a text, or of `3,64,64` a list."""
    try:
        found = yaml.safe_load(
            f"[{text}]" if "," in text and text[:1] not in "[(" else text.replace("(", "[").replace(")", "]")
        )
    except yaml.YAMLError as error:
        raise InputError(f"{text}: not readable ({' '.join(str(error).split())[:80]})") from error
    if isinstance(found, str):  # YAML 1.1 takes 1e-6 for a text
        try:
            return float(found)
        except ValueError:
            return found
    return found


def dataset(overrides: Sequence[str]) -> Any:
    """The images that `dataset=...` and `dataset.KEY=...` describe, a vae.data.split.Data. Raises InputError."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vae.cli import arguments, launch
    from vae.config.errors import one_line
    from vae.data import readers, scale

    launch.register_resolvers()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = load(compose("config", [arguments.quoted(item) for item in overrides])).dataset
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(one_line(error)) from error
    data = readers.load(config)
    scale.check(data, f"dataset={config.name}")
    return data
