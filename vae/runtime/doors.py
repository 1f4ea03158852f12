"""Packages that can be called: `vae.scale(...)` is the function `scale` of the package vae.scale, whichever of the two
was imported first, and `python -m vae.scale` is its command line. (Python lets a module have a subclass of ModuleType:
"Customizing module attribute access" in its language reference.) No torch."""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(module: str, function: Callable[..., Any]) -> None:
    """Calling the imported `module` calls `function`, whose signature and help it shows."""

    class Door(ModuleType):
        __call__ = staticmethod(function)
        __signature__ = inspect.signature(function)

    sys.modules[module].__class__ = Door
