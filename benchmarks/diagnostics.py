"""What looking costs: the diagnostics of one evaluation, and of the end of a run, beside the training between two
evaluations at the default settings. `python benchmarks/diagnostics.py [overrides ...]`"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from vae import config as conf  # noqa: E402
from vae import datasets, diagnostics, objective  # noqa: E402
from vae.data import training_batches  # noqa: E402
from vae.evaluation import encode_split, evaluate, examine  # noqa: E402
from vae.model import VAE  # noqa: E402
from vae.streams import generator  # noqa: E402
from vae.train import build_optimizer, use_device  # noqa: E402

REPEATS = 5
STEPS = 50  # of training, scaled up to eval_every


def seconds(call: Callable[[], object]) -> float:
    """Median of a few calls, after one to warm up."""
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    conf.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = conf.load(compose("config", sys.argv[1:]))
    device = use_device(config.train)
    data = datasets.load(config.dataset).to(device)
    likelihood = objective.build(config.objective, config.model.output, data.train.shape).to(device)
    model = VAE(config.model, likelihood.link_name, data.train.shape, config.seed).to(device)
    optimizer = build_optimizer(config.train, model, device)
    batches = training_batches(data.train, config.train.batch_size, config.seed)
    settings = config.evaluation

    def training() -> None:
        for step in range(STEPS):
            images = next(batches)
            posterior = model.encode(images)
            noise = torch.randn(posterior.mu.shape, generator=generator(0, "noise", step, device), device=device)
            loss = likelihood(images, model.raw(posterior.sample(noise))).loss + posterior.kl().mean(0).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def figures_alone() -> None:
        """The figures without the diagnostics: encode, decode a sampled z and mu, sum up."""
        with torch.no_grad():
            posterior = encode_split(model, data.test, settings.batch_size)
            for start in range(0, len(data.test), settings.batch_size):
                rows = slice(start, start + settings.batch_size)
                images = data.test.batch(rows)
                likelihood.nll(images, model.raw(posterior.mu[rows]))
                likelihood.squared_error(images, model.raw(posterior.mu[rows]))

    between = seconds(training) * config.train.eval_every / STEPS
    done = evaluate(model, likelihood, data.test, settings, 0)
    index = torch.arange(len(data.test))[: settings.marginal_samples]
    plain = seconds(figures_alone)
    whole = seconds(lambda: evaluate(model, likelihood, data.test, settings, 0, settings.marginal_samples))
    rows = {
        f"training, {config.train.eval_every} steps": between,
        "evaluation without diagnostics": plain,
        "evaluation with them": whole,
        "  of it the aggregate posterior": seconds(
            lambda: diagnostics.aggregate_posterior(done.posterior, done.z[index], index)
        ),
        "what the diagnostics add": whole - plain,
        "once, at the end of the run": seconds(lambda: examine(model, likelihood, data, done, settings, 0)),
    }
    print(f"{config.model.name} on {config.dataset.name}, {torch.get_num_threads()} threads, {device}")
    for name, value in rows.items():
        print(f"{name:<36}{value:8.3f} s {value / between:8.1%} of the training between two evaluations")


if __name__ == "__main__":
    main()
