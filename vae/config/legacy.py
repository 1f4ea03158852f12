"""Configurations as earlier versions have saved them, brought to today's form.

Until checkpoint format 4 an option had no `kind`: its `name` said which dataclass it was."""

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
    return found
