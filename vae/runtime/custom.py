"""Parts that a user brings: a class or function named by `_target_` in a configuration, as Hydra has it."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import hydra.utils
from hydra.errors import HydraException

from vae.config.errors import InputError, one_line
from vae.config.load import targets


def build(spec: Mapping[str, Any], place: str, **given: Any) -> Any:
    """What the class or function `spec["_target_"]` gives when it is called with its other entries and with `given`.

    `place` is its key in the configuration, for messages. Raises InputError where it, or a part inside it, cannot be
    imported, does not take these arguments, or fails."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)  # where the program is called, a user's modules may lie
    for inner, target in targets(spec, place):
        _locate(target, inner)
    name, own = spec["_target_"], {key: value for key, value in spec.items() if not key.startswith("_")}
    try:
        inspect.signature(_locate(name, place)).bind(*spec.get("_args_", ()), **own, **given)
    except ValueError:
        pass  # a builtin that does not say what it takes
    except TypeError as error:
        called = ", ".join([*given, *own]) or "no arguments"
        raise InputError(f"{place}: {name} is called with {called}: {error}") from error
    with one_line_for(place, f"{name} fails"):
        return hydra.utils.instantiate({**spec, "_partial_": True}, _convert_="all")(**given)


@contextmanager
def one_line_for(place: str, what: str) -> Iterator[None]:
    """Raises InputError for whatever the user's own code raises in here; the traceback is there for who asks for it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the user's code may raise anything
        said = (
            one_line(error) if isinstance(error, HydraException) else f"{type(error).__name__}: {error}".splitlines()[0]
        )
        raise InputError(f"{place}: {what} ({said}); HYDRA_FULL_ERROR=1 shows where") from error


def _locate(target: Any, place: str) -> Callable[..., Any]:
    """The class or function at `target`. Raises InputError unless it stands at the top of an importable module of its
    own package: a name that a module has only imported leads elsewhere."""
    module_name, _, name = str(target).rpartition(".")
    if not module_name:
        raise InputError(f"{place}._target_={target}: must be module.name, as in my_parts.Encoder")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever a module does when it is imported
        raise InputError(
            f"{place}._target_={target}: {module_name} cannot be imported ({type(error).__name__}: {error}); "
            "run from its directory, or put that on PYTHONPATH"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise InputError(f"{place}._target_={target}: {module_name} has no class or function {name}")
    home = str(getattr(found, "__module__", None))
    if home.partition(".")[0] != module_name.partition(".")[0]:
        raise InputError(f"{place}._target_={target}: {name} is defined in {home}; name it there")
    return found
