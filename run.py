"""Trains an autoencoder or a variational autoencoder: composes conf/, trains, logs. `python run.py --help`."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from vae.cli import failures, launch
from vae.cli.session import USES
from vae.cli.summary import summary
from vae.config.load import load
from vae.runtime.terminal import show

CONF = Path(__file__).parent.resolve() / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(composed: DictConfig) -> float | None:
    """One run: what Hydra has composed is checked, carried out, and summed up. The value of `metric` is returned to
    sweepers that search."""
    job = launch.begin_job()
    if job.is_refused:  # before its sweep began
        return None
    with failures.noted(job):
        config = load(composed)
        verb = next(iter(config.verbs()), None)
        # torch is imported below, where something is computed: --help and --cfg answer without it.
        if config.evaluate:
            from vae.cli.evaluate import evaluate

            record = evaluate(job, config, composed).to_dict()
        elif config.recommend:
            from vae.cli.recommend import recommend

            recommend(job, config, composed)
            return None
        elif config.explain.run:
            from vae.cli.explain import explain

            explain(job, config)
            return None
        elif config.use.export:
            from vae.cli.export import export

            export(job, config, composed)
            return None
        elif verb in USES:
            from vae.cli.use import use

            use(verb, job, config, composed)
            return None
        elif config.resume:
            from vae.cli.resume import resume_run
            from vae.cli.resume_sweep import is_sweep, resume_sweep

            if is_sweep(job.directory):
                resume_sweep(job, config, Path(__file__).resolve(), main)
                return None
            record = resume_run(job, config, composed)
        else:
            from vae.cli.train import train_new

            record = train_new(job, config)
    show(summary(record, job.directory))
    return float(record[config.metric])


if __name__ == "__main__":
    launch.run(main)
