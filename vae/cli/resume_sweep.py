"""`python run.py resume=SWEEP`: continue what is unfinished in a sweep, and begin what never began.

It is launched as the sweep was. Without a launcher, or with joblib's, each run is a process of its own on this machine;
all other launchers (Slurm's, Ray's) are given the jobs as Hydra's sweeper gives them. What a sweep's directory says of
its launcher may come from anywhere: names and numbers are taken from it, and nothing that is run."""

import logging
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from joblib import cpu_count
from omegaconf import DictConfig, OmegaConf

from vae.cli import failures, workers
from vae.cli.callbacks import SweepReport
from vae.cli.grid import grid, naming_override, subdirectories
from vae.cli.launch import user_environment
from vae.cli.reporting import write_report
from vae.cli.session import DIRECTORIES, SHORT, Job, config_directories
from vae.config.errors import InputError, one_line
from vae.config.load import REFERENCE, allowed_modules, check_allowed, flat
from vae.config.schema import RunConfig
from vae.output import record as records
from vae.runtime import children, commands, cores, files, naming
from vae.runtime import directory as names
from vae.runtime.signals import Interrupted

log = logging.getLogger(__name__)

SAVED = (128 + signal.SIGTERM, 128 + signal.SIGINT)  # exit statuses of a run that was asked to stop
NOT_OF_A_RUN = ("allow", "recommend", *DIRECTORIES, *SHORT.values())  # keys that a sweep's job has no business with
LAUNCHERS = {  # hydra/launcher=NAME by its class
    "BasicLauncher": "basic",
    "JoblibLauncher": "joblib",
    "LocalLauncher": "submitit_local",
    "SlurmLauncher": "submitit_slurm",
    "RayLauncher": "ray",
}
EXTRAS = {"joblib": "joblib", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}  # of pyproject.toml
# Texts of a launcher that name something and can neither run nor reach anything.
NAMING = (
    *("name", "partition", "qos", "account", "comment", "constraint", "exclude", "gres"),
    *("mem_per_gpu", "mem_per_cpu"),
)


class Todo(NamedTuple):
    """A run that is to be resumed or begun."""

    name: str
    place: str  # its directory, in the sweep's
    overrides: list[str]


def is_sweep(directory: Path) -> bool:
    return not (directory / names.CONFIG).parent.is_dir() and (directory / names.SWEEP).is_file()


def resume_sweep(job: Job, call: RunConfig, program: Path, main: TaskFunction) -> None:
    """Continue each unfinished run of a sweep and begin those that never began, launched as the sweep was, then write
    its report. Raises InputError where some failed or this call gives values, and Interrupted."""
    directory = job.directory
    if job.keys:
        raise InputError(
            f"{job.keys[0]}: cannot be changed for a sweep that exists, whose values are those that it was started "
            f"with; allowed: allow, hydra/launcher, hydra.launcher; {commands.resume(directory / 'RUN')} takes values "
            "for one of its runs"
        )
    modules = allowed_modules(call)
    allow = [f"allow=[{','.join(modules)}]"] if modules else []
    unfinished = [
        run for run in sorted(names.runs_below(directory)) if not (run / names.REFUSED).exists() and not _is_done(run)
    ]
    todo = [
        Todo(run.name, str(run.relative_to(directory)), [f"resume={commands.written(str(run))}", *allow])
        for run in unfinished
    ]
    todo += _never_begun(directory, modules)
    launcher = _launcher(directory)
    if launcher.name in ("basic", "joblib"):
        at_once = 1 if launcher.name == "basic" else _workers(launcher)
        failed = _here(directory, todo, at_once, program)
    else:
        failed = _launched(directory, todo, launcher, main) if todo else 0
    write_report(directory)
    if failed:
        raise InputError(f"{directory}: {failed} of its runs failed")


def _is_done(run: Path) -> bool:
    """Whether a run has come to its verdict; one that failed has a record without."""
    return (run / names.RESULT).exists() and not (run / names.ERROR).exists() and "verdict" in records.read(run)


def _here(directory: Path, todo: Sequence[Todo], at_once: int, program: Path) -> int:
    """Each in a process of its own on this machine, with its share of the cores among `at_once`, also where fewer are
    left: how many failed."""
    options = config_directories()  # of this call: one that multirun.yaml names is not to be trusted
    environment = user_environment()
    if at_once > 1:
        environment = {"OMP_NUM_THREADS": str(cores.share(at_once))} | environment
    calls = [[sys.executable, str(program), *options, *item.overrides, *_alone(directory, item)] for item in todo]

    def begins(number: int) -> None:
        log.info("sweep: resuming %s, %d of %d", todo[number].name, number + 1, len(todo))

    statuses, stopped_by = children.run_all(calls, at_once, environment, begins)
    if stopped_by:
        unsaved = sum(status not in (0, *SAVED) for status in statuses)
        ended = f"; {unsaved} of {len(statuses)} runs did not save themselves" if unsaved else ", and its runs saved"
        raise Interrupted(f"stopped{ended}", commands.resume(directory), stopped_by)
    return sum(status != 0 for status in statuses)


def _alone(directory: Path, item: Todo) -> list[str]:
    """What makes a job that never began a single run; one that has begun is named by resume=."""
    place = f"hydra.run.dir={commands.written(str(directory / item.place))}"
    return [] if (directory / item.place).exists() else ["hydra.mode=RUN", place]


def _launched(directory: Path, todo: Sequence[Todo], launcher: "Launcher", main: TaskFunction) -> int:
    """By a launcher of Hydra's, which is given the jobs as a sweeper gives them: how many failed."""
    place = f"hydra.sweep.dir={commands.written(str(directory))}"
    config = _composed([*_own(), *launcher.overrides, place, "hydra.mode=MULTIRUN"])
    report = SweepReport()
    report.begin(directory, len(todo))
    context = HydraContext(GlobalHydra.instance().config_loader(), report)  # type: ignore[arg-type]  # it has both calls
    engine = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=main, config=config)
    jobs = [
        [*item.overrides, place, f"hydra.sweep.subdir={commands.written(item.place)}", "hydra.mode=MULTIRUN"]
        for item in todo
    ]
    log.info("sweep: hydra/launcher=%s gets %d runs", launcher.name, len(todo))
    try:
        with workers.stoppable(directory, config) as report.leash:
            returned = engine.launch(jobs, 0)
    except Exception as error:
        if not failures.is_killed_worker(error):
            raise
        raise InputError(f"{directory}: {failures.what_ended(error)}; {commands.resume(directory)}") from error
    failed = 0
    for item, done in zip(todo, returned, strict=True):
        try:
            _ = done.return_value  # raises what has ended the job
        except Exception as error:
            failed += 1
            log.error("%s: %s", item.name, one_line(error))
    return failed


class Launcher(NamedTuple):
    """hydra/launcher=NAME with the values that a sweep was started with."""

    name: str
    values: dict[str, Any]  # by their keys below hydra.launcher
    overrides: list[str]  # which choose it
    is_given: bool = False  # by this call, and not by a file


def _launcher(directory: Path) -> Launcher:
    """What this call says with hydra/launcher=NAME, or else the sweep was started with. Raises InputError where that is
    not installed, or wants more than names and numbers."""
    if any(item.startswith("hydra/launcher=") for item in _own()):
        given = _values(HydraConfig.get().launcher)
        return Launcher(LAUNCHERS.get(_class(given), given["_target_"]), given, [], is_given=True)
    try:
        found = files.read_yaml(directory / names.SWEEP)["hydra"]["launcher"]
        name, values = LAUNCHERS[_class(found)], flat(found)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        log.warning("sweep: how it was launched is not known here; its runs are resumed one after the other")
        return Launcher("basic", {}, [])
    if name in ("basic", "joblib"):
        return Launcher(name, values, [])
    choice = f"hydra/launcher={name}"
    try:
        default = _values(_composed([choice]).hydra.launcher)
    except HydraException as error:
        raise InputError(
            f"resume={directory}: was started with {choice}, which is not installed here; pip install "
            f"'.[{EXTRAS[name]}]' brings it, and hydra/launcher=basic goes without"
        ) from error
    changed = {key: value for key, value in values.items() if default.get(key) != value}
    for key, value in changed.items():
        if not _is_harmless(key, value, default) or (name == "submitit_local" and key == "tasks_per_node"):
            raise InputError(
                f"{directory / names.SWEEP}: hydra.launcher.{key} may run something; if you trust it, give it in this "
                f"call, after {choice}"
            )
    own = [f"hydra.launcher.{key}={commands.written(value)}" for key, value in changed.items()]
    return Launcher(name, values, [choice, *own])


def _values(launcher: Any) -> dict[str, Any]:
    found = OmegaConf.to_container(launcher, resolve=False)
    assert isinstance(found, dict)
    return flat({str(key): value for key, value in found.items()})


def _is_harmless(key: str, value: Any, default: Mapping[str, Any]) -> bool:
    """A number, or a name for the cluster, under a key that the launcher has."""
    if key not in default:
        return False
    names_something = isinstance(value, str) and key in NAMING and re.fullmatch(r"[\w ./:,=@%+&|*-]*", value)
    return value is None or isinstance(value, bool | int | float) or bool(names_something)


def _class(launcher: Mapping[str, Any]) -> str:
    return str(launcher["_target_"]).rpartition(".")[2]


def _own() -> list[str]:
    """Hydra's own overrides of this call."""
    found = OmegaConf.to_container(HydraConfig.get().overrides.hydra, resolve=False)
    assert isinstance(found, list)
    return [str(item) for item in found]


def _composed(overrides: list[str]) -> DictConfig:
    return compose(str(HydraConfig.get().job.config_name), overrides, return_hydra_config=True)


def _workers(launcher: Launcher) -> int:
    """How many runs at a time joblib's n_jobs asks for; more than there are cores only where this call says so."""
    asked, cores_here = launcher.values.get("n_jobs", -1), int(cpu_count())
    if not isinstance(asked, int):
        return 1
    workers = asked if asked > 0 else cores_here + 1 + asked
    return max(1, workers if launcher.is_given else min(workers, cores_here))


def _never_begun(directory: Path, allow: Sequence[str]) -> list[Todo]:
    """Of a grid's jobs those that have no directory yet, each with its overrides. Raises
    InputError where they ask for more than values, options, and parts from modules that are allowed."""
    try:
        # Not resolved: a ${...} in an override is resolved job by job.
        hydra = files.read_yaml(directory / names.SWEEP)["hydra"]
        if not hydra["sweeper"]["_target_"].endswith("BasicSweeper"):
            return []  # what a search tries next depends on what it has seen
        jobs, subdir = grid(hydra["sweeper"]["params"] or {}, hydra["overrides"]["task"]), str(hydra["sweep"]["subdir"])
    except (OSError, ValueError, LookupError, TypeError, HydraException) as error:
        reason = one_line(error)
        raise InputError(f"{directory / names.SWEEP}: does not say what the sweep is ({reason})") from error
    for override in {item for job in jobs for item in job}:
        _check_override(override, allow, directory / names.SWEEP)
    quoted = subdir.replace("\\", "\\\\").replace('"', '\\"')
    shared = {naming.split(item)[0] for job in jobs for item in job} - set(naming.varied(jobs))
    own = [f'hydra.sweep.subdir="{quoted}"', naming_override(sorted(shared))]
    places = subdirectories(str(HydraConfig.get().job.config_name), jobs, own)
    if not all((directory / place).resolve().is_relative_to(directory.resolve()) for place in places):
        raise InputError(f"{directory / names.SWEEP}: its runs would not lie below it")
    return [
        Todo(" ".join(job), place, job)
        for job, place in zip(jobs, places, strict=True)
        if not (directory / place).exists()
    ]


def _check_override(text: str, allow: Sequence[str], source: Path) -> None:
    override = OverridesParser.create().parse_override(text)
    key, value = override.key_or_group, override.value()
    if (
        key in NOT_OF_A_RUN
        or key.partition(".")[0].partition("/")[0] == "hydra"
        or "${" in REFERENCE.sub("", text.replace("\\", ""))
    ):
        raise InputError(f"{source}: {text!r} is no value of a run; if you trust it, start that run yourself")
    *_, last = key.split(".")
    asked = {last: value} if last == "_target_" else value
    check_allowed({key: asked}, allow)
