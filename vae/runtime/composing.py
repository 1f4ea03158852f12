"""What a command line composes, asked in the midst of a call. No torch."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobRuntime
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae.config import schema
from vae.config.load import CONF, GROUPS, flat
from vae.runtime import naming

OTHERS_ALONE = {"experiment", "cause", "sweep"}  # groups that set the others and hold nothing themselves
OWN = {field.name for field in dataclasses.fields(schema.RunConfig)} - OTHERS_ALONE


def made_to_fit(arguments: Sequence[str], also_in: Path | None = None) -> list[str]:
    """What to add to these arguments where an experiment, a cause or a sweep among them goes by another option of a
    group than they choose: ~objective.sigma2 to experiment=vae objective=sse, and another name to a run that is named
    by such a value. `also_in`: another directory of options. Nothing where nothing is in the way, or the arguments do
    not compose.

    They may come from a run's directory, whose word imports nothing and computes nothing: Hydra's own are left out,
    as are options that are computed, and no value is."""
    keys = {item: naming.split(item)[0] for item in arguments}
    if all(key.partition(".")[0] in OWN for key in keys.values()):
        return []
    asked = [
        item
        for item, key in keys.items()
        if not key.startswith("hydra") and ("${" not in item or "." in key or key == "run_name")
    ]
    if also_in is not None:
        asked.append(f"hydra.searchpath=['file://{also_in.absolute()}']")
    try:
        with _beside_the_call():
            values: Any = OmegaConf.to_container(compose("config", asked))
    except (HydraException, OmegaConfBaseException, OSError):
        return []
    found = dict(item for group, base in GROUPS.items() for item in unknown(base, values.get(group), group))
    words = [word for key, value in found.items() for word in taken_out(key, value)]
    named_by = re.findall(r"\$\{([\w.]+)\}", str(values.get("run_name")))
    return words + ([] if set(named_by) <= flat(values).keys() - found.keys() else ["run_name=advised"])


@contextmanager
def _beside_the_call() -> Iterator[None]:
    """Hydra on conf/, whatever it has composed for the call that is running."""
    running, job = GlobalHydra.instance().hydra, JobRuntime.instance()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3", job_name=job.get("name")):
            yield
    finally:
        if running is not None:
            GlobalHydra.instance().initialize(running)


def taken_out(key: str, value: Any) -> list[str]:
    """The words that take out a key which is set to this value: Hydra takes a null for nothing that it could take
    out."""
    return [*([f"{key}=0"] if value is None else []), f"~{key}"]


def unknown(base: type[schema.Part], values: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The keys in the values of a part that its kind has not, and what they are set to."""
    kind = schema.kinds(base).get(str(values.get("kind"))) if isinstance(values, Mapping) else None
    if kind is None:
        return
    fields = {field.name: field.type for field in dataclasses.fields(kind)}
    for key, value in values.items():
        of = fields.get(key)
        if of is None:
            yield f"{path}.{key}", value
        elif isinstance(of, type) and issubclass(of, schema.Part):
            yield from unknown(of, value, f"{path}.{key}")
