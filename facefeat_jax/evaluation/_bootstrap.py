"""Bootstrap intervals: pictures drawn anew with replacement, persons as a whole, as weights on the pictures.

A resample is a row of weights, how often each picture was drawn. Figures are computed for many rows at once with array
arithmetic; `evaluation.scores` holds them against scikit-learn's, which take one row at a time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95
_AT_A_TIME = 2**24  # weights held in memory at a time

Interval = tuple[float, float]


class Resamples:
    """Weights of many resamples of the same pictures.

    Pictures of the same unit (a person) are drawn together: they are not independent, and intervals that take them for
    such would be too narrow.

    Args:
      units: `[n]`, what each picture belongs to.
      count: number of resamples.
      seed: seed of the draws; the stream of `RandomState`, which does not change between versions of numpy.

    Attributes:
      num_units: how many units there are.
    """

    def __init__(self, units: np.ndarray, *, count: int = RESAMPLES, seed: int = 0):
        names, self._unit_of = np.unique(units, return_inverse=True)
        self.num_units = len(names)
        self._count = count
        self._seed = seed

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields the weights, `[rows, n]` float64, a block of resamples at a time: the same ones every time."""
        random = np.random.RandomState(self._seed)
        # A block at a time whatever its size: the draws are those of one long row.
        block = max(1, min(self._count, _AT_A_TIME // max(1, len(self._unit_of))))
        for start in range(0, self._count, block):
            rows = min(block, self._count - start)
            drawn = random.randint(0, self.num_units, (rows, self.num_units))
            drawn += np.arange(rows)[:, None] * self.num_units
            counts = np.bincount(drawn.ravel(), minlength=rows * self.num_units).reshape(rows, self.num_units)
            yield counts[:, self._unit_of].astype(np.float64)


def percentile_interval(values: np.ndarray) -> np.ndarray:
    """Returns the ends `[2, ...]` of the middle `LEVEL` of `values` `[resamples, ...]`; NaN where all are NaN."""
    tail = (1 - LEVEL) / 2
    with np.errstate(all="ignore"):
        finite = np.where(np.isfinite(values).any(axis=0), values, 0.0)
        ends = np.nanquantile(finite, [tail, 1 - tail], axis=0)
    return np.where(np.isfinite(values).any(axis=0), ends, np.nan)


def mean_interval(values: np.ndarray, units: np.ndarray) -> Interval:
    """Returns the interval of the mean of `values` `[n]` (differences of the same pictures, say); see `Resamples`."""
    means = [weights @ values / weights.sum(axis=1) for weights in Resamples(units)]
    low, high = percentile_interval(np.concatenate(means))
    return float(low), float(high)


def resampled_shares(hits: np.ndarray, units: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, int]:
    """Returns the share of hits in `RESAMPLES` resamples of pictures, and of how many units the pictures are.

    Args:
      hits: `[n]`, bool.
      units: `[n]`, what is drawn together.
      seed: seed of the draws; what is to be compared needs draws of its own.
    """
    count = len(np.unique(units))
    if count == len(hits):
        # How many of n draws with replacement are hits is a binomial number.
        return np.random.RandomState(seed).binomial(count, hits.mean(), RESAMPLES) / count, count
    draws = Resamples(units, seed=seed)
    return np.concatenate([weights @ hits / weights.sum(axis=1) for weights in draws]), count


def share_interval(shares: np.ndarray, share: float, units: int) -> Interval:
    """Returns the interval of a share, such as an accuracy.

    Where all pictures are right, or all wrong, every resample says the same, and a bootstrap knows no spread. There the
    exact interval of a binomial share is given (Clopper and Pearson), with the persons as its number of trials.

    Args:
      shares: `[resamples]`, the proportion in each resample.
      share: the proportion in the data.
      units: number of persons in the data.
    """
    if share in (0.0, 1.0):
        # Of n trials all hit, the chance is half of what is left out where share^n is that.
        least = ((1 - LEVEL) / 2) ** (1 / units)
        return (least, 1.0) if share else (0.0, 1 - least)
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
