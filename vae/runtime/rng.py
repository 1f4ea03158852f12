"""Random number generators by name. Every random draw of a run (initial weights, data order, noise, evaluation,
pictures) comes from a generator of its own, and each generator is a function of (seed, name, index) alone. So
evaluating a run more often does not change it, and step 1,000 can be repeated without the 999 before it."""

import hashlib

import torch


def generator(seed: int, name: str, index: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator for draw number `index` (a step, an epoch) of what is so named."""
    digest = hashlib.blake2b(f"{seed}/{name}/{index}".encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest) >> 1)
