"""What a linear classifier finds in the code."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

MAX_IMAGES = 10_000  # that it is fitted on
MAX_CLASSES = 100
MAX_WORK = 3e7  # images * classes * dimensions: a few seconds


class Probe(NamedTuple):
    accuracy: float
    majority: float  # accuracy of the most frequent answer
    asked: int  # of how many images


def chosen(labels: Tensor, classes: Tensor, latent_dim: int, rng: torch.Generator) -> Tensor:
    """Which of the training images, of the given `classes`, the probe is fitted on; a random choice."""
    able = torch.isin(labels, classes).nonzero()[:, 0]
    count = min(MAX_IMAGES, int(MAX_WORK / (len(classes) * latent_dim)))
    return able[torch.randperm(len(able), generator=rng)[: max(count, 2)]]


def most_frequent(labels: Tensor) -> Tensor:
    """Up to MAX_CLASSES classes of `labels` (N,), the largest ones."""
    classes, counts = labels.unique(return_counts=True)
    return classes[counts.argsort(descending=True, stable=True)[:MAX_CLASSES]]


def fit(train_z: Tensor, train_labels: Tensor, test_z: Tensor, test_labels: Tensor) -> Probe | None:
    """Logistic regression on standardised codes (N, d): its accuracy on other images. None where the training labels
    are all the same, or nothing is asked."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(train_labels.unique()) < 2 or not len(test_labels):
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
    with warnings.catch_warnings(), threadpool_limits(1):  # so small products wait longer for a second thread
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe.fit(train_z.double().cpu().numpy(), train_labels.cpu().numpy())
    accuracy = float(probe.score(test_z.double().cpu().numpy(), test_labels.cpu().numpy()))
    return Probe(accuracy, float(test_labels.unique(return_counts=True)[1].max() / len(test_labels)), len(test_labels))
