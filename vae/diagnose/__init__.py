"""A model that was trained elsewhere: `vae.diagnose(...)`, `python -m vae.diagnose`, `vae.Monitor`."""

from vae.diagnose.call import diagnose
from vae.diagnose.diagnosis import Diagnosis
from vae.runtime.doors import make_callable

__all__ = ["Diagnosis", "diagnose"]

make_callable(__name__, diagnose)
