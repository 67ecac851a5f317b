"""Scores of a classifier on one split, for classes that are not equally common. Pure numpy."""

import numpy as np
import numpy.typing as npt


def accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """Share of samples predicted right. On 5 % bad loans, calling every loan good scores 0.95."""
    return float(np.mean(labels == predicted))


def balanced_accuracy(labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur in `labels`; 0.5 for a constant answer where two occur."""
    _, cls = np.unique(labels, return_inverse=True)
    return float(np.mean(np.bincount(cls, labels == predicted) / np.bincount(cls)))


def auroc(labels: npt.NDArray[np.int64], scores: npt.NDArray[np.floating]) -> float | None:
    """Probability that a sample of class 1 scores above one of class 0, ties counting half (Mann-Whitney U).

    None where only one class occurs, for which it is undefined.
    """
    positive = labels == 1
    n1 = int(positive.sum())
    n0 = len(labels) - n1
    if n0 == 0 or n1 == 0:
        return None
    _, group, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mid_ranks = np.cumsum(counts) - (counts - 1) / 2
    return float((mid_ranks[group][positive].sum() - n1 * (n1 + 1) / 2) / (n0 * n1))
