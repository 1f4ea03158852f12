"""Configurations as earlier versions have saved them, brought to today's form.

Until checkpoint format 4 an option had no `kind`: its `name` said which dataclass it was. Until format 5 a code was
used when swapping codes raised the squared error by a fraction, and anneal=delayed waited for an MSE per pixel."""

from collections.abc import Mapping
from typing import Any

KINDS = {
    "model": {"ae": "ae", "conv_vae": "conv", "mlp_vae": "mlp", "linear_vae": "linear"},
    "dataset": {
        "mnist5k": "embedded",
        "mnist": "torchvision",
        "fashion_mnist": "torchvision",
        "kmnist": "torchvision",
        "cifar10": "torchvision",
    },
}  # the other options were called as their kinds are
SOURCES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST", "cifar10": "CIFAR10"}

THRESHOLDS = {
    "used_nats": 0.1,
    "little_kld": 1.0,
    "partly_gain": 0.5,
    "unfinished_steps": 100,
    "unfinished_fall": 0.1,
    "overfit": 0.2,
    "prior_misfit": 10.0,
}  # that verdicts have had since, or that mean something else since
RESIDUE_NATS = 1.0  # the threshold that came with autoregressive decoders


def migrated(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a saved configuration in today's form; one that is in it already comes back equal."""
    found = dict(values)
    for group in ("model", "objective", "anneal", "dataset"):
        part = found.get(group)
        if isinstance(part, dict) and "kind" not in part:
            name = part.get("name")
            found[group] = part | {"kind": KINDS.get(group, {}).get(str(name), name)}
            if found[group]["kind"] == "torchvision":
                found[group] |= {"source": SOURCES.get(str(name), name)}
    found.setdefault("cure", {"kind": "none", "name": "none"})  # until format 7 there were none
    found.setdefault("tracking", {"kind": "tensorboard", "name": "tensorboard"})  # there was nothing else
    anneal, evaluation = found.get("anneal"), found.get("evaluation")
    if isinstance(anneal, dict) and anneal.get("kind") == "delayed" and "threshold_of" not in anneal:
        found["anneal"] = anneal | {"threshold_of": "mse", "patience": None}
    thresholds = evaluation.get("thresholds") if isinstance(evaluation, dict) else None
    if isinstance(evaluation, dict) and isinstance(thresholds, dict) and "used_gap" in thresholds:
        kept = {name: value for name, value in thresholds.items() if name not in ("used_gap", *THRESHOLDS)}
        thresholds = kept | THRESHOLDS
    if isinstance(evaluation, dict) and isinstance(thresholds, dict):
        found["evaluation"] = evaluation | {"thresholds": {"residue_nats": RESIDUE_NATS} | thresholds}
    return found
