"""Trains an autoencoder or a variational autoencoder: composes conf/, trains, logs. `python run.py --help`."""

import contextlib
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vae import callbacks, files, terminal
from vae import config as conf
from vae.schema import RunConfig
from vae.verdict import explain

ERROR = "error.txt"  # in the directory of a multirun's job that failed

conf.register()


@hydra.main(version_base="1.3", config_path=str(Path(__file__).parent.resolve() / "conf"), config_name="config")
def main(cfg: DictConfig) -> float | None:
    directory = Path(HydraConfig.get().runtime.output_dir)
    if not cfg.evaluate:
        (directory / ERROR).unlink(missing_ok=True)  # of an earlier attempt
    try:
        config = conf.load(cfg)
        if config.resume and not (directory / ".hydra").is_dir() and (directory / "multirun.yaml").is_file():
            go_on_with_sweep(directory)
            return None
        record = run(cfg, config, directory)
    except Exception as error:
        if not is_single():  # the other jobs go on, the report names this one
            said = conf.one_line(error) if isinstance(error, conf.InputError) else traceback.format_exc()
            with contextlib.suppress(OSError):  # what went wrong may be just that nothing can be written
                directory.mkdir(parents=True, exist_ok=True)
                (directory / ERROR).write_text(terminal.lines(said) + "\n")
        elif isinstance(error, conf.InputError):
            sys.exit(str(error))
        raise
    terminal.show(summary(record, directory))
    return float(record[cfg.metric])


def run(cfg: DictConfig, config: RunConfig, directory: Path) -> dict[str, Any]:
    """Train, go on, or measure again: the final record. torch is imported only here, where something is computed."""
    if config.evaluate:
        from vae import checkpoint
        from vae.remeasure import remeasure

        saved = checkpoint.read(directory)["config"]
        allowed = ("evaluation", "dataset", "train.threads", "train.device")
        with mended(directory):
            return remeasure(conf.revise(saved, cfg, given_keys(), allowed), directory)
    callbacks.NEW.clear()
    try:
        with files.locked(directory), mended(directory):
            if config.resume:
                from vae.resume import go_on

                return go_on(cfg, given_keys(), directory)
            from vae.train import train

            return train(config, directory)
    except BlockingIOError as error:
        raise conf.InputError(f"{directory}: another process is training in it") from error
    except Exception:
        if not config.resume and is_single() and not list(directory.glob("events.out.tfevents.*")):
            discard(directory)
        raise


@contextlib.contextmanager
def mended(directory: Path) -> Iterator[None]:
    """Raises RunFailed, in words that say what to do, for what the machine could not give: files, or memory."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as error:
        where = f" (at {error.filename})" if error.filename else ""
        raise conf.RunFailed(
            f"{directory}: {error.strerror or error}{where}; mend that, and resume={directory} goes on if it had begun"
        ) from error
    except (MemoryError, RuntimeError) as error:
        from vae.machine import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        raise conf.RunFailed(
            f"{directory}: out of memory; take a smaller model, or lower train.batch_size or dataset.size"
        ) from error


def go_on_with_sweep(directory: Path) -> None:
    from vae.resume import go_on_with_sweep

    failed = go_on_with_sweep(Path(__file__).resolve(), directory)
    if failed:
        raise conf.InputError(f"{failed} runs of {os.path.relpath(directory)} failed")


def given_keys() -> list[str]:
    """The groups and values that this call's command line sets."""
    overrides = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return [item.key_or_group for item in overrides if item.key_or_group not in ("evaluate", "resume")]


def is_single() -> bool:
    return HydraConfig.get().mode == RunMode.RUN


def summary(record: dict[str, Any], directory: Path) -> str:
    """The figures of a finished run and where it is, for the terminal."""
    shown = {
        "test MSE per pixel": "mse",
        "test KLD, nats": "kld",
        "KL weight": "kl_weight",
        "ELBO, nats": "elbo",
    }
    lines = [f"{label:<20}{record[key]:.6g}" for label, key in shown.items()]
    lines += [
        f"{'mu':<20}{record['mu_min']:.3g} to {record['mu_max']:.3g}, mean {record['mu_mean']:.3g}",
        f"{'sigma':<20}{record['sigma_min']:.3g} to {record['sigma_max']:.3g}, mean {record['sigma_mean']:.3g}",
        f"{'results':<20}{os.path.relpath(directory)}",
        f"{'browse':<20}tensorboard --logdir {os.path.relpath(directory)}",
    ]
    if "seconds" in record:  # not where an interrupted run is measured again
        lines.append(f"{'time':<20}{record['seconds']:.0f} s, {record['images_per_second']:.0f} images/s")
    if "linear_kld" in record:
        found, optimum = (
            [record[f"{kind}_{name}"] for name in ("kept", "kld", "sse", "elbo")] for kind in ("linear", "optimum")
        )
        lines.append(f"{'closed form':<20}" + "kept {}, KL {:.4f}, SSE {:.4f}, ELBO {:.3f}".format(*optimum))
        lines.append(f"{'this model':<20}" + "kept {}, KL {:.4f}, SSE {:.4f}, ELBO {:.3f}".format(*found))
    answer = textwrap.wrap(f"{record['verdict']}: {explain(record)}", 100)
    return "\n".join([f"{record['run_name']} finished after {record['steps']} steps", *lines, "", *answer])


def composing(error: Exception) -> bool:
    """Whether the error came before `main`: Hydra answers some overrides with errors that are not its own."""
    return all(frame.f_code.co_name != "main" for frame, _ in traceback.walk_tb(error.__traceback__))


def discard(directory: Path) -> None:
    """Remove the directory of a run that never began, and those above it, below this one, that it leaves empty."""
    shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        for parent in directory.parents:
            if not parent.is_relative_to(Path.cwd()) or parent == Path.cwd():
                break
            parent.rmdir()


def follow() -> None:
    """Train what the leader of several processes announces."""
    from vae import parallel
    from vae.train import train

    for task in parallel.tasks():
        train(*task)


def dismiss() -> None:
    """Let the processes go that follow this one, if it leads any."""
    if conf.is_leader():
        from vae import parallel

        parallel.announce(None)


def is_killed_worker(error: Exception) -> bool:
    """Whether a launcher (joblib, submitit, Ray) says that a process of its own came to an end."""
    lost = ("UncompletedJobError", "FailedJobError", "WorkerCrashedError", "OutOfMemoryError")
    launcher = type(error).__module__.partition(".")[0] in ("submitit", "ray")
    return isinstance(error, BrokenExecutor) or (launcher and type(error).__name__ in lost)


def cli() -> None:
    """Run the program; whatever a user can mend ends it with one line on stderr and an exit status that is not 0."""
    terminal.open_streams()
    callbacks.NEW.clear()
    # Hydra prints several lines for a mistake in a config; told to raise it instead, it leaves the one line to us.
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if conf.processes() > 1 and not conf.is_leader():
            follow()
        else:
            main()
            dismiss()
    except Exception as error:
        mendable = isinstance(error, HydraException | OmegaConfBaseException | conf.InputError | OSError)
        killed = is_killed_worker(error)
        if wants_traceback or not (mendable or killed or composing(error)):
            raise
        for directory in callbacks.NEW:  # Hydra could not write the configuration
            discard(directory)
        where = f"{callbacks.NEW[0]}: " if callbacks.NEW and isinstance(error, OSError) else ""
        said = conf.one_line(error) or type(error).__name__
        if killed:
            stopped = next((pending.directory for pending in callbacks.PENDING), None)
            said = f"a worker of the sweep was killed or ran out of memory; resume={stopped} goes on where it stopped"
        sys.exit(terminal.printable(where + said))
    except SystemExit as stop:
        sys.exit(terminal.printable(stop.code) if isinstance(stop.code, str) else stop.code)
    except KeyboardInterrupt as stop:  # Ctrl-C, or what the loop makes of a signal
        terminal.say(str(stop) or "interrupted")
        sys.exit(getattr(stop, "status", 130))
    finally:
        for sweep in callbacks.PENDING:
            sweep.report()


if __name__ == "__main__":
    cli()
