"""From proposals to one aggregate: FedAvg, and the robust rules that a user would try instead of a vote.

Each takes updates float64[n, d], the sample counts int64[n], and f, how many of the n are assumed malicious;
it returns float64[d]. Only FedAvg uses the counts, only the others use f.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Updates = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Rule = Callable[[Updates, Counts, int], Updates]


class AggregationError(ValueError):
    """More malicious proposals are assumed than the rule can stand."""


def federated_average(updates: Updates, counts: Counts, f: int) -> Updates:
    """The mean weighted by samples (McMahan et al. 2017, algorithm 1)."""
    mean: Updates = counts @ updates / counts.sum()
    return mean


def coordinate_median(updates: Updates, counts: Counts, f: int) -> Updates:
    """The median of each coordinate (Yin et al. 2018, definition 1)."""
    median: Updates = np.median(updates, axis=0)
    return median


def trimmed_mean(updates: Updates, counts: Counts, f: int) -> Updates:
    """The mean of each coordinate without its f largest and f smallest values (Yin et al. 2018, def. 2)."""
    n = len(updates)
    if 2 * f >= n:
        raise AggregationError(f"a mean of {n} values cannot be trimmed by {f} at both ends")
    mean: Updates = np.sort(updates, axis=0)[f : n - f].mean(axis=0)
    return mean


def krum(updates: Updates, counts: Counts, f: int) -> Updates:
    """The update nearest to its n - f - 2 nearest others (Blanchard et al. 2017, section 4)."""
    best: Updates = updates[np.argmin(krum_scores(updates, f))]
    return best


def multi_krum(updates: Updates, counts: Counts, f: int) -> Updates:
    """The mean of the n - f updates with the best Krum scores (Blanchard et al. 2017, section 4)."""
    best = np.argsort(krum_scores(updates, f), kind="stable")[: len(updates) - f]
    mean: Updates = updates[np.sort(best)].mean(axis=0)
    return mean


def krum_scores(updates: Updates, f: int) -> npt.NDArray[np.float64]:
    """float64[n]: the sum of squared distances to the n - f - 2 nearest others. Needs n >= 2f + 3."""
    n = len(updates)
    if n < 2 * f + 3:
        raise AggregationError(
            f"Krum among {n} proposals stands at most {(n - 3) // 2} malicious ones, not {f}"
        )
    squares = np.einsum("nd,nd->n", updates, updates)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * updates @ updates.T, 0.0)
    np.fill_diagonal(distances, np.inf)
    scores: npt.NDArray[np.float64] = np.sort(distances, axis=1)[:, : n - f - 2].sum(axis=1)
    return scores


RULES: Mapping[str, Rule] = {
    "fedavg": federated_average,
    "median": coordinate_median,
    "trimmed": trimmed_mean,
    "krum": krum,
    "multikrum": multi_krum,
}
